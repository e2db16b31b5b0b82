"""The words of `frugalseg segment`."""

import argparse
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from frugalseg.commands.segment_work import OVERLAP, WINDOW
from frugalseg.errors import ConfigError

if TYPE_CHECKING:
    from frugalseg.predictor import Predictor

ON_GPU = 8
"""Images that go through together on a GPU where nobody says how many; on a CPU one, as more are no faster there."""


def read_options(argv: list[str], about: str | None) -> argparse.Namespace:
    """Parse and check, as far as words can be checked by themselves.

    Args:
        argv: the words.
        about: what the verb does.

    Raises:
        ConfigError: a number out of its range.
    """
    options = _parser(about).parse_args(argv)
    side = options.window or WINDOW
    for name, right, wanted in (
        ("batch-size", options.batch_size is None or options.batch_size >= 1, "at least 1"),
        ("window", options.window is None or options.window >= 1, "at least 1"),
        ("overlap", 0 <= options.overlap < side, f"at least 0 and below --window {side}"),
        ("scales", all(0 < scale < inf for scale in options.scales or [1.0]), "numbers above 0"),
    ):
        if not right:
            given = getattr(options, name.replace("-", "_"))
            raise ConfigError(f"--{name} {given}: must be {wanted}; mend the number")
    return options


def _parser(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("frugalseg segment", description=about)
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE|FOLDER", help="images, and folders with images at any depth")
    add("--checkpoint", type=Path, required=True, help="of `frugalseg fit`, or a folder of `frugalseg package`")
    add("--out", type=Path, required=True, help="folder for masks/, overlays/, areas.json and segment.json")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (auto)")
    together = f"images of one size that go through together (1; {ON_GPU} on a GPU)"
    add("--batch-size", type=int, metavar="N", help=together)
    add(
        "--scales",
        type=float,
        nargs="+",
        metavar="S",
        help="sizes at which an image is seen; 1, the default, is its own",
    )
    add("--flip", action="store_true", help="see the mirror image too")
    tags = "classes in the images, for nets that make seeds: a file like tags.csv of data.Folder, or names with commas"
    add("--tags", metavar="FILE.csv|NAMES", help=f"{tags}; without it the net guesses")
    add("--supports", nargs="+", default=[], metavar="IMAGE:MASK", help="examples of what few-shot nets are to find")
    window = f"side of the sliding window, for images with a longer side ({WINDOW}, for images above 4 megapixels)"
    add("--window", type=int, metavar="N", help=f"{window}; taken up to a multiple of the sides that the net takes")
    add("--overlap", type=int, default=OVERLAP, metavar="N", help=f"pixels that windows share ({OVERLAP})")
    add("--overlay", action=argparse.BooleanOptionalAction, default=True, help="draw masks over images")
    add("--overwrite", action="store_true", help="begin anew in a folder of this verb: what it holds is removed")
    add("--quiet", action="store_true", help="say nothing but what is wrong")
    return parser


def check_kind(predictor: "Predictor", options: argparse.Namespace) -> None:
    """Refuse words that this kind of net has no use for.

    Args:
        predictor: the net.
        options: of `read_options`.

    Raises:
        ConfigError: says which.
    """
    kind, net = predictor.kind, options.checkpoint
    for word, given, of in (
        ("--tags", options.tags is not None, ("seeds",)),
        ("--supports", bool(options.supports), ("few-shot",)),
        ("--window", options.window is not None, ("segmenter",)),
        ("--scales", options.scales is not None, ("segmenter", "seeds")),
        ("--flip", options.flip, ("segmenter",)),
    ):
        if given and kind not in of:
            wanted = " or ".join(of)
            raise ConfigError(f"{word}: is for nets of kind {wanted}, and {net} is of kind {kind}; leave it out")
    if kind == "few-shot" and not options.supports:
        raise ConfigError(f"--supports: {net} needs examples of what it is to find; give IMAGE:MASK")
