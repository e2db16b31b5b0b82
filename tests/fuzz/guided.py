"""Inputs that atheris leads by coverage, where it is installed: `python -m tests.fuzz --guided N`.

libFuzzer ends its process as it likes, so each target runs in one of its own: `python -m tests.fuzz.guided TARGET N FILE`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random

from tests.fuzz.kind import leftovers, outcome
from tests.fuzz.run import LIMIT, Row, core_seconds

READS = {
    "ids": "lists of ids", "pairs": "lists of pairs", "yaml": "YAML", "annotation": "VOC's annotations", "json": "instances json",
    "image": "decoders of images", "mask": "decoders of masks", "tar": "tar",
}  # fmt: skip


def guided_rows(count: int, seed: int) -> list[Row]:
    """One row for each target; empty where atheris is not installed.

    Args:
        count: inputs of each target.
        seed: of libFuzzer.
    """
    if find_spec("atheris") is None:
        print("atheris is not installed (pip install atheris): no inputs led by coverage", file=sys.stderr)
        return []
    return [_row(target, count, seed) for target in READS]


def _row(target: str, count: int, seed: int) -> Row:
    began = core_seconds()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told.json")
        words = [sys.executable, "-m", "tests.fuzz.guided", target, str(count), str(told), str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=count * LIMIT)
        found = json.loads(told.read_text()) if told.is_file() else {"accepted": 0, "refused": 0, "failures": []}
    failures = [(number, what) for number, what in found["failures"]]
    inputs = found["accepted"] + found["refused"] + len(failures)
    if inputs < count:
        failures.append((inputs, f"ended after {inputs} of {count} inputs: {done.stderr[-300:]}"))
    return Row(
        f"{target}, led by coverage", READS[target], inputs, found["accepted"], found["refused"], failures,
        core_seconds() - began,
    )  # fmt: skip


def _targets(place: Path) -> dict[str, Callable[[bytes], object]]:
    """Name -> what reads bytes."""
    from frugalseg.data.coco_tags import parse_instances
    from frugalseg.data.io import read_image, read_mask
    from frugalseg.data.lists import parse_ids, parse_pairs, read_text_file
    from frugalseg.data.unpack import unpack
    from frugalseg.data.voc import read_annotation
    from frugalseg.yaml_text import read_yaml

    def file(name: str, data: bytes) -> Path:
        path = place / name
        path.write_bytes(data)
        return path

    return {
        "ids": lambda data: parse_ids(read_text_file(file("x.txt", data)), "x.txt"),
        "pairs": lambda data: parse_pairs(read_text_file(file("x.txt", data)), "x.txt"),
        "yaml": lambda data: read_yaml(file("x.yaml", data)),
        "annotation": lambda data: read_annotation(file("x.xml", data), ("background", "bicycle")),
        "json": lambda data: parse_instances(file("x.json", data)),
        "image": lambda data: read_image(file("x.jpg", data)),
        "mask": lambda data: read_mask(file("x.png", data), 21),
        "tar": lambda data: unpack(file("x.tar", data), place / "root"),
    }


def _seeds(target: str, place: Path) -> list[bytes]:
    """Good inputs to begin with."""
    from tests.fuzz import archives, pictures, texts

    if target == "image":
        return [data for data in pictures.images(place) if len(data) < 2048]
    if target == "mask":
        return pictures.masks(place)
    if target == "tar":
        return [data for number in range(20) if len(data := archives.a_tar(Random(number), plain=True)) < 20_000]
    if target == "json":
        return [
            b'{"images":[{"id":1,"file_name":"a.jpg","height":2,"width":3}],"annotations":[],"categories":[{"id":1,"name":"a"}]}'
        ]
    known = {
        "ids": texts.IDS,
        "pairs": texts.PAIRS,
        "annotation": texts.ANNOTATION,
        "yaml": "a: &b {c: [1, x.y, null]}\nd: *b\n",
    }
    return [known[target].encode()]


def main(target: str, count: int, told: Path, seed: int) -> None:
    """Let atheris try a target; never returns."""
    import atheris

    with tempfile.TemporaryDirectory() as folder, atheris.instrument_imports(include=["frugalseg", "tarfile"]):
        place = Path(folder)
        read = _targets(place)[target]
        tally: dict[str, int] = {"accepted": 0, "refused": 0}
        failures: list[tuple[int, str]] = []

        def try_one(data: bytes) -> None:
            error: BaseException | None = None
            try:
                read(data)
            except Exception as caught:  # anything that a reader may raise
                error = caught
            result, what = outcome(error)
            if result != "failure" and (begun := leftovers(place)):
                result, what = "failure", f"half-written: {begun}"
            done = sum(tally.values()) + len(failures)
            if result == "failure":
                failures.append((done, f"{what}: {data[:200]!r}"))
            else:
                tally[result] += 1
            if done + 1 >= count:  # libFuzzer never returns
                told.write_text(json.dumps({**tally, "failures": failures[:20]}))
                os._exit(0)

        corpus = place / "corpus"
        corpus.mkdir()
        for number, data in enumerate(_seeds(target, place)):
            (corpus / str(number)).write_bytes(data)
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-runs={10 * count}", f"-seed={seed + 1}", "-max_len=20000", "-verbosity=0"],
            try_one,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
