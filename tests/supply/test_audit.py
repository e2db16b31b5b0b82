"""Pins that must not be installed: refused versions, licences, and what a vulnerability service says."""

import json
import stat
import sys

import pytest
from packaging.utils import canonicalize_name

from frugalseg.errors import ConfigError
from tests.supply import audit, licences
from tests.supply.project import PYPROJECT, Pin, bounds, project


def test_nothing_refused_is_pinned_or_allowed_by_a_bound():
    allowed = {canonicalize_name(each.name): each.specifier for each in bounds()}
    for each in audit.REFUSED:
        assert each.what.specifier.contains(each.sample), "the sample is one of the refused versions"
        name = canonicalize_name(each.what.name)
        assert name not in allowed or not allowed[name].contains(each.sample), each
    assert audit.refused(audit.read_lock()) == []


@pytest.mark.parametrize(
    ("pin", "reason"),
    [
        (Pin("lightning", "2.6.2"), "compromised"),
        (Pin("Lightning", "2.6.5"), "run code on loading"),
        (Pin("torch", "2.5.1"), "weights_only"),
        (Pin("albumentations", "2.0.9"), "MIT"),
        (Pin("AlbumentationsX", "2.0.9"), "AGPL"),
    ],
)
def test_a_refused_pin_is_found(pin, reason):
    lines = audit.refused([pin])
    assert all(line.startswith(f"{pin.name} {pin.version}: ") for line in lines)
    assert any(reason in line for line in lines)


def test_good_neighbours_are_not_refused():
    assert audit.refused([Pin("lightning", "2.6.6"), Pin("torch", "2.11.0"), Pin("albumentations", "2.0.8")]) == []


@pytest.fixture
def tool(tmp_path):
    """A stand-in for pip-audit that prints what it is told and notes how it was called."""

    def write(out, code=0, err=""):
        path = tmp_path / "pip-audit"
        path.write_text(
            f"#!{sys.executable}\nimport sys\nopen({str(tmp_path / 'words')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
            f"print({out!r})\nprint({err!r}, file=sys.stderr)\nsys.exit({code})\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


@pytest.fixture
def pins(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("aa==1.0\nbb==2.0\n")
    return path


CLEAN = {"name": "aa", "version": "1.0", "vulns": []}
FLAWED = {
    "name": "bb",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3"]}, {"id": "GHSA-2", "fix_versions": []}],
}
SKIPPED = {"name": "bb", "skip_reason": "Dependency not found"}


def said(*answers):
    return json.dumps({"dependencies": answers, "fixes": []})


def run(tool, pins, *words):
    return audit.main(["--tool", str(tool), "--lock", str(pins), *words])


def test_vulnerabilities_are_lines_and_exit_code_1(tool, pins, capsys, tmp_path):
    assert run(tool(said(CLEAN, FLAWED), code=1), pins) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "2 pins looked up",
        "bb 2.0: PYSEC-1, mended in 2.1, 3",
        "bb 2.0: GHSA-2, mended in no release",
        "2 pins: 2 findings",
    ]
    assert f"-r {pins} --no-deps --disable-pip" in (tmp_path / "words").read_text()


def test_a_clean_answer_names_what_it_left_out(tool, pins, capsys):
    assert run(tool(said(CLEAN, SKIPPED)), pins, "--require-service") == 0
    assert capsys.readouterr().out.splitlines() == ["1 pins looked up, not bb", "2 pins: 0 findings"]


@pytest.mark.parametrize(
    ("out", "err", "reason"),
    [
        ("", "line one\nConnectionError: no route", r"cannot be asked \(ConnectionError: no route\)"),
        ("{}", "", r"it said nothing"),
        (said({"name": "aa", "skip_reason": "not found"}, SKIPPED), "", "knows none of the packages"),
        (said(), "", "knows none of the packages"),
    ],
)
def test_a_service_that_does_not_answer_is_one_line_and_no_clean_result(tool, pins, capsys, out, err, reason):
    path = tool(out, 1, err)
    with pytest.raises(ConfigError, match=reason) as caught:
        audit.ask(path, pins)
    assert "\n" not in str(caught.value)
    assert run(path, pins) == 0
    streams = capsys.readouterr()
    assert streams.err.splitlines() == [str(caught.value)]
    assert streams.out.splitlines() == ["2 pins: 0 findings among versions and licences"]
    assert run(path, pins, "--require-service") == 2


def test_without_the_tool(pins, tmp_path, capsys):
    assert run(tmp_path / "nothing", pins, "--require-service") == 2
    assert "cannot be run (No such file or directory); `make audit` installs it" in capsys.readouterr().err


def test_what_is_known_here_is_said_without_a_service(tmp_path, capsys):
    path = tmp_path / "requirements.lock"
    path.write_text("lightning==2.6.2\n")
    assert run(tmp_path / "nothing", path) == 1
    assert "lightning 2.6.2: was compromised" in capsys.readouterr().out


def test_a_lock_with_an_address_is_an_error(tmp_path, capsys):
    path = tmp_path / "requirements.lock"
    path.write_text("aa @ https://example.org/a.whl\n")
    assert run(tmp_path / "nothing", path) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_comments_of_pyproject_agree_with_the_list():
    text = PYPROJECT.read_text()
    for each in audit.REFUSED:
        if each.what.specifier and str(each.what.specifier).startswith("=="):
            assert each.sample in text, f"{each.what}: pyproject.toml says why its bound is what it is"
    assert project()["license"] == "Apache-2.0"
    assert not licences.COPYLEFT.search(project()["license"])
