"""One part of `tests.benchmark.gpu`, in a process of its own: rows as lines of JSON, each as soon as it is there.

`python -m tests.benchmark.gpu_part FUNCTION [OF] [--quick]`, a function as the registry names it.
"""

import argparse
import json
from dataclasses import asdict

import cv2
import torch

from tests.benchmark.measure import Group, Measured, Skip
from tests.benchmark.rows import THREADS

SKIPPED = "skipped"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function")
    parser.add_argument("of", nargs="?")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(0)
    try:
        for rows in Group(options.function, of=options.of).stream(options.quick):
            for name, found in rows.items():
                told = asdict(found) if isinstance(found, Measured) else {SKIPPED: str(found)}
                print(json.dumps({"id": name, **told}), flush=True)
    except Skip as absent:
        print(json.dumps({SKIPPED: str(absent)}), flush=True)


if __name__ == "__main__":
    main()
