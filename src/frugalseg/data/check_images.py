"""Check of a folder of images: which of them pretraining would leave out, and why."""

from collections import Counter
from pathlib import Path, PurePosixPath

from frugalseg.data.check import Finding, Level
from frugalseg.data.image_files import find_images, printable
from frugalseg.data.image_verdicts import judge
from frugalseg.data.images import Images
from frugalseg.data.parallel import Progress
from frugalseg.data.views import Views

_NAMED = 100
"""Images that are named one by one; the verdict's file has all."""


def check_images(root: str | Path, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Check what `Images` would train on with its defaults; remembers the verdict where a fit looks for it.

    Args:
        root: any folder; its folder `train`, where it has one.
        quick: only open the images.
        progress: called with (files done, files in all).

    Returns:
        Findings: the numbers of files, one line per image that cannot be used, then how many can.

    Raises:
        DatasetNotFoundError: root is not there.
        DatasetError: it holds no images.
    """
    data = Images(root, Views(), verify="header" if quick else "decode")
    files = find_images(data.root, "train")
    verdict = judge(data.root, files, data.verdicts, data.verify, data.min_side, progress)
    kinds = Counter(PurePosixPath(file.name).suffix for file in files)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    findings = [Finding("ok", f"{len(files):,} images: {counts}")]
    bad, named = len(verdict.left_out), list(verdict.left_out.items())[:_NAMED]
    level: Level = "error" if bad > data.most_broken * len(files) else "warn"
    findings += [Finding(level, f"{printable(name)}: {reason}") for name, reason in named]
    looked = f"{'opened' if quick else 'decoded'} and have {data.min_side} pixels a side"
    what = f"{len(files) - bad:,} of {len(files):,} images can be {looked}"
    if not bad:
        return [*findings, Finding("ok", what)]
    what += f"; {bad:,} ({bad / len(files):.2%}) are left out, all with their reasons in {verdict.path}"
    if level == "error":
        what += f": more than the {data.most_broken:.0%} that data.most_broken allows"
    return [*findings, Finding(level, what)]
