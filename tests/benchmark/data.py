"""Reading and cropping genuine JPEGs against a plain Pillow and torchvision pipeline, on one core."""

import os
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tv

from frugalseg.data.base import Pair, Sample
from frugalseg.data.episode_table import EpisodeTable
from frugalseg.data.io import write_mask
from frugalseg.data.isaid5i import pairs
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.recipes import Segment, Tags
from frugalseg.data.sampler import draw_rng
from frugalseg.miniature.voc import write_voc_world
from frugalseg.ops.palette import voc_palette
from tests.benchmark.measure import REPOSITORY, Measured, interleave, ratio

REAL = Path(os.environ.get("FRUGALSEG_REAL_DATA", REPOSITORY.parent / "shared" / "real"))
CROP = 512
CLASSES = 21


def find_images(folder: Path, count: int) -> tuple[list[Path], str]:
    """Genuine VOC images, else upscaled miniature ones written to `folder`; and a remark on which."""
    genuine = sorted((REAL / "VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[:count]
    if genuine:
        return genuine, f"{len(genuine)} genuine VOC images"
    write_voc_world(folder / "world", images_train=count, images_val=1)
    paths = []
    for source in sorted((folder / "world").glob("**/JPEGImages/*.jpg"))[:count]:
        paths.append(folder / source.name)
        Image.open(source).resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=95)
    return paths, f"NO genuine images: {len(paths)} miniature ones upscaled to 500x375"


def tags_over_pil(quick: bool) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 4 if quick else 200)
        samples = [Sample(path.stem, path, None, (0, 3)) for path in paths]
        recipe = Tags(crop=CROP)
        plain = transforms.Compose([
            transforms.RandomCrop(CROP, pad_if_needed=True, fill=tuple(round(255 * m) for m in IMAGENET_MEAN)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ])  # fmt: skip

        def ours() -> None:
            for number, sample in enumerate(samples):
                recipe.train_item(sample, CLASSES, draw_rng(0, number))

        def pil() -> None:
            for sample in samples:
                plain(Image.open(sample.image).convert("RGB"))
                torch.from_numpy(np.isin(np.arange(CLASSES - 1), sample.tags).astype(np.float32))

        times = interleave({"tags": ours, "pil": pil}, 1 if quick else 5)
    value = ratio(times, "pil", "tags")
    speed = {name: len(samples) / median(cpu for _, cpu in times[name]) for name in ("tags", "pil")}
    return {
        "data.tags_over_pil": Measured(value.value, note, value.extra),
        "data.tags_images_per_s": Measured(speed["tags"], note),
        "data.pil_images_per_s": Measured(speed["pil"], note),
    }


def segment_over_pil(quick: bool) -> dict[str, Measured]:
    """Random scale, flip, crop and normalisation of image and mask."""
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 4 if quick else 200)
        samples = [Sample(path.stem, path, mask_of(path, Path(folder)), None) for path in paths]
        recipe = Segment(crop=CROP, scale=(0.5, 1.5), flip=0.5)

        def ours() -> None:
            for number, sample in enumerate(samples):
                recipe.train_item(sample, CLASSES, draw_rng(0, number))

        def pil() -> None:
            draw = np.random.default_rng(0)
            torch.manual_seed(0)
            for sample in samples:
                plain_segment(sample, draw)

        times = interleave({"segment": ours, "pil": pil}, 1 if quick else 5)
    value = ratio(times, "pil", "segment")
    speed = {name: len(samples) / median(cpu for _, cpu in times[name]) for name in ("segment", "pil")}
    return {
        "data.segment_over_pil": Measured(value.value, note, value.extra),
        "data.segment_images_per_s": Measured(speed["segment"], note),
        "data.segment_pil_images_per_s": Measured(speed["pil"], note),
    }


def mask_of(image: Path, folder: Path) -> Path:
    """The genuine mask of an image, else one of its size made for the purpose."""
    genuine = image.parent.parent / "SegmentationClassAug" / f"{image.stem}.png"
    if genuine.is_file():
        return genuine
    with Image.open(image) as opened:
        ids = np.zeros((opened.height, opened.width), np.uint8)
    ids[20:-20, 30:-30] = 7
    write_mask(folder / "masks" / f"{image.stem}.png", ids, voc_palette())
    return folder / "masks" / f"{image.stem}.png"


def plain_segment(sample: Sample, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What one writes with Pillow and torchvision."""
    image, mask = Image.open(sample.image).convert("RGB"), Image.open(str(sample.mask))
    factor = rng.uniform(0.5, 1.5)
    size = [round(image.height * factor), round(image.width * factor)]
    image = tv.resize(image, size, transforms.InterpolationMode.BICUBIC)
    mask = tv.resize(mask, size, transforms.InterpolationMode.NEAREST)
    if rng.random() < 0.5:
        image, mask = tv.hflip(image), tv.hflip(mask)
    padding = [0, 0, max(0, CROP - image.width), max(0, CROP - image.height)]
    image = tv.pad(image, padding, fill=tuple(round(255 * m) for m in IMAGENET_MEAN))
    mask = tv.pad(mask, padding, fill=255)
    window = transforms.RandomCrop.get_params(image, (CROP, CROP))
    image, mask = tv.crop(image, *window), tv.crop(mask, *window)
    pixels = tv.normalize(tv.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
    return pixels, torch.from_numpy(np.asarray(mask).astype(np.int64))


def episodes(quick: bool) -> dict[str, Measured]:
    """Drawing training and test episodes of iSAID-5i (P1, fold 0, 5 shots), before any file is read."""
    shots, count = 5, 200 if quick else 5000
    train, val = (pairs("none", split, 0, "P1", novel) for split, novel in (("train", False), ("val", True)))
    tables = [EpisodeTable(listed(found), found, sorted({p.class_id for p in found}), "") for found in (train, val)]

    def training() -> None:
        for number in range(count):
            tables[0].training(draw_rng(0, number), shots)

    def test() -> None:
        for number in range(count):
            tables[1].test(number, (0, 0), shots)

    times = interleave({"training": training, "test": test}, 1 if quick else 5)
    speed = {name: count / median(wall for wall, _ in rounds) for name, rounds in times.items()}
    return {
        "data.episodes": Measured(speed["training"]),
        "data.test_episodes": Measured(speed["test"]),
    }


def listed(found: list[Pair]) -> list[Sample]:
    """The tiles that pairs name, without files."""
    return [Sample(name, Path(name), None, None) for name in dict.fromkeys(pair.id for pair in found)]
