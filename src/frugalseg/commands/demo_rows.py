"""The picture of `make demo`: a row per paper. Images are the first of their split that fit, whatever came out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frugalseg.analysis.demo_picture import first_row, first_that, masked_row, poster, row, rule_labels, shows_several
from frugalseg.analysis.dense_pictures import component_colours, fit_components, on_pixels
from frugalseg.analysis.masks import read_labels
from frugalseg.analysis.pictures import Picture, captioned, enlarged
from frugalseg.commands.pictures import spread
from frugalseg.data import ade20k, voc
from frugalseg.data.base import Sample
from frugalseg.data.io import image_size, read_image
from frugalseg.errors import RunFolderError
from frugalseg.run import read_json

SHOWN = 6
"""Images whose features are painted together, so that equal colours mean equal features."""


def picture_of(runs: Path, seed: int, fold: int) -> Picture:
    """A row per paper.

    Args:
        runs: folder of all runs.
        seed: of the runs.
        fold: of the few-shot runs.

    Raises:
        RunFolderError: a stage has not finished.
        MapsError: maps, masks or panels are missing or damaged.
    """
    return poster([_sfc_row(runs, seed), _cti_row(runs, seed), _dsmf_row(runs, seed, fold), _mevt_row(runs, seed)])


def _world(stage: Path) -> Path:
    """The data folder that a stage's command names."""
    words = read_json(stage / "provenance.json").get("command") or []
    flag = "--data.init_args.root"
    if flag not in words[:-1]:
        raise RunFolderError(f"{stage}/provenance.json: tells no {flag}; run the stage again")
    return Path(words[words.index(flag) + 1])


def _seen_by(samples: Sequence[Sample], folders: Sequence[Path], suffix: str) -> list[Sample]:
    """Images of which all folders have a file.

    Raises:
        RunFolderError: there are none.
    """
    found = [s for s in samples if all((folder / f"{s.id}{suffix}").is_file() for folder in folders)]
    if not found:
        raise RunFolderError(f"{folders[0]}: no image of which {', '.join(map(str, folders))} all have a file")
    return found


def _sfc_row(runs: Path, seed: int) -> Picture:
    """Maps of the plain classifier and of SFC as labels."""
    stages = {
        "maps of a classifier": runs / "mini-sfc-longtail-baseline" / f"seed{seed}" / "cam",
        "maps with SFC": runs / "mini-sfc-longtail-sfc" / f"seed{seed}" / "cam",
    }
    root = _world(stages["maps with SFC"])
    samples = _seen_by(voc.index(root, "train"), [stage / "maps" for stage in stages.values()], ".npz")
    sample = first_that(samples, shows_several)
    painted = {text: rule_labels(stage / "maps", sample, "m0") for text, stage in stages.items()}
    return masked_row("SFC: labels from image tags with a long tail", sample, voc.class_table(root), painted)


def _cti_row(runs: Path, seed: int) -> Picture:
    """From seed labels to the segmenter's masks, on images of val."""
    top = runs / "mini-cti-full" / f"seed{seed}"
    root, classes = _world(top / "predict-val"), voc.class_table(_world(top / "predict-val"))
    folders = {"refined seeds": top / "labels-val" / "refined", "mask of the segmenter": top / "predict-val" / "masks"}
    sample = first_that(_seen_by(voc.index(root, "val"), list(folders.values()), ".png"), shows_several)
    painted = {
        text: read_labels(folder / f"{sample.id}.png", classes.num_classes, image_size(sample.image), sample.image)
        for text, folder in folders.items()
    }
    return masked_row("CTI: from image tags to masks", sample, classes, painted)


def _dsmf_row(runs: Path, seed: int, fold: int) -> Picture:
    """The first panel of the 1-shot test, by name."""
    folder = runs / "mini-dsmf-full" / f"fold{fold}" / f"seed{seed}" / "1shot-test" / "pictures"
    panels = sorted(folder.glob("*.png"))
    if not panels:
        raise RunFolderError(f"{folder}: holds no panel; run the test stage again")
    return captioned(first_row(panels[0]), "DSMF-Net: a new class from one labelled image")


def _mevt_row(runs: Path, seed: int) -> Picture:
    """Two images and three principal components of their dense features as colours."""
    from frugalseg.predictor import open_features  # timm: seconds that `--help` does without

    stage = runs / "mini-mevt-full" / f"seed{seed}" / "pretrain"
    samples = spread(ade20k.index(_world(stage), "val"), SHOWN)
    images = [read_image(sample.image) for sample in samples]
    net = open_features(stage / "checkpoints" / "last.ckpt")
    maps = net.features(images)
    components = fit_components(maps)
    cells = []
    for image, found in list(zip(images, maps, strict=True))[:2]:
        painted = on_pixels(component_colours(found, components), net.stride, (image.shape[0], image.shape[1]))
        cells += [captioned(enlarged(image), "image"), captioned(enlarged(np.asarray(painted, np.uint8)), "features")]
    return row("MEVT: dense features without any label", cells)
