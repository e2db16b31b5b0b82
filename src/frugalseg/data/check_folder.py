"""Check of a user's folder: what is there, what is wrong, and what to do about it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import ClassTable, Sample, count_tags, first_five
from frugalseg.data.check import Finding, Level
from frugalseg.data.check_folder_files import ODD, Look, look_at
from frugalseg.data.folder_classes import Classes
from frugalseg.data.folder_files import Layout, find_files, find_layout, names_in
from frugalseg.data.folder_index import Index, read_words
from frugalseg.data.folder_tags import TagTable
from frugalseg.data.parallel import Progress, each
from frugalseg.errors import DatasetError
from frugalseg.ops.palette import voc_palette

FEW = 10
"""Images below which a class is too rare to be learned from tags."""
LONG_TAIL = 10
"""Images of the commonest class over those of the rarest from which on classes have a long tail."""
_LISTED = 30
"""Classes whose images are listed one by one."""


def check_folder(root: str | Path, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Check what `Folder` would make of a folder with its defaults.

    Args:
        root: the folder.
        quick: read headers only: no broken pixels, no ids of masks, no images that are the same.
        progress: called with (files done, files in all).

    Returns:
        Findings: what is there, tags, splits, images, masks.

    Raises:
        DatasetNotFoundError: root is not there.
        DatasetError: it holds no images, or two of one name.
    """
    layout = find_layout(root)
    findings: list[Finding] = []
    index = _index(layout, findings)
    findings += _there(index)
    table = index.classes.table
    every = index.every()
    if any(sample.tags is not None for sample in every):
        findings += _tags(every, table)
    sides = {split: _split(index, split, findings) for split in ("train", "val")}
    # few files take less than starting processes
    seen = each(partial(look_at, max(1, table.num_classes), quick), every, None if len(every) > 64 else 1, progress)
    findings += _images(every, seen, quick) + _same(every, seen, sides)
    return findings + (_masks(every, seen, table, quick) if any(index.files.masks) else [])


def _index(layout: Layout, findings: list[Finding]) -> Index:
    """The index; what is wrong with tags or classes becomes a finding, and the rest is looked at without them."""
    classes, tags = Classes(ClassTable(("background",), voc_palette())), None
    try:
        classes, tags = read_words(layout)
        return Index(layout, classes, tags)
    except DatasetError as error:
        find_files(layout)  # without images there is nothing to check
        findings.append(Finding("error", str(error)))
    tags = TagTable({}) if tags is not None else None
    return Index(layout, classes, tags)


def _there(index: Index) -> list[Finding]:
    """What the folder holds."""
    layout, files = index.layout, index.files
    kinds = Counter(PurePosixPath(name).suffix for name in files.names)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    findings = [Finding("ok", f"{len(files.names):,} images in {layout.images}: {counts}")]
    if upper := sum(count for kind, count in kinds.items() if kind != kind.lower()):
        what = f"{upper:,} images have a suffix in upper case, which is fine here; other tools may not see them"
        findings.append(Finding("ok", what))
    if layout.classes is None:
        what = f"classes: {len(index.classes.table.names) - 1}, the tags in their order; write classes.txt to keep it"
    else:
        what = f"classes: {len(index.classes.table.names) - 1} of {layout.classes}"
    findings.append(Finding("ok", what))
    if layout.tags is None:
        findings.append(Finding("warn", f"no {layout.root}/tags.csv: to learn from tags, add it (header image,tags)"))
    if layout.masks is None:
        findings.append(Finding("ok", f"no {layout.root}/masks: scores need masks of some images"))
        return findings
    masked = sum(mask is not None for mask in files.masks)
    findings.append(Finding("ok", f"{masked:,} of {len(files.masks):,} images have a mask in {layout.masks}"))
    if files.alone:
        what = f"{len(files.alone):,} masks belong to no image, first {first_five(files.alone)}; give them their names"
        findings.append(Finding("warn", what))
    if lossy := names_in(layout.masks, {".jpg", ".jpeg", ".webp"}):
        what = f"{len(lossy):,} files in {layout.masks} are JPEG or WebP, which change ids: save masks as PNG"
        findings.append(Finding("warn", f"{what}, first {first_five(lossy)}"))
    return findings


def _tags(samples: Sequence[Sample], table: ClassTable) -> list[Finding]:
    """How often each class is named, and which images name none."""
    findings = []
    if bare := [sample.id for sample in samples if sample.tags is None]:
        what = f"{len(bare):,} of {len(samples):,} images have no row in tags.csv, first {first_five(bare)}"
        findings.append(Finding("warn", f"{what}; add their rows, or train on split tagged, which leaves them out"))
    if empty := [sample.id for sample in samples if sample.tags == ()]:
        what = f"{len(empty):,} images show no class, first {first_five(empty)}; split tagged leaves them out"
        findings.append(Finding("ok", what))
    counts = count_tags(samples, table.foreground)
    names, order = table.names[1:], np.argsort(-counts, kind="stable")
    listed = [f"{names[i]} {counts[i]:,}" for i in order]
    if len(listed) > _LISTED:
        listed = [*listed[: _LISTED // 2], "...", *listed[-_LISTED // 2 :]]
    findings.append(Finding("ok", f"images per class: {', '.join(listed)}"))
    shown = counts[counts > 0]
    if len(shown) and shown.max() >= LONG_TAIL * shown.min():
        what = f"long tail: the commonest class has {shown.max() / shown.min():.0f} times the images of the rarest"
        findings.append(Finding("warn", f"{what}; SFC weighs for that, and images of the rare ones help most"))
    if few := [names[i] for i in order if counts[i] < FEW]:
        what = f"{len(few)} classes have less than {FEW} images, first {first_five(few)}; add images or leave them out"
        findings.append(Finding("warn", what))
    return findings


def _split(index: Index, split: str, findings: list[Finding]) -> list[Sample]:
    try:
        found = index.samples(split)
    except DatasetError as error:
        findings.append(Finding("error", str(error)))
        return []
    listed = index.layout.root / "splits" / f"{split}.txt"
    findings.append(Finding("ok", f"{split}: {len(found):,} images{f' of {listed}' if listed.is_file() else ''}"))
    return found


def _images(samples: Sequence[Sample], seen: Sequence[Look], quick: bool) -> list[Finding]:
    """Images that are broken or not what they seem."""
    broken = [(sample.id, look.broken) for sample, look in zip(samples, seen, strict=True) if look.broken]
    good, how = len(samples) - len(broken), "opened" if quick else "decoded"
    level: Level = "error" if broken else "ok"
    findings = [Finding(level, f"{good:,} of {len(samples):,} images can be {how}{_first(broken)}")]
    kinds: dict[str, list[str]] = defaultdict(list)
    for sample, look in zip(samples, seen, strict=True):
        for kind in look.odd:
            kinds[kind].append(sample.id)
    for kind, what in ODD.items():
        if names := kinds.get(kind):
            findings.append(Finding("warn", f"{len(names):,} images {what}; first {first_five(names)}"))
    return findings


def _first(wrong: Sequence[tuple[str, str]]) -> str:
    """The first five, and why the first is wrong; ways to mend it are in the reason."""
    return f"; not {first_five(name for name, _ in wrong)} ({wrong[0][0]}: {wrong[0][1]})" if wrong else ""


def _same(samples: Sequence[Sample], seen: Sequence[Look], sides: dict[str, list[Sample]]) -> list[Finding]:
    """Images with the same bytes: within the folder, and between training and validation."""
    groups: dict[bytes, list[Sample]] = defaultdict(list)
    for sample, look in zip(samples, seen, strict=True):
        if look.content:
            groups[look.content].append(sample)
    double = [group for group in groups.values() if len(group) > 1]
    if not double:
        return []
    more = sum(map(len, double)) - len(double)
    what = f"{more:,} images are copies of others, first {' = '.join(s.id for s in double[0][:3])}; keep one of each"
    findings = [Finding("warn", what)]
    halves = {split: {sample.id for sample in found} for split, found in sides.items()}
    if leaks := [group for group in double if all(any(s.id in half for s in group) for half in halves.values())]:
        what = f"{len(leaks):,} images are in train and in val, first {' = '.join(s.id for s in leaks[0][:3])}"
        findings.append(Finding("error", f"{what}: scores would be too good; take the copies away"))
    if torn := [group for group in double if len({sample.tags for sample in group}) > 1]:
        what = f"{len(torn):,} images have copies with other tags, first {' = '.join(s.id for s in torn[0][:3])}"
        findings.append(Finding("warn", f"{what}; keep the right row"))
    return findings


def _masks(samples: Sequence[Sample], seen: Sequence[Look], table: ClassTable, quick: bool) -> list[Finding]:
    """Masks that cannot be used, classes that they never show, and tags that they do not bear out."""
    pairs = [(sample, look) for sample, look in zip(samples, seen, strict=True) if sample.mask is not None]
    wrong = [(sample.id, look.wrong) for sample, look in pairs if look.wrong]
    what = (
        f"masks: {'size' if quick else 'mode, size and ids'} of {len(pairs) - len(wrong):,} of {len(pairs):,} are right"
    )
    findings = [Finding("error" if wrong else "ok", f"{what}{_first(wrong)}")]
    shown = [(sample, look.pixels) for sample, look in pairs if look.pixels is not None]
    if not shown:
        return findings
    total = sum((pixels for _, pixels in shown), np.zeros(256, np.int64))
    if absent := [name for number, name in enumerate(table.names) if not total[number]]:
        findings.append(Finding("warn", f"masks: {len(absent)} classes have no pixel, first {first_five(absent)}"))
    if total[IGNORE_INDEX]:
        findings.append(
            Finding("ok", f"masks: {total[IGNORE_INDEX] / total.sum():.2%} of the pixels are ignored (255)")
        )
    findings += _against_tags(((s.id, s.tags, pixels[: table.num_classes].nonzero()[0]) for s, pixels in shown))
    return findings


def _against_tags(shown: Iterable[tuple[str, tuple[int, ...] | None, np.ndarray]]) -> list[Finding]:
    """Tags without a pixel in the mask, and classes of the mask without a tag."""
    unseen, untold = [], []
    for name, tags, ids in shown:
        if tags is None:
            continue
        classes = {int(number) - 1 for number in ids if number > 0}
        unseen += [name] if set(tags) - classes else []
        untold += [name] if classes - set(tags) else []
    findings = []
    if unseen:
        what = f"{len(unseen):,} masks lack a class that their image is tagged with, first {first_five(unseen)}"
        findings.append(Finding("warn", f"{what}; look at both"))
    if untold:
        what = f"{len(untold):,} masks show a class that their image is not tagged with, first {first_five(untold)}"
        findings.append(Finding("warn", f"{what}; add the tags, of which absence teaches too"))
    return findings
