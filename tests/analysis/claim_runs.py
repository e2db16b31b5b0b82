"""Run folders and a file of claims for tests of what claims are settled with."""

import subprocess
from pathlib import Path

import yaml

from frugalseg.run import write_json

ENTRY = {
    "id": "sfc-bank", "paper": "sfc", "statement": "the bank raises M_W", "source": "Table 5", "treatment": "bank",
    "baseline": "plain", "stage": "score", "metric": "train/miou_mw", "better": "higher", "unit": "points of mIoU",
    "scale": 100, "equal": "all but the bank", "command": "make claims ONLY=sfc-bank",
}  # fmt: skip
"""A claim in the form of the file."""
SEEDS = (11, 12, 13, 14, 15)


def entry(**changes):
    """`ENTRY` with changes; None takes a key away."""
    return {key: value for key, value in (ENTRY | changes).items() if value is not None}


def text_of(*entries, seeds=SEEDS):
    """A file of claims."""
    return yaml.safe_dump({"seeds": list(seeds), "claims": list(entries)}, sort_keys=False)


def finish(runs: Path, place: str, metrics=None, started="2026-01-02T00:00:00+00:00", **done):
    """A finished stage `<run>/[fold<f>/]seed<s>/<stage>`, a minute's work."""
    folder = runs / place
    write_json(folder / "metrics.json", metrics or {})
    write_json(folder / "provenance.json", {"started": started, "git": {"commit": "c0ffee", "changed": False}})
    write_json(folder / "done.json", {"digest": place, "finished": started.replace("00:00+", "01:00+"), **done})
    return folder


def study(runs: Path, **values):
    """A score stage of every seed of every run, `train/miou_mw` being the value."""
    for run, numbers in values.items():
        for seed, value in zip(SEEDS, numbers, strict=False):
            finish(runs, f"{run}/seed{seed}/score", {"train/miou_mw": value})


def commit(folder: Path, when: str):
    """Commit all files of a folder, at a time."""
    words = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x"]
    environment = {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    for step in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x", "--allow-empty"]):
        subprocess.run([*words, *step], check=True, env=environment)
