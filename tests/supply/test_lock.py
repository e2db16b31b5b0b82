"""The lock: what is in it, how its faults are found, how it is made."""

import os
import sys

import pytest
from packaging.requirements import Requirement

from frugalseg.errors import ConfigError
from tests.supply import environments, lock
from tests.supply.environments import Environment, closure, installed, marker
from tests.supply.project import LOCK, PYPROJECT, bounds, extras, python_versions, read_lock

UNLOCKED = os.environ.get("FRUGALSEG_UNLOCKED") == "1"
PYTHONS = ["3.11", "3.12", "3.13"]
LINUX = Environment("3.11", "linux")


@pytest.mark.skipif(UNLOCKED, reason="other versions than the lock's are installed on purpose")
def test_the_lock_holds_what_is_needed_and_the_environment_is_the_lock():
    assert lock.faults(PYPROJECT, LOCK, *installed()) == []


def test_the_lock_satisfies_every_bound_that_users_and_extras_have():
    pins = {pin.key: pin.version for pin in read_lock()}
    asked = bounds()
    assert {"dev", "notebooks"} <= set(extras())
    assert len(asked) > 25
    for each in asked:
        assert each.specifier.contains(pins[lock.canonicalize_name(each.name)], prereleases=True), each


# ---------------------------------------------------------------------- faults


@pytest.fixture
def faulty(tmp_path):
    """`faults` of a small project: it asks for aa and bb, and aa needs cc, which has the extra xx that needs dd."""
    pyproject, path = tmp_path / "pyproject.toml", tmp_path / "requirements.lock"
    classifiers = ", ".join(f'"Programming Language :: Python :: {each}"' for each in PYTHONS)
    pyproject.write_text(f'[project]\nclassifiers = [{classifiers}]\ndependencies = ["aa>=2", "bb"]\n')
    requires = {
        "aa": [Requirement("cc[xx]")],
        "cc": [Requirement('dd; extra == "xx"'), Requirement("zz; extra == 'y'")],
    }

    def faults(text, **versions):
        path.write_text(text)
        return lock.faults(pyproject, path, versions, requires)

    return faults


GOOD = '# a comment\naa==2.1\nBb==1\ncc==3\ndd==0.1 ; sys_platform == "linux"\n'


def test_a_good_lock_has_no_faults(faulty):
    assert faulty(GOOD, aa="2.1", bb="1") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("aa==2.1", "aa==1.9"), ["aa: 1.9 is outside >=2 of pyproject.toml"]),
        (GOOD + "dd==0.1\n", ["dd: pinned twice"]),
        (GOOD.replace("cc==3\n", ""), ["cc: is needed and not pinned"]),
        (GOOD + "ee==1\n", ["ee: is pinned and nothing needs it"]),
        (GOOD.replace("cc==3\n", "") + "cc==3\n", ["the pins are not in alphabetical order"]),
    ],
)
def test_a_fault_is_named(faulty, text, said):
    assert faulty(text) == said


def test_another_version_in_the_environment_is_a_fault(faulty):
    assert faulty(GOOD, aa="2.2") == ["aa: 2.2 is installed, 2.1 is pinned"]


@pytest.mark.parametrize(
    "line",
    ["aa>=2.1", "aa @ https://example.org/aa.whl", "aa==2.1 --hash=sha256:00", "-e .", "--index-url x", "aa"],
)
def test_a_line_that_is_no_pin_is_an_error_with_its_number(faulty, line):
    with pytest.raises(ConfigError, match=r"requirements.lock:2: `") as caught:
        faulty(f"bb==1\n{line}\n")
    assert "\n" not in str(caught.value)


def test_bad_projects_are_one_line(tmp_path):
    path = tmp_path / "pyproject.toml"
    for text in ("", "[project", '[project]\ndependencies = ["not a requirement"]\n'):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"pyproject\.toml: ") as caught:
            bounds(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="has no extra nothing; there are dashboards, dev"):
        bounds(PYPROJECT, ["nothing"])


# ---------------------------------------------------------------------- where something is needed


def test_extras_and_markers_are_followed():
    requires = {
        "aa": [Requirement("bb[x]"), Requirement('cc; python_version >= "3.12"')],
        "bb": [Requirement('dd; extra == "x"'), Requirement('ee; extra == "y"'), Requirement("aa")],
    }
    assert closure([Requirement("AA")], requires, LINUX) == {"aa", "bb", "dd"}
    assert closure([Requirement("aa")], requires, Environment("3.12", "linux")) == {"aa", "bb", "dd", "cc"}
    # an extra that is asked for after the package was seen without it
    both = [Requirement("bb"), Requirement("bb[y]")]
    assert closure(both, requires, LINUX) >= {"ee"}
    assert closure(both[::-1], requires, LINUX) >= {"ee"}


EVERY = {Environment(python, platform) for python in PYTHONS for platform in environments.PLATFORMS}


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (lambda _: True, ""),
        (lambda e: e.platform == "linux", 'sys_platform == "linux"'),
        (lambda e: e.python != "3.11", 'python_version >= "3.12"'),
        (lambda e: e.python == "3.11", 'python_version < "3.12"'),
        (
            lambda e: e.python == "3.13" and e.platform == "linux",
            'python_version >= "3.13" and sys_platform == "linux"',
        ),
        (lambda e: e.python == "3.12", ""),  # no plain condition: everywhere
        (lambda e: e.platform == "linux" or e.python == "3.13", ""),
    ],
)
def test_markers_hold_where_a_package_is_needed(chosen, said):
    needed = {each for each in EVERY if chosen(each)}
    assert marker(needed, PYTHONS) == said
    if said:
        rule = Requirement(f"x; {said}").marker
        assert {each for each in EVERY if rule.evaluate(each.variables(""))} == needed


# ---------------------------------------------------------------------- making


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A package index of three packages, what was asked of it, and a function that makes a lock with it."""
    metadata = {
        "aa": ("2.5", ["bb", 'cc>=1; python_version >= "3.13"', 'ww; sys_platform == "win32"']),
        "bb": ("1.0", []),
        "cc": ("1.5", ['nn; sys_platform == "linux"']),
        "nn": ("7", []),
    }
    asked = []

    def resolve(lines, constraints):
        asked.append((lines, constraints))
        held = dict(line.split("==") for line in constraints)
        # as pip does, for the running Python alone: 3.11
        requires = {name: [Requirement(line) for line in lines] for name, (_, lines) in metadata.items()}
        names = closure([Requirement(line) for line in lines], requires, LINUX)
        about = [
            {"name": n, "version": held.get(n, metadata[n][0]), "requires_dist": metadata[n][1]} for n in sorted(names)
        ]
        return [{"metadata": each} for each in about]

    monkeypatch.setattr(lock, "resolve", resolve)
    monkeypatch.setattr(lock.sys, "version_info", (3, 11, 0))
    pyproject, path = tmp_path / "pyproject.toml", tmp_path / "requirements.lock"
    classifiers = ", ".join(f'"Programming Language :: Python :: {each}"' for each in PYTHONS)
    pyproject.write_text(f'[project]\nclassifiers = [{classifiers}]\ndependencies = ["aa>=2"]\n')

    def make(*upgrade):
        path.write_text(lock.make(pyproject, path, list(upgrade)))
        return [str(pin) for pin in read_lock(path)]

    make.asked, make.metadata, make.path = asked, metadata, path
    return make


NEWER = 'python_version >= "3.13"'


def test_what_only_a_newer_python_needs_is_asked_for_and_marked(index):
    assert index() == ["aa==2.5", "bb==1.0", f"cc==1.5 ; {NEWER}", f'nn==7 ; {NEWER} and sys_platform == "linux"']
    assert [lines for lines, _ in index.asked] == [["aa>=2"], ["aa>=2", "cc>=1"]]
    assert index.path.read_text().startswith("# Exact versions for `make setup` (Python 3.11 to 3.13)")


def test_a_second_lock_has_the_same_bytes_until_a_pin_is_let_go(index):
    first = index()
    text = index.path.read_text()
    index.metadata["bb"] = ("1.1", [])
    assert index() == first
    assert index.path.read_text() == text
    assert index("BB") == [line.replace("bb==1.0", "bb==1.1") for line in first]
    index.metadata["aa"] = ("2.6", index.metadata["aa"][1])
    assert index("all")[0] == "aa==2.6"


def test_another_python_than_the_lowest_is_refused(index, monkeypatch):
    monkeypatch.setattr(lock.sys, "version_info", (3, 13, 0))
    with pytest.raises(ConfigError, match=r"Python 3\.13: .* use 3\.11"):
        index()


def test_pip_without_a_solution_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ConfigError, match="pip found no set of versions") as caught:
        lock.resolve(["frugalseg-nowhere>=1"], [])
    assert "\n" not in str(caught.value)
    assert "frugalseg-nowhere" in str(caught.value)


def test_a_withdrawn_version_is_refused(monkeypatch, tmp_path):
    said = (
        "WARNING: The candidate selected for download or install is a yanked version: 'aa' candidate (version 1.0 at x)"
    )
    pip = tmp_path / "python"
    pip.write_text(
        f"#!{sys.executable}\nimport json, sys\nreport = sys.argv[sys.argv.index('--report') + 1]\n"
        f"open(report, 'w').write(json.dumps({{'install': [sys.argv[1:]]}}))\nprint(WARNING, file=sys.stderr)\n"
    )
    pip.chmod(0o755)
    text = pip.read_text()
    monkeypatch.setattr(lock.sys, "executable", str(pip))
    pip.write_text(text.replace("WARNING", repr("WARNING: something else")))
    (words,) = lock.resolve(["aa"], ["bb==1"])
    assert words[:4] == ["-m", "pip", "install", "--dry-run"]
    pip.write_text(text.replace("WARNING", repr(said)))
    with pytest.raises(ConfigError, match=r"aa 1\.0: its publisher has withdrawn it; make lock UPGRADE=aa"):
        lock.resolve(["aa"], [])


def test_the_command_says_faults_and_how_to_mend_them(monkeypatch, capsys, tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("aa==1\n")
    monkeypatch.setattr(lock, "LOCK", path)
    monkeypatch.setattr(lock, "faults", lambda *_: ["aa: pinned twice"])
    monkeypatch.setattr(lock, "read_lock", lambda: [1])
    assert lock.main([]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "requirements.lock: aa: pinned twice"
    monkeypatch.setattr(lock, "faults", lambda *_: [])
    assert lock.main([]) == 0
    with pytest.raises(SystemExit):
        lock.main(["--upgrade", "aa"])


def test_the_classifiers_begin_at_the_lowest_python_and_name_this_one():
    versions = python_versions()
    assert "{}.{}".format(*sys.version_info) in versions
    from tests.supply.project import project

    assert project()["requires-python"] == f">={versions[0]}"
