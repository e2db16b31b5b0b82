"""Any folder of images, for self-supervision: no labels, no classes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frugalseg.data import settings
from frugalseg.data.base import ClassTable, Sample, first_five
from frugalseg.data.image_files import ImageFile, files_digest, find_images, printable, unique_ids
from frugalseg.data.image_verdicts import Verdict, Verify, judge
from frugalseg.data.loader import Loader
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.ops.palette import voc_palette

log = logging.getLogger(__name__)


class Images(SegmentationData):
    """Any folder of images, for recipe `Views`: what is pretrained on without labels.

    - **Counts**: whatever is there. ImageNet-1K's train has 1,281,167 images; COCO's train2017 118,287 and
      unlabeled2017 123,403; VOC 2012's JPEGImages 17,125.
    - **Format**: jpg, jpeg, png, webp and bmp at any depth, in upper or lower case; hidden files and folders are left
      out. Known layouts: `ROOT/train/<wnid>/*.JPEG` (ImageNet: nothing to set), `train_split: train2017+unlabeled2017`
      (COCO), `train_split: JPEGImages` (VOC), any folder (its root). A list `ROOT/splits/<split>.txt` of paths below
      the root, with or without suffix, wins. An id is the path below the root without suffix; `a.jpg` beside `a.png`
      keep theirs.
    - **Classes**: none; recipes that need tags or masks are refused.
    - **Broken images**: all are decoded once, before the first step, on all cores (VOC's: 770 a second and core,
      measured); the verdict is remembered under `verdicts` by names, sizes and times, so that the next start reads
      none. Broken, empty and tiny ones are left out, counted and named; more than `most_broken` of them is an error.
    - **Licence, citation**: those of the folder.
    - **Traps**: masks stored as PNG are images too: point `train_split` at the images. The root of VOC, COCO, ADE20K or
      Cityscapes is refused for that, and because it holds the images that one is tested on; `.` insists. A damaged JPEG
      that has its end is decoded by every library, and so not found.

    Args:
        root: any folder.
        recipe: what an item is; `Views`.
        train_split: folders below the root joined by `+`, `.`, or a list; `train` is the root where it has no such one.
        val_split: the same, without that exception; "" for none.
        test_split: the same; "" for none.
        predict_split: the same; None for what is trained on.
        min_side: the shorter side has at least so many pixels. The default is one cell of an encoder of stride 32; an
            image below it would be enlarged more than 7 times to fill a 224-pixel view.
        verify: `decode` every image; `header` only opens them, which misses those that are cut off; `none` trusts them,
            and a broken one ends the training.
        most_broken: largest part of the images that may be left out.
        verdicts: folder of what is remembered.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        train_split: str = "train",
        val_split: str = "",
        test_split: str = "",
        predict_split: str | None = None,
        min_side: int = 32,
        verify: Verify = "decode",
        most_broken: float = 0.01,
        verdicts: str | Path = "runs/images",
        **kwargs: Any,
    ) -> None:
        predicted = train_split if predict_split is None else predict_split
        super().__init__(
            root, recipe, train_split=train_split, val_split=val_split, test_split=test_split, predict_split=predicted,
            **kwargs,
        )  # fmt: skip
        settings.at_least("data.min_side", min_side, 1)
        settings.one_of("data.verify", verify, ("decode", "header", "none"))
        settings.probability("data.most_broken", most_broken)
        self.min_side, self.most_broken, self.verdicts = min_side, most_broken, Path(verdicts)
        self.verify: Verify = verify
        self._judged: dict[str, tuple[list[ImageFile], Verdict]] = {}
        self._digests: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def describe(self) -> ClassTable:
        """No classes."""
        return ClassTable((), voc_palette(), background=False)

    def masks_from(self) -> str:
        """There are none."""
        return "a folder of images has no labels: set data.recipe to Views, or data to a benchmark"

    def prepare_data(self) -> None:
        """Read the images by one process of each node, while the others wait; `setup` then finds the verdict.

        Nothing is refused here: every process does that by itself in `setup`, so that none waits for one that has gone.
        """
        for split in dict.fromkeys(filter(None, self.splits.values())):
            self._judged[split] = self._judge(split)

    def index(self, split: str) -> list[Sample]:
        """List the images of a split that can be used.

        Args:
            split: see the class; "" is empty.

        Raises:
            DatasetNotFoundError: the root or a folder is not there.
            DatasetError: no images, or more than `most_broken` of them cannot be used.
        """
        if not split:
            return []
        files, verdict = self._judged.pop(split) if split in self._judged else self._judge(split)
        self._refuse(split, verdict)
        good = [file for file in files if file.name not in verdict.left_out]
        self._digests[split] = files_digest(good, False)
        listed = self.root / "splits" / f"{split}.txt"
        log.info("%s: %d images from %s", split, len(good), listed if listed.is_file() else self.root)
        ids = unique_ids([file.name for file in files])  # of all: an id does not depend on what is broken
        root, left_out = self.root, verdict.left_out
        return [
            Sample(name, root / file.name, None, None)
            for name, file in zip(ids, files, strict=True)
            if file.name not in left_out
        ]

    @property
    def digest(self) -> str:
        """SHA-256 over names and sizes of the images that have been listed; asks the disk nothing."""
        listed = [(role, self._digests.get(self.splits[role])) for role in sorted(self._samples)]
        return files_digest((), False, listed)

    def teardown(self, stage: str) -> None:
        """Say once more what has been left out: hours lie between the start of a fit and its end."""
        for note in self._notes.values() if stage == "fit" else ():
            log.warning(note)
        self._notes.clear()

    @staticmethod
    def input_digest(init_args: Mapping[str, Any]) -> str:
        """Digest of names and sizes of the images: the folder is the list, on which it hangs whether a run is done.

        Args:
            init_args: resolved settings of the data.

        Raises:
            DatasetNotFoundError: the root or a folder is not there.
            DatasetError: no images.
        """
        limit = init_args.get("limit")
        found = {split: find_images(init_args["root"], split)[:limit] for split in _splits(init_args)}
        return files_digest((), False, {split: files_digest(files, False) for split, files in found.items()})

    def _judge(self, split: str) -> tuple[list[ImageFile], Verdict]:
        files = find_images(self.root, split)[: self.limit]
        return files, judge(self.root, files, self.verdicts, self.verify, self.min_side)

    def _refuse(self, split: str, verdict: Verdict) -> None:
        """Say what is left out, or refuse to go on without it.

        Raises:
            DatasetError: it is too much.
        """
        if not (count := len(verdict.left_out)):
            return
        where, first = f"split {split} of {self.root}", first_five(map(printable, verdict.left_out))
        what = f"{where}: {count:,} of {verdict.files:,} images ({count / verdict.files:.2%}) cannot be used"
        if count > self.most_broken * verdict.files:
            raise DatasetError(
                f"{what}, more than data.most_broken = {self.most_broken:.2%}: first {first}; {verdict.path} lists all"
                " with their reasons: fetch these files again, take them away, or raise data.most_broken"
            )
        note = f"{what} and are left out, first {first}; {verdict.path} lists all with their reasons"
        if self._place()[0] == 0:
            log.warning(note)
            self._notes[split] = note

    def _evaluation_loaders(self, role: str) -> list[Loader]:
        if not self.splits[role]:
            raise ConfigError(
                f"data.{role}_split is empty, nothing can be evaluated: set it, or trainer.limit_{role}_batches to 0"
            )
        return super()._evaluation_loaders(role)


def _splits(init_args: Mapping[str, Any]) -> list[str]:
    given = (init_args.get(f"{role}_split") for role in ("train", "val", "test", "predict"))
    return sorted({split for split in given if split})
