"""The mechanical part of a release: builds that repeat, wheels that hold what they must, versions that agree."""

import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from frugalseg._version import __version__
from frugalseg.errors import ConfigError
from tests.supply import release
from tests.supply.project import REPOSITORY

EPOCH = 1_700_000_000


@pytest.fixture
def packed(tmp_path):
    """A function that packs the same files as an sdist, each time in another order, with other times and owners."""
    calls = []

    def pack():
        number = len(calls)
        calls.append(number)
        folder = tmp_path / f"tree{number}"
        (folder / "a").mkdir(parents=True)
        for name, content in (("a/one.py", "x = 1\n"), ("two.sh", "true\n")):
            (folder / name).write_text(content)
            os.utime(folder / name, (number * 1000.0, number * 1000.0))
        (folder / "two.sh").chmod(0o700 + number)
        path = tmp_path / f"sdist{number}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in ("a/one.py", "two.sh")[:: 1 - 2 * (number % 2)]:
                archive.add(
                    folder / name,
                    f"p-1/{name}",
                    filter=lambda each: each.replace(uid=number, uname=f"u{number}", deep=False),
                )
        return path

    return pack


def test_a_steady_sdist_depends_on_its_files_alone(packed, monkeypatch):
    first, second = packed(), packed()
    assert first.read_bytes() != second.read_bytes()
    release.steady(first, EPOCH)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    release.steady(second, EPOCH)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        entries = {each.name: each for each in archive.getmembers()}
        assert archive.extractfile("p-1/a/one.py").read() == b"x = 1\n"
    assert list(entries) == ["p-1/a/one.py", "p-1/two.sh"]
    assert {each.mtime for each in entries.values()} == {EPOCH}
    assert [entries[name].mode for name in entries] == [0o644, 0o755]
    other = packed()
    release.steady(other, EPOCH + 1)
    assert other.read_bytes() != first.read_bytes()


METADATA = "Metadata-Version: 2.4\nName: frugalseg\nVersion: 1.2\nSummary: s\nLicense-Expression: x\nRequires-Python: >=3.11\n\nreadme"
FILES = {
    "frugalseg/__init__.py": "",
    "frugalseg/py.typed": "",
    "frugalseg/analysis/published.yaml": "",
    "frugalseg/analysis/html/templates/page.html": "",
    "frugalseg/data/lists/voc12/train.txt": "",
    "frugalseg-1.2.dist-info/METADATA": METADATA,
    "frugalseg-1.2.dist-info/licenses/LICENSE": "",
}


@pytest.fixture
def inspected(tmp_path):
    def inspect(change):
        path = tmp_path / "frugalseg-1.2-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**FILES, **change}.items():
                if content is not None:
                    archive.writestr(name, content)
        return [line.removeprefix(f"{path.name}: ") for line in release.inspect(path, "1.2")]

    return inspect


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"frugalseg/py.typed": None}, ["lacks frugalseg/py.typed"]),
        ({"frugalseg/data/lists/voc12/train.txt": None}, ["lacks frugalseg/data/lists/voc12/"]),
        ({"frugalseg-1.2.dist-info/licenses/LICENSE": None}, ["lacks the licence"]),
        ({"tests/test_a.py": ""}, ["holds tests/test_a.py"]),
        ({"frugalseg/a.pyc": ""}, ["holds frugalseg/a.pyc"]),
        ({"frugalseg/weights.pth": ""}, ["holds frugalseg/weights.pth"]),
        ({"frugalseg/.hidden": ""}, ["holds frugalseg/.hidden"]),
        ({"other/__init__.py": ""}, ["holds other/__init__.py"]),
        ({"frugalseg-1.2.dist-info/METADATA": METADATA.replace("1.2", "1.3")}, ["says version 1.3, the package 1.2"]),
        ({"frugalseg-1.2.dist-info/METADATA": METADATA.replace("Summary: s\n", "")}, ["its metadata lack Summary"]),
        ({"frugalseg-1.2.dist-info/METADATA": METADATA.removesuffix("readme")}, ["its metadata lack the README"]),
    ],
)
def test_what_is_wrong_with_a_wheel(inspected, change, said):
    assert inspected(change) == said


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-11-22\n")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "tag", "said"),
    [
        ("1.2.3", None, []),
        ("1.2.3", "v1.2.3", []),
        ("1.2.4", None, ["CITATION.cff: version 1.2.3, the package is 1.2.4"]),
        ("1.2.3", "1.2.3", ["tag 1.2.3: the package is 1.2.3; the tag is v1.2.3"]),
        ("1.2", "v1.2", ["CITATION.cff", "CHANGELOG.md: has no heading `## 1.2`"]),
    ],
)
def test_versions_agree(tree, version, tag, said):
    found = release.agreement(tree, version, tag)
    assert len(found) == len(said)
    assert all(line.startswith(begin) for line, begin in zip(found, said, strict=True))


def test_the_project_agrees_with_itself():
    assert release.agreement(REPOSITORY, __version__, None) == []


def test_a_command_that_fails_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="failed: the last line") as caught:
        release.run([sys.executable, "-c", "raise SystemExit('a line\\nthe last line')"], tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tree_without_a_commit(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path / "empty")], check=True)
    monkeypatch.setattr(release, "REPOSITORY", tmp_path / "empty")
    assert release.main(["--out", str(tmp_path / "dist")]) == 2
    streams = capsys.readouterr()
    assert len(streams.err.splitlines()) == 1
    assert "git archive" in streams.err
    assert not (tmp_path / "dist").exists()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A repository whose one commit is the working tree as it is now."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("a copy without Git")
    folder = tmp_path_factory.mktemp("release") / "tree"
    words = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\0"):
        # the package and what building reads; without the golden vectors
        if name and not name.startswith("tests/golden") and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return folder


@pytest.fixture
def offline(monkeypatch):
    """The build requirements of this environment in the place of fetched ones; the clean environment stays clean."""
    pytest.importorskip("setuptools", minversion="77")
    fetch = release.environment

    def environment(folder, requirements):
        return Path(sys.executable) if folder.name == "builder" else fetch(folder, requirements)

    monkeypatch.setattr(release, "environment", environment)


@pytest.mark.slow
def test_two_builds_are_equal_and_the_wheel_works_alone(copy, offline, tmp_path, capsys):
    assert release.check(copy, tmp_path / "dist", None) == []
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {name: release.digest(tmp_path / "dist" / name) for _, name in printed} == {
        name: said for said, name in printed
    }
    sdist, wheel = sorted((tmp_path / "dist").iterdir(), key=lambda path: path.suffix)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {path.relative_to(copy / "src").as_posix() for path in (copy / "src" / "frugalseg").rglob("*.py")}
    assert inside <= names, "every module is in the wheel"
    lists = {
        path.relative_to(copy / "src").as_posix()
        for path in (copy / "src/frugalseg/data/lists").rglob("*")
        if path.is_file()
    }
    assert lists <= names, "every list is in the wheel"
    assert sdist.name == f"frugalseg-{__version__}.tar.gz"


@pytest.mark.slow
def test_a_build_that_does_not_repeat_is_found(copy, offline, tmp_path, monkeypatch):
    real, calls = release.steady, []

    def drifting(sdist, epoch):
        calls.append(sdist)
        real(sdist, epoch + len(calls))

    monkeypatch.setattr(release, "steady", drifting)
    found = release.check(copy, tmp_path / "dist", "v0.0.0")
    assert any("two builds differ" in line for line in found)
    assert any(line.startswith("tag v0.0.0: ") for line in found)
