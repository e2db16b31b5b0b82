"""`Tags` of two views, `Episodes` and `MultiScale` on genuine JPEGs against Pillow and torchvision, on one core."""

import random
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision import transforms
from torchvision.transforms import functional as tv

from frugalseg.data.base import Episode, Sample
from frugalseg.data.episodes import Episodes
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.recipes import MultiScale, Tags
from frugalseg.data.sampler import draw_rng
from tests.benchmark.data import CLASSES, find_images, mask_of
from tests.benchmark.measure import Measured, interleave, ratio

SIDE = 256
SCALES = (1.0, 0.5, 1.5, 2.0)
FILL = [round(255 * m) for m in IMAGENET_MEAN]


def normalised(image: Image.Image) -> torch.Tensor:
    return tv.normalize(tv.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)


def episodes_over_pil(quick: bool) -> dict[str, Measured]:
    """1-shot training episodes: rescaling, rotation, flips and a crop of query and support."""
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 4 if quick else 120)
        samples = [Sample(path.stem, path, mask_of(path, Path(folder)), None) for path in paths]
        episodes = [
            Episode(q.id, q.image, q.mask, None, class_id=15, supports=(s,), number=0) for q, s in pairwise(samples)
        ]
        recipe = Episodes(size=SIDE)

        def ours() -> None:
            for number, episode in enumerate(episodes):
                recipe.train_item(episode, CLASSES, draw_rng(0, number))

        def pil() -> None:
            rng = np.random.default_rng(0)
            torch.manual_seed(0)
            for episode in episodes:
                for sample in (episode, *episode.supports):
                    plain_shot(sample, rng)

        times = interleave({"episodes": ours, "pil": pil}, 1 if quick else 5)
    value = ratio(times, "pil", "episodes")
    speed = 2 * len(episodes) / median(cpu for _, cpu in times["episodes"])
    return {
        "data.episodes_over_pil": Measured(value.value, note, value.extra),
        "data.episodes_images_per_s": Measured(speed, note),
    }


def plain_shot(sample: Sample, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = Image.open(sample.image).convert("RGB"), Image.open(str(sample.mask))
    factor, angle = rng.uniform(0.9, 1.1), rng.uniform(-10, 10)
    size = [round(image.height * factor), round(image.width * factor)]
    image = tv.resize(image, size, transforms.InterpolationMode.BICUBIC)
    mask = tv.resize(mask, size, transforms.InterpolationMode.NEAREST)
    image = tv.rotate(image, angle, transforms.InterpolationMode.BILINEAR, fill=FILL)
    mask = tv.rotate(mask, angle, transforms.InterpolationMode.NEAREST, fill=[255])
    for flip in (tv.hflip, tv.vflip):
        if rng.random() < 0.5:
            image, mask = flip(image), flip(mask)
    padding = [0, 0, max(0, SIDE - image.width), max(0, SIDE - image.height)]
    image, mask = tv.pad(image, padding, fill=tuple(FILL)), tv.pad(mask, padding, fill=255)
    window = transforms.RandomCrop.get_params(image, (SIDE, SIDE))
    ids = np.asarray(tv.crop(mask, *window))
    binary = np.where(ids == 255, 255, ids == 15).astype(np.int64)
    return normalised(tv.crop(image, *window)), torch.from_numpy(binary)


def multiscale_over_pil(quick: bool) -> dict[str, Measured]:
    """Four scales of an image, each with its mirror image."""
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 2 if quick else 40)
        samples = [Sample(path.stem, path, None, None) for path in paths]
        recipe = MultiScale(SCALES)

        def ours() -> None:
            for sample in samples:
                recipe.evaluation_item(sample, CLASSES)

        def pil() -> None:
            for sample in samples:
                image = Image.open(sample.image).convert("RGB")
                for scale in SCALES:
                    size = round(scale * image.width), round(scale * image.height)
                    pixels = normalised(image.resize(size, Image.Resampling.BICUBIC))
                    torch.stack([pixels, pixels.flip(-1)])

        times = interleave({"multiscale": ours, "pil": pil}, 1 if quick else 5)
    value = ratio(times, "pil", "multiscale")
    return {
        "data.multiscale_over_pil": Measured(value.value, note, value.extra),
        "data.multiscale_images_per_s": Measured(len(samples) / median(cpu for _, cpu in times["multiscale"]), note),
    }


def two_views_over_pil(quick: bool) -> dict[str, Measured]:
    """CTI's training items: two random resized crops of 224, the second one with RandAugment."""
    side, area, policy = 224, (0.3, 1.2), "rand-m9-mstd0.5-inc1"
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 4 if quick else 200)
        samples = [Sample(path.stem, path, None, (0, 3)) for path in paths]
        recipe = Tags(crop=side, flip=0.5, views=2, area=area, randaugment=policy)
        parameters = {"translate_const": 100, "img_mean": tuple(FILL), "interpolation": Image.Resampling.BICUBIC}
        strong = rand_augment_transform(policy, parameters)
        for operation in strong.ops:
            operation.magnitude_max = 9.99  # Pillow 13 refuses what 10 asks of it; our side mends that
        crop = transforms.RandomResizedCrop(side, scale=area, interpolation=transforms.InterpolationMode.BICUBIC)
        first = [crop, transforms.RandomHorizontalFlip(0.5)]
        last = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        views = transforms.Compose([*first, *last]), transforms.Compose([*first, strong, *last])

        def ours() -> None:
            for number, sample in enumerate(samples):
                recipe.train_item(sample, CLASSES, draw_rng(0, number))

        def pil() -> None:
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002 - timm draws from it
            torch.manual_seed(0)
            for sample in samples:
                image = Image.open(sample.image).convert("RGB")
                for view in views:
                    view(image)
                torch.from_numpy(np.isin(np.arange(CLASSES - 1), sample.tags).astype(np.float32))

        times = interleave({"two_views": ours, "pil": pil}, 1 if quick else 5)
    value = ratio(times, "pil", "two_views")
    return {"data.two_views_over_pil": Measured(value.value, note, value.extra)}
