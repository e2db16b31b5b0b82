"""`python -m tests.studies.mevt_sizes`: shapes, parameters and cost of MEVT's presets beside two baselines (mevt.md b.5, b.6).

A multiply-add counts once; convolutions, linears and products of attention count, nothing else. Prints a table in Markdown and
puts it `--into` a page.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from frugalseg.analysis.markdown import put_between
from frugalseg.papers.mevt.backbones import create_backbone
from frugalseg.papers.mevt.model import MEVT

MARKS = ("<!-- sizes: begin (python -m tests.studies.mevt_sizes --into) -->", "<!-- sizes: end -->")
ROWS = (
    ("mevt_s", 224), ("mevt_s", 96), ("mevt_xs", 224), ("mevt_xs", 64), ("mevt_tiny", 64),
    ("vit_small_patch16_224", 224), ("resnet50", 224),
)  # fmt: skip


def macs(net: nn.Module, image: Tensor) -> tuple[float, Any]:
    """Multiply-adds of one image, and what the net says of it."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found = net(image)
    return counter.get_total_flops() / 2, found


def row(name: str, side: int) -> str:
    """One line of the table."""
    net = create_backbone(name, None).eval()
    cost, found = macs(net, torch.zeros(1, 3, side, side))
    stages = (
        ["x".join(str(n) for n in stage.shape[1:]) for stage in found.stages] if isinstance(net, MEVT) else ["-"] * 4
    )
    dense = "x".join(str(n) for n in found.features.shape[1:])
    parameters = sum(p.numel() for p in net.parameters())
    return f"| {name} | {side} | {' | '.join(stages)} | {dense} | {found.token.shape[1]} | {parameters:,} | {cost / 1e9:.3g} |"


def table() -> str:
    """All rows."""
    head = ("net", "input", "F1", "F2", "F3", "F4", "dense", "token", "parameters", "GMAC")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(row(name, side) for name, side in ROWS)]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.mevt_sizes", description=__doc__)
    parser.add_argument("--into", type=Path, help="page that the table is put into")
    given = parser.parse_args(argv)
    body = table()
    print(body)
    if given.into is not None:
        put_between(given.into, *MARKS, body)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
