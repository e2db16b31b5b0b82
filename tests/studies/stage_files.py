"""What `stage_seconds` times beside nets: the verbs that go from files to files, on inputs like those of the chain."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from frugalseg.analysis.tally import Sources, count_split
from frugalseg.commands.crf import CrfLabeller, CrfSettings
from frugalseg.commands.label_work import Labeller, Target
from frugalseg.commands.walk import WalkLabeller, WalkSettings
from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.io import image_size, write_mask
from frugalseg.data.voc import NAMES, index
from frugalseg.ops.cam import resize
from frugalseg.ops.crf import Kernels
from frugalseg.ops.palette import voc_palette
from frugalseg.run import write_arrays
from tests.conftest import REAL, REPOSITORY

EXPERIMENTS, SIZE, KEYS = REPOSITORY / "experiments", (375, 500), (0, 1, 15)
Work = Callable[[], object]


def blobs() -> Tensor:
    """(3, H, W) smooth scores in 0..1."""
    return resize(torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)), SIZE)[0]


def make_inputs(folder: Path) -> Sample:
    """A genuine photo, else noise; maps, edges and labels of it as the stages before would leave them."""
    root = REAL / "VOCdevkit" / "VOC2012"
    fits = (s for s in (index(root, "val") if root.is_dir() else []) if s.mask and image_size(s.image) == SIZE)
    photo = next(fits, None)
    if photo is None:
        noise = np.random.default_rng(0).integers(256, size=(*SIZE, 3), dtype=np.uint8)
        photo = Sample("noise", folder / "noise.png", folder / "mask.png", (0, 14))
        Image.fromarray(noise).save(photo.image)
        write_mask(folder / "mask.png", np.zeros(SIZE, np.uint8), voc_palette())
    maps = dict.fromkeys(("m0", "mw", "mp"), blobs().numpy().astype(np.float16))
    edge = torch.rand(-(-SIZE[0] // 4), -(-SIZE[1] // 4)).numpy()
    for kind, arrays in (("maps", {"keys": np.array(KEYS, np.uint8), **maps}), ("edges", {"edge": edge})):
        write_arrays(folder / kind / f"{photo.id}.npz", arrays)
    labels = np.array(KEYS, np.uint8)[blobs().argmax(dim=0).numpy()]
    write_mask(folder / "labels" / f"{photo.id}.png", labels, voc_palette())
    return photo


def _labeller(verb: str, file: str, folder: Path) -> Labeller:
    section = yaml.safe_load((EXPERIMENTS / file).read_text())[verb]
    kinds, maps, classes = tuple(section["kinds"]), folder / "maps", len(NAMES)
    if verb == "crf":
        crf = CrfSettings(**{**section, "kernels": Kernels(**section["kernels"])})
        return CrfLabeller(kinds, maps, classes, crf)
    return WalkLabeller(kinds, maps, classes, WalkSettings(**section), folder / "edges", "edge")


def labelling(verb: str, file: str) -> Callable[[torch.device, Sample, Path], Work]:
    """All kinds of labels of one photo, from files to files, by the settings of an experiment."""

    def build(device: torch.device, photo: Sample, folder: Path) -> Work:
        labeller = _labeller(verb, file, folder)
        target = Target(folder / verb, labeller.kinds, ClassTable(NAMES, voc_palette()), "study")

        def work() -> None:
            batch = labeller.prepare(labeller.load([photo]), device)
            made = {kind: labeller.label(batch, kind).cpu().numpy().astype(np.uint8)[0] for kind in labeller.kinds}
            target.write(photo, made, batch.bare, {})

        return work

    return build


def evaluating(device: torch.device, photo: Sample, folder: Path) -> Work:
    """Score the maps by every rule and sweep, and as many masks as the chain makes."""
    masks = {f"kind{number}": folder / "labels" for number in range(4)}
    sources = Sources(len(NAMES), maps=folder / "maps", sweeps=("m0", "mw", "mp"), masks=masks)
    return lambda: count_split(sources, [photo], workers=1)
