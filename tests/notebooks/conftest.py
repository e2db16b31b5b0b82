"""Runs for notebooks, made once, and what executes a notebook on them."""

import pytest

pytest.importorskip("nbclient", reason="no nbclient: install the extra `notebooks`")
pytest.importorskip("ipykernel", reason="no ipykernel: install the extra `notebooks`")

import nbformat
from nbclient import NotebookClient

from tests.conftest import REPOSITORY
from tests.notebooks import runs

NOTEBOOKS = REPOSITORY / "notebooks"
SECONDS = 60
"""A cell may take at most; on an idle core the longest notebook takes a third of it in all."""


@pytest.fixture(scope="session")
def start_runs(tmp_path_factory):
    """What 00_start_here reads."""
    folder = tmp_path_factory.mktemp("notebooks") / "runs"
    runs.write_worlds(folder)
    for row in ("full", "baseline"):
        runs.make_cti(folder, row)
    return folder


@pytest.fixture(scope="session")
def all_runs(start_runs):
    """What all notebooks read."""
    runs.write_benchmarks(start_runs / "data-mini")
    for world in ("longtail", "balanced"):
        for method in ("baseline", "sfc"):
            runs.make_sfc(start_runs, world, method)
    for row in ("full", "init"):
        runs.make_mevt(start_runs, row)
    for method in ("full", "prototype"):
        runs.make_few_shot(start_runs, f"mini-dsmf-{method}")
    runs.make_folder_masks(start_runs)
    return start_runs


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Run a notebook on a folder of runs in a kernel of this very Python; gives it with its outputs."""

    def run(name, folder):
        monkeypatch.setenv("FRUGALSEG_RUNS", str(folder))
        # the kernel of this environment comes before those that a user has installed; nothing is written at home
        monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
        book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        place = {"metadata": {"path": str(NOTEBOOKS)}}
        return NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources=place).execute()

    return run
