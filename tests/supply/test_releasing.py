"""The release page and the Make targets that it names."""

import re
import shutil
import subprocess

import pytest

from tests.supply.project import REPOSITORY, make_targets

PARTS = sorted((REPOSITORY / "experiments").glob("*.mk"))
PAGES = ("RELEASING.md", "SECURITY.md", "DEPENDENCIES.md", ".github/pull_request_template.md")


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_a_page_exist(page):
    spans = re.findall(r"`([^`\n]+)`", (REPOSITORY / page).read_text())
    named = {found[1] for span in spans if (found := re.match(r"make ([a-z][a-z0-9-]*)", span))}
    known = make_targets([REPOSITORY / "Makefile", *PARTS])
    assert named
    assert named <= known, sorted(named - known)


def test_every_check_of_the_checklist_is_named():
    text = (REPOSITORY / "RELEASING.md").read_text()
    for target in (
        "setup",
        "demo",
        "check",
        "test",
        "test-slow",
        "test-minimum",
        "test-newest",
        "test-faults-nightly",
        "fuzz",
    ):
        assert f"`make {target}`" in text, target
    for target in (
        "benchmark",
        "claims",
        "lock",
        "lock-check",
        "licences",
        "audit",
        "check-addresses",
        "release-check",
    ):
        assert f"`make {target}" in text, target


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (["lock"], ["-m tests.supply.lock --write"]),
        (["lock", "UPGRADE=torch torchvision"], ["--write --upgrade torch torchvision"]),
        (["lock-check"], ["-m tests.supply.lock"]),
        (["licences"], ["-m tests.supply.licences --write"]),
        (["check-addresses", "ONLY=voc weights"], ["-m tests.supply.addresses --only voc weights"]),
        (["release-check", "TAG=v1.2.3"], ["-m tests.supply.release --out dist --tag v1.2.3"]),
        (["audit", "REQUIRE=yes"], ["-m tests.supply.audit --tool .venv-audit/bin/pip-audit --require-service"]),
        (
            ["test-minimum", "TESTS=tests/ops", "PYTHON=python3"],
            [
                "python3 tests/supply/minimum.py --write .venv-minimum/constraints.txt",
                '--constraint .venv-minimum/constraints.txt --editable ".[dev,notebooks,dashboards]"',
                "FRUGALSEG_UNLOCKED=1 .venv-minimum/bin/pytest",
                "tests/ops",
            ],
        ),
        (["test-newest"], ["--upgrade --upgrade-strategy eager", "FRUGALSEG_UNLOCKED=1 .venv-newest/bin/pytest"]),
    ],
)
def test_the_plan_of_a_target(goal, words, tmp_path):
    # the part alone: nothing is installed or looked up for a plan
    makefile = tmp_path / "Makefile"
    makefile.write_text(
        "BIN := .venv/bin\nREADY := ready\nPYTHON ?= python3\nready: ;\n"
        f".venv-audit/.ready: ;\ninclude {REPOSITORY / 'experiments/supply.mk'}\n"
    )
    (tmp_path / "tests/supply").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/supply/minimum.py"):
        (tmp_path / name).touch()
    done = subprocess.run(["make", "-n", "-C", str(tmp_path), *goal], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place = 0
    for word in words:
        place = done.stdout.find(word, place)
        assert place >= 0, f"{word} in its turn, of {done.stdout}"
