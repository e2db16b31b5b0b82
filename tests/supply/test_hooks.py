"""Every hook runs as the configuration says, passes what is good and catches what it is for."""

import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.supply import hooks
from tests.supply.project import REPOSITORY

HOOKS = {
    each["id"]: each
    for repository in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    for each in repository["hooks"]
}
HOST = "py" + "pi.org"
GOOD = "x = 1\n"


def run(name, *files, folder=REPOSITORY):
    """Run a hook on files as pre-commit would: (exit code, output)."""
    words = shlex.split(HOOKS[name]["entry"])
    tool = Path(sys.executable).parent / Path(words[0]).name
    done = subprocess.run([str(tool), *words[1:], *map(str, files)], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def notebook(*outputs):
    return json.dumps({"cells": [{"cell_type": "code", "outputs": list(outputs), "execution_count": None}]})


DEFECTS = {
    "large": ("big.py", b"#" * (hooks.LARGEST + 1), b"#" * hooks.LARGEST),
    "conflict": ("a.py", b"x = 1\n" + b"<" * 7 + b" HEAD\n", b"# " + b"<" * 7 + b"\n" + b"=" * 8 + b"\n"),
    "settings": ("a.yaml", b"a: [1\n", b"a: [1]\n---\nb: 2\n"),
    "notebook": ("a.ipynb", notebook({"output_type": "stream"}).encode(), notebook().encode()),
    "registry": ("a.txt", f"https://{HOST}/simple\n".encode(), b"numpy==2.0\n"),
    "pickled": ("a.dat", pickle.dumps([1]), b"nothing"),
}
"""Check -> file name, what it must catch, what it must not."""


def test_every_check_is_a_hook_and_has_a_defect():
    used = {shlex.split(each["entry"])[-1] for each in HOOKS.values() if "tests.supply.hooks" in each["entry"]}
    assert used == set(hooks.CHECKS) == set(DEFECTS)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_hook_of_ours_catches_its_defect(name, tmp_path):
    file, bad, good = DEFECTS[name]
    (tmp_path / file).write_bytes(bad)
    code, said = run(name, tmp_path / file)
    assert code == 1
    assert said.startswith(f"{tmp_path / file}: ")
    assert len(said.splitlines()) == 1
    (tmp_path / file).write_bytes(good)
    assert run(name, tmp_path / file) == (0, "")


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [("ruff", "import os\n", GOOD), ("ruff-format", "x  =  1\n", GOOD), ("mypy", "def f(x): return x\n", GOOD)],
)
def test_a_tools_hook_catches_its_defect(name, bad, good, tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    file = source / "planted.py"
    given = [] if HOOKS[name].get("pass_filenames") is False else [file]
    for text, code in ((bad, 1), ('"""A module."""\n\n' + good, 0)):
        file.write_text(text)
        found, said = run(name, *given, folder=tmp_path)
        assert found == code, said
    assert code == 0


def test_the_hook_of_the_architecture_runs_what_is_there():
    words = shlex.split(HOOKS["architecture"]["entry"])
    assert (REPOSITORY / words[-1]).is_file()


@pytest.mark.parametrize("line", ["x = 1  # noqa", "x = 1  # noqa:", "x = 1  # type: ignore", "x = 1  # type:ignore"])
def test_blanket_ignores_are_found(line):
    rule = re.compile(HOOKS["no-blanket-ignores"]["entry"])
    assert rule.search(line)
    assert not rule.search("x = 1  # noqa: S101")
    assert not rule.search("x = 1  # type: ignore[arg-type]")


def test_hooks_are_local_and_need_no_network():
    config = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    assert {each["language"] for each in HOOKS.values()} <= {"system", "pygrep"}


@pytest.mark.parametrize("suffix", sorted(hooks.PICKLE_SUFFIXES))
def test_names_of_pickles_are_enough(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"")
    assert hooks.pickled(path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_binary_protocol(protocol, tmp_path):
    path = tmp_path / "notes"
    path.write_bytes(pickle.dumps({"a": 1}, protocol))
    assert hooks.pickled(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", f"see {HOST}"),
        ("a.py", "https://files." + "pythonhosted" + ".org/packages/x"),
        ("a.json", '"https://registry.' + "npm" + 'js.org/x"'),
        ("pip.cfg", "index" + "-url = https://example.org/simple"),
        ("a.txt", "--extra-index" + "-url https://example.org/simple"),
        ("a.yml", "      PIP_INDEX" + "_URL: https://example.org"),
        ("a.mk", "\tpip install --find" + "-links file:///opt"),
        ("requirements.lock", "aa @ https://example.org/aa.whl"),
        ("pyproject.toml", '  "aa @ git' + '+https://example.org/aa",'),
    ],
)
def test_indexes_and_addresses_of_packages(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(f"one line\n{text}\n")
    assert hooks.registry(path)


@pytest.mark.parametrize(
    "text", ["a decorator: x @ https", "the package index decides", 'url = "https://example.org"', "y = W @ x"]
)
def test_what_only_looks_like_it(text, tmp_path):
    path = tmp_path / "a.py"
    path.write_text(text)
    assert hooks.registry(path) is None


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", "a = "), ("a.json", "{"), ("a.cff", "a: b: c"), ("a.yml", "\tx: 1")]
)
def test_settings_of_every_kind(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    assert "cannot be read" in hooks.settings(path)


def test_a_check_that_there_is_not_and_files_that_are_gone(tmp_path, capsys):
    assert hooks.main([]) == hooks.main(["nothing"]) == 2
    assert "CHECK is one of large, conflict" in capsys.readouterr().err
    assert hooks.main(["large", str(tmp_path / "gone")]) == 0


def test_the_repository_passes():
    """Every file that Git knows, or would be asked to know, passes every check of ours."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("a copy without Git")
    words = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    files = [path for name in listed.split("\0") if name and (path := REPOSITORY / name).is_file()]
    assert len(files) > 500
    notebooks = [path for path in files if path.suffix == ".ipynb"]
    bad = [
        f"{path}: {said}"
        for name, check in hooks.CHECKS.items()
        for path in (notebooks if name == "notebook" else files)
        if (said := check(path))
    ]
    assert bad == []
