"""`python -m tests.studies.budget`: what SFC's chain costs on all of VOC's trainaug, on paper.

Seconds per image are those that `tests.studies.stage_seconds` measured on one CPU thread (and, where that was run there, on
a GPU); how many images a training sees follows from its experiment file. 16 cores count as 16 times one: labels are made
image by image, so they come near; a training step on 16 threads does not. Prints a table in Markdown and puts it `--into` a page.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frugalseg.analysis.markdown import put_between
from tests.studies.stage_seconds import CTI, IMAGES, SFC, config

MARKS = ("<!-- budget: begin (make budget) -->", "<!-- budget: end -->")
TRAINED = {
    "sfc.train": SFC.format("classify"),
    "irn.train": SFC.format("irn"),
    "psa.train": CTI.format("psa"),
    "deeplab.train": SFC.format("segment"),
    "r38.train": SFC.format("segment-r38"),
}
CORES = 16


def images_seen(name: str) -> float:
    """Images that pass through a training, or the whole set once."""
    if name not in TRAINED:
        return IMAGES
    trainer = config(TRAINED[name], "trainer")
    if (steps := trainer.get("max_steps", -1)) > 0:
        return (
            steps * trainer.get("accumulate_grad_batches", 1) * config(TRAINED[name], "data", "init_args", "batch_size")
        )
    return trainer["max_epochs"] * IMAGES


def table(rows: Sequence[dict[str, Any]], gpu: dict[str, float]) -> str:
    """Markdown; the column of the GPU is empty where nothing was measured."""
    lines = ["| stage | s / image | images | 1 core, h | 16 cores, h | one GPU, h |", "|---|---|---|---|---|---|"]
    for row in rows:
        seen = images_seen(row["id"])
        one, on_gpu = row["seconds"] * seen, _hours(gpu[row["id"]] * seen) if row["id"] in gpu else ""
        lines.append(
            f"| {row['what']} | {row['seconds']:.3g} | {seen:,.0f} | {_hours(one)} | {_hours(one / CORES)} | {on_gpu} |"
        )
    return "\n".join(lines) + "\n"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.budget", description=__doc__)
    parser.add_argument("--measured", type=Path, default=Path("runs/stage_seconds.json"))
    parser.add_argument("--measured-gpu", type=Path, help="the same file of a run with --device cuda")
    parser.add_argument("--into", type=Path, help="page that holds the marks")
    options = parser.parse_args(argv)
    rows = json.loads(options.measured.read_text())["rows"]
    gpu = json.loads(options.measured_gpu.read_text())["rows"] if options.measured_gpu else []
    text = table(rows, {row["id"]: row["seconds"] for row in gpu})
    if options.into is not None:
        put_between(options.into, *MARKS, text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
