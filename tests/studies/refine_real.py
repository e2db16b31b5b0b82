"""`python -m tests.studies.refine_real`: what CRF and random walk make of spoilt masks of genuine VOC images.

True masks are spoilt (`analysis.corruption`) by up to so many pixels, with several seeds. Four refinements start from
the same labels: `crf`, ten iterations with SFC's kernels; `walk`, IRN's walk at stride 4 with edges where true
boundaries run, the background a channel like the others; `walk_irn`, the same with IRN's constant 0.25 in place of the
background's channel; `walk+crf`, the CRF on the labels of `walk`. Scores are mean IoU over the classes of all images
together; 0 pixels leave the masks true, apart from seams that are filled. True edges are what no network gives: the walk
shows what it can do at best. Writes metrics.json, table.md and panels of five images to the folder `--out`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.analysis.corruption import Mask, boundary_cells, corrupted, without_void
from frugalseg.analysis.markdown import put_between
from frugalseg.analysis.pictures import Picture, captioned, save_png
from frugalseg.data.base import Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.voc import NAMES, index
from frugalseg.ops.cam import resize
from frugalseg.ops.confusion import confusion_matrix, mean_iou
from frugalseg.ops.crf import Pairwise, dense_crf, pairwise
from frugalseg.ops.palette import colourise, overlay, voc_palette
from frugalseg.ops.random_walk import propagate
from frugalseg.ops.walk_labels import irn_scores
from frugalseg.run import write_json, write_text
from tests.conftest import REAL

STRIDE, CLASSES = 4, len(NAMES)
METHODS = ("corrupted", "crf", "walk", "walk_irn", "walk+crf")
MARKS = ("<!-- refine-real: begin (make refine-real) -->", "<!-- refine-real: end -->")
SHOWN = ("corrupted", "crf", "walk")
Counts = dict[tuple[str, int, int, str], Tensor]
"""(image, pixels, seed, method) -> (K, K) confusion matrix."""


class Case(NamedTuple):
    """An image with its truth, and what all refinements of its labels share."""

    image: NDArray[np.uint8]
    truth: Mask
    keys: NDArray[np.uint8]
    edge: Tensor
    kernels: Pairwise


def read_case(sample: Sample) -> Case:
    assert sample.mask is not None
    image, truth = read_image(sample.image), read_mask(sample.mask, CLASSES)
    keys = np.union1d([0], without_void(truth)).astype(np.uint8)
    return Case(image, truth, keys, torch.from_numpy(boundary_cells(truth, STRIDE)), pairwise(torch.tensor(image)))


def by_crf(case: Case, rows: Tensor) -> Tensor:
    return dense_crf(
        torch.tensor(case.image), rows, num_labels=len(case.keys), pairwise=case.kernels
    ).argmax(dim=0)  # fmt: skip


def by_walk(case: Case, rows: Tensor, constant_background: bool = False) -> Tensor:
    size, cells = tuple(rows.shape), tuple(case.edge.shape)
    shares = torch.nn.functional.one_hot(rows, len(case.keys)).permute(2, 0, 1).float()
    if constant_background:
        return irn_scores(shares, case.edge).argmax(dim=0)
    walked = propagate(resize(shares[None], cells)[0], case.edge)
    large = resize(walked[None], (cells[0] * STRIDE, cells[1] * STRIDE))[0]
    return large[:, : size[0], : size[1]].argmax(dim=0)


def refinements(case: Case, spoilt: Mask) -> dict[str, Tensor]:
    """Class ids (H, W) by method."""
    rows = torch.from_numpy(np.searchsorted(case.keys, spoilt))
    walked = by_walk(case, rows)
    found = {
        "corrupted": rows, "crf": by_crf(case, rows), "walk": walked,
        "walk_irn": by_walk(case, rows, constant_background=True), "walk+crf": by_crf(case, walked),
    }  # fmt: skip
    return {name: torch.from_numpy(case.keys)[found[name]] for name in METHODS}


def spoil(case: Case, name: str, pixels: int, seed: int) -> Mask:
    """Draws depend on image, seed and amount alone, not on the order of images."""
    return corrupted(case.truth, np.random.default_rng([crc32(name.encode()), pixels, seed]), pixels, pixels)


def measure(samples: Sequence[Sample], amounts: Sequence[int], seeds: Sequence[int]) -> Counts:
    counts: Counts = {}
    for number, sample in enumerate(samples, start=1):
        case = read_case(sample)
        truth = torch.tensor(case.truth)
        for pixels in amounts:
            # without corruption there is nothing to draw
            for seed in seeds if pixels else seeds[:1]:
                for method, labels in refinements(case, spoil(case, sample.id, pixels, seed)).items():
                    counts[sample.id, pixels, seed, method] = confusion_matrix(labels, truth, CLASSES)
        print(f"{number}/{len(samples)} {sample.id}", file=sys.stderr, flush=True)
    return counts


def change(counts: Counts, image: str, pixels: int, seed: int, method: str) -> float:
    """By how much a method changes the mean IoU of one image."""
    return mean_iou(counts[image, pixels, seed, method]) - mean_iou(counts[image, pixels, seed, "corrupted"])


def summary(counts: Counts) -> dict[str, float]:
    """Flat keys `miou_<method>@<pixels>`, mean over seeds, with `_std` and `/seed<s>`; and how many images a method
    makes better (`wins`) and worse (`losses`), of `cases` image-seed pairs."""
    flat: dict[str, float] = {}
    images = dict.fromkeys(image for image, *_ in counts)
    for pixels in dict.fromkeys(p for _, p, *_ in counts):
        seeds = list(dict.fromkeys(s for _, p, s, _ in counts if p == pixels))
        flat[f"cases@{pixels}"] = len(images) * len(seeds)
        for method in METHODS:
            key = f"{method}@{pixels}"
            scores = [mean_iou(sum(counts[i, pixels, s, method] for i in images)) for s in seeds]
            flat |= {
                f"miou_{key}": float(np.mean(scores)),
                f"miou_{key}_std": float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0,
            }
            flat |= {f"miou_{key}/seed{seed}": score for seed, score in zip(seeds, scores, strict=True)}
            if method != "corrupted":
                changes = [change(counts, i, pixels, s, method) for i in images for s in seeds]
                flat |= {f"wins_{key}": sum(c > 0 for c in changes), f"losses_{key}": sum(c < 0 for c in changes)}
    return flat


def table(flat: dict[str, float]) -> str:
    """Markdown: mean IoU in % by pixels and method; in brackets how many cases got better and worse."""
    lines = [f"| up to pixels | {' | '.join(METHODS)} |", "|---" * (len(METHODS) + 1) + "|"]
    for pixels in (key.removeprefix("cases@") for key in flat if key.startswith("cases@")):
        cells = []
        for method in METHODS:
            key = f"{method}@{pixels}"
            cell = f"{100 * flat[f'miou_{key}']:.1f} ± {100 * flat[f'miou_{key}_std']:.1f}"
            cells.append(
                cell + (f" ({flat[f'wins_{key}']}+ {flat[f'losses_{key}']}-)" if f"wins_{key}" in flat else "")
            )
        lines.append(f"| {pixels} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def panel(sample: Sample, pixels: int, seed: int, scores: dict[str, float]) -> Picture:
    case = read_case(sample)
    found = refinements(case, spoil(case, sample.id, pixels, seed))
    masks = {"truth": case.truth} | {
        f"{name} {100 * scores[name]:.1f}": found[name].numpy() for name in SHOWN
    }  # fmt: skip
    painted = [captioned(overlay(case.image, colourise(m, voc_palette()), 0.65), text) for text, m in masks.items()]
    return np.concatenate([captioned(case.image, sample.id), *painted], axis=1)


def five_cases(counts: Counts, pixels: int, seed: int) -> list[str]:
    """Images whose change by the CRF is the least, at the quartiles, and the greatest: not the nicest ones."""
    images = dict.fromkeys(image for image, *_ in counts)
    ranked = sorted(images, key=lambda image: change(counts, image, pixels, seed, "crf"))
    return [ranked[round(share * (len(ranked) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.refine_real", description=__doc__)
    parser.add_argument("--root", type=Path, default=REAL / "VOCdevkit" / "VOC2012")
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, default=Path("runs/refine-real"))
    parser.add_argument("--pixels", type=int, nargs="+", default=[0, 4, 8, 12, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--into", type=Path, help="also put the table between the marks of this markdown page")
    parser.add_argument("--limit", type=int, help="first so many images")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    samples = {s.id: s for s in index(options.root, options.split)[: options.limit] if s.mask is not None}
    counts = measure(list(samples.values()), options.pixels, options.seeds)
    flat = summary(counts)
    write_json(options.out / "metrics.json", flat)
    write_text(options.out / "table.md", table(flat))
    # pictures of the middle amount
    pixels, seed = sorted(options.pixels)[len(options.pixels) // 2], options.seeds[0]
    for place, name in enumerate(dict.fromkeys(five_cases(counts, pixels, seed))):
        scores = {method: mean_iou(counts[name, pixels, seed, method]) for method in METHODS}
        save_png(options.out / f"{place}-{name}.png", panel(samples[name], pixels, seed, scores))
    if options.into is not None:
        put_between(options.into, *MARKS, table(flat))
    print(table(flat), end="")
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
