"""Make's plan of the claims, without running it."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.test_makefile import make

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
STAGES = ("fit", "predict", "test", "validate", "evaluate", "shapes")


def planned(*words):
    """Every command of the plan, joined ones taken apart; `-B`: also what is up to date here."""
    lines = make("-n", "-B", "--no-print-directory", "claims-scores", *words).replace("\\\n", " ").splitlines()
    parts = [
        part for line in lines if "bin/frugalseg " in line for part in line.split("bin/frugalseg ", 1)[1].split(" + ")
    ]
    return [" ".join(part.split()) for part in parts]


def counted(*words):
    """The stages that `make claims` counts."""
    asked = subprocess.run(
        ["make", "-C", str(REPOSITORY), "--no-print-directory", "-pn", "report", *words], capture_output=True, text=True
    )
    line = next(line for line in asked.stdout.splitlines() if line.startswith("CLAIM_COUNTED := "))
    return line.split()[2:]


def test_the_stages_that_are_counted_are_those_of_the_plan():
    files = counted()
    assert len(files) == len(set(files))
    of_claims = [part for part in planned() if part.split()[0] in STAGES and "miniature/sfc/pretrain.yaml" not in part]
    assert len(files) == len(of_claims)


def test_every_run_that_a_claim_reads_is_made_for_all_its_seeds():
    """Runs, stages and seeds of experiments/claims/claims.yaml are those of experiments/claims.mk."""
    from frugalseg.analysis.claims import read_claims

    made = set()
    for file in counted():
        _, run, *fold, seed, stage, _ = file.split("/")
        made.add((run, bool(fold), int(seed.removeprefix("seed")), stage))
    claims = read_claims(REPOSITORY / "experiments" / "claims" / "claims.yaml")
    wanted = {
        (side.run, side.fold is not None, seed, stage)
        for claim in claims
        for side in claim.terms.values()
        for seed in claim.seeds
        for stage in side.stages
    }
    assert len(claims) >= 20
    assert wanted <= made, sorted(wanted - made)[:5]


def test_only_makes_the_runs_of_one_paper():
    parts = planned("ONLY=cti-intra-maps")
    named = {name for part in parts for name in re.findall(r"claims-(\w+)", part)}
    assert named == {"cti"}


def test_rows_lie_over_files_that_exist():
    configs = {word for part in planned() for word in part.split() if word.endswith(".yaml")}
    assert len(configs) > 20
    assert all((REPOSITORY / name).is_file() for name in configs)
    used = {name for name in configs if name.startswith("experiments/claims/")}
    there = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "experiments" / "claims").glob("*/*.yaml")}
    assert used == there


def test_the_commands_that_claims_name_make_them():
    content = yaml.safe_load((REPOSITORY / "experiments" / "claims" / "claims.yaml").read_text())
    for command, paper in {(claim["command"], claim["paper"]) for claim in content["claims"]}:
        assert command == f"make claims ONLY={paper}"
