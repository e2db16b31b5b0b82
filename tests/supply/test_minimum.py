"""Lower bounds: every package that users install has one, and the constraints are these."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.supply import minimum
from tests.supply.project import PYPROJECT, REPOSITORY, bounds


def test_every_package_that_users_install_has_a_lower_bound():
    _, without = minimum.lowest(list(map(str, bounds(PYPROJECT, []))))
    assert without == []


def test_a_constraint_is_the_lowest_version_that_its_bound_lets_in():
    found, _ = minimum.constraints()
    lowest = {canonicalize_name(name): version for name, version in (line.split("==") for line in found)}
    for each in bounds(PYPROJECT, list(minimum.EXTRAS)):
        version = lowest.get(canonicalize_name(each.name))
        if version:
            assert each.specifier.contains(version, prereleases=True), each
            assert any(rule.version == version for rule in each.specifier), each
    assert len(lowest) > 25


@pytest.mark.parametrize(
    ("line", "constraint"),
    [
        ("aa>=1.2", "aa==1.2"),
        ("aa[x, y]>=4.49,<4.54", "aa==4.49"),
        ("aa<2,>=1.5", "aa==1.5"),
        ("aa==2.0.8", "aa==2.0.8"),
        ("aa ~= 1.4", "aa==1.4"),
        ('aa>=1; python_version>="3.12"', "aa==1"),
    ],
)
def test_forms_of_bounds(line, constraint):
    assert minimum.lowest([line]) == ([constraint], [])
    assert Requirement(line).specifier.contains(constraint.split("==")[1])


@pytest.mark.parametrize("line", ["aa", "aa<3", 'aa; python_version>="3.12"'])
def test_a_package_without_a_lower_bound_is_named(line):
    assert minimum.lowest([line]) == ([], ["aa"])


def test_it_runs_before_anything_is_installed(tmp_path):
    out = tmp_path / "new" / "constraints.txt"
    # without site-packages: the standard library alone
    words = [sys.executable, "-I", "-S", str(REPOSITORY / "tests/supply/minimum.py"), "--write", str(out)]
    subprocess.run(words, check=True, capture_output=True)
    lines = out.read_text().splitlines()
    assert lines[0].startswith("#")
    assert lines[1:] == minimum.constraints()[0]
