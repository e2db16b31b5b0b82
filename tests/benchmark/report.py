"""The static report of a hundred runs."""

import tempfile
import time
from pathlib import Path

from frugalseg.analysis.html import write_report
from tests.analysis.html.runs import write_experiment
from tests.benchmark.measure import Measured

RUNS = 100


def hundred_runs(quick: bool) -> dict[str, Measured]:
    """CPU seconds of a report over made-up runs, each a whole chain with curves, classes and pictures."""
    with tempfile.TemporaryDirectory() as folder:
        runs, count = Path(folder) / "runs", 3 if quick else RUNS
        for number in range(count):
            write_experiment(runs, f"mini-sfc-{number:03d}", seeds=(0,))
        began = time.process_time()
        summary = write_report([], runs, Path(folder) / "report")
        seconds = time.process_time() - began
    if len(summary.entries) != count or any(entry.troubles for entry in summary.entries):
        raise RuntimeError("the report lacks runs")
    return {"report.hundred_runs": Measured(seconds)}
