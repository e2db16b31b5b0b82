"""`frugalseg export`: a net as one file for other programs, by `torch.export` or as ONNX.

Segmentation nets, pre-trained features and CTI's seeds. The file takes RGB of 0..255 and normalises by itself; class
names, colours and what its sides must be multiples of lie in it.
"""

import argparse
import re
from pathlib import Path

from frugalseg.errors import ConfigError
from frugalseg.predictor.export import FORMATS, OPSET, Size, check, export
from frugalseg.predictor.opening import open_predictor

SIZES: tuple[Size, ...] = ((64, 64), (75, 91), (33, 50), (128, 97), (101, 40))
"""Of the images of --check, with sides that are multiples of nothing."""
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
"""torch opens no file of another name."""
OPSETS = range(18, 24)
"""That torch's exporter writes."""


def run(argv: list[str]) -> int:
    """Write the file whole or not at all."""
    parser = argparse.ArgumentParser("frugalseg export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of `frugalseg fit`, or a folder of `frugalseg package`")
    parser.add_argument("--format", choices=FORMATS, required=True, help="torch: torch.export's .pt2; onnx: ONNX")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"of ONNX, default {OPSET}")
    parser.add_argument("--size", metavar="HxW", help="fix the sides of images; default: open")
    parser.add_argument("--check", action="store_true", help="ask the file and the net the same, and compare")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    options = parser.parse_args(argv)
    size = None if options.size is None else _size(options.size)
    if options.opset not in OPSETS:
        raise ConfigError(f"--opset {options.opset}: give {OPSETS.start} to {OPSETS.stop - 1}")
    out: Path = options.out
    if out.suffix != SUFFIXES[options.format]:
        raise ConfigError(f"--out {out}: such a file ends in {SUFFIXES[options.format]}; give it that name")
    if out.is_dir() or (out.exists() and not options.overwrite):
        raise ConfigError(f"--out {out}: is there already; give another file, or --overwrite")
    predictor = open_predictor(options.checkpoint)
    facts = export(predictor, options.format, out, size, options.opset)
    sides = "of any size" if facts["multiple"] == 1 else f"whose sides are multiples of {facts['multiple']}"
    print(f"{out}: {', '.join(facts['outputs'])} of images {f'of {options.size}' if size else sides}")
    if options.check:
        for each in check(out, options.format, predictor, SIZES if size is None else (size,)):
            print(
                f"  {each.size[0]}x{each.size[1]}: differs by {each.difference:.1e} of the largest value, the same "
                f"largest channel at {100 * each.agree:.2f} %"
            )
    return 0


def _size(text: str) -> Size:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise ConfigError(f"--size {text}: is no HxW; give height and width in pixels, such as 512x512")
    return int(found[1]), int(found[2])
