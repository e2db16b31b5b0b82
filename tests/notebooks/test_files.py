"""What is in the notebooks' files: no outputs, no logic, headings in order, links that lead somewhere."""

import ast
import json
import re
from itertools import pairwise

import nbformat
import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS = REPOSITORY / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
EXPECTED = [
    "00_start_here", "01_benchmarks", "02_sfc_long_tail", "03_cti_tokens", "04_dsmf_episodes", "05_mevt_features",
    "06_compare_runs", "07_your_own_photos",
]  # fmt: skip
LOGIC = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.AsyncFor, ast.While, ast.If, ast.Try,
    ast.With, ast.Match, ast.IfExp, ast.AugAssign, ast.Delete, ast.Raise, ast.Assert,
)  # fmt: skip
IMPORTED = ("frugalseg.analysis", "frugalseg.data", "matplotlib.pyplot", "pathlib")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def read(path):
    return nbformat.read(path, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def flaws(source):
    """What a cell does beyond imports, settings and a call, one line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, LOGIC):
            found.append(f"line {node.lineno}: {type(node).__name__}")
        elif isinstance(node, COMPREHENSIONS) and node.lineno != node.end_lineno:
            found.append(f"line {node.lineno}: a comprehension over several lines")
        elif isinstance(node, ast.Import):
            found += [f"imports {a.name}" for a in node.names if not a.name.startswith(IMPORTED)]
        elif isinstance(node, ast.ImportFrom):
            module, names = node.module or "", {alias.name for alias in node.names}
            if not module.startswith(IMPORTED) and not (module == "frugalseg" and names == {"load"}):
                found.append(f"imports from {module}")
    return found


def test_all_notebooks_are_there():
    assert [path.stem for path in FILES] == EXPECTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestFile:
    def test_it_is_valid_and_says_which_kernel_runs_it(self, path):
        book = read(path)
        nbformat.validate(book)
        assert book.nbformat == 4
        assert book.metadata["kernelspec"]["name"] == "python3"
        assert set(book.metadata) == {"kernelspec", "language_info"}

    def test_it_holds_no_outputs(self, path):
        for cell in code(read(path)):
            assert cell.outputs == [] and cell.execution_count is None and not cell.metadata, cell.source

    def test_its_cells_hold_no_logic(self, path):
        for cell in code(read(path)):
            assert flaws(cell.source) == [], cell.source

    def test_it_names_no_place_of_one_machine(self, path):
        assert not re.search(r"/(home|work|root|tmp|Users|mnt)/|[A-Z]:\\\\", path.read_text())

    def test_headings_are_in_order(self, path):
        texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
        levels = [len(m[1]) for text in texts for m in re.finditer(r"^(#+) \S", text, re.MULTILINE)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(later <= former + 1 for former, later in pairwise(levels))

    def test_links_lead_to_files(self, path):
        for cell in read(path).cells:
            for target in re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else []:
                assert (NOTEBOOKS / target).is_file(), target

    def test_make_targets_exist(self, path):
        text = "\n".join(p.read_text() for p in (REPOSITORY / "Makefile", *REPOSITORY.glob("experiments/*.mk")))
        for target in re.findall(r"`make ([a-z0-9-]+)`", json.dumps(json.loads(path.read_text()))):
            assert re.search(rf"^{target}:", text, re.MULTILINE), target


@pytest.mark.parametrize(
    "source",
    [
        "for x in runs:\n    x", "def f():\n    pass", "class A:\n    pass", "f = lambda: 1", "import os",
        "from frugalseg.papers.sfc import SFC", "from frugalseg import __version__", "if x:\n    y",
        "[x\n for x in y]", "with open('a') as f:\n    f", "x = 1 if y else 2", "while x:\n    pass",
        "try:\n    x\nexcept E:\n    pass", "import frugalseg.cli",
    ],
)  # fmt: skip
def test_logic_would_be_found(source):
    assert flaws(source)


@pytest.mark.parametrize(
    "source",
    ["runs = open_runs()\nruns", "from frugalseg import load", "sfc.maps(runs, *[x for x in y])", "import pathlib"],
)
def test_what_a_cell_may_do(source):
    assert flaws(source) == []
