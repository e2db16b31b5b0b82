"""Multi-crop views of genuine JPEGs against a plain Pillow and torchvision pipeline, on one core."""

import random
import tempfile
from pathlib import Path
from statistics import median

import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T

from frugalseg.data.base import Sample
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.sampler import draw_rng
from frugalseg.data.views import Views
from tests.benchmark.data import find_images
from tests.benchmark.measure import Measured, interleave, ratio

CLASSES = 21


def _blur(image: Image.Image) -> Image.Image:
    # Pillow's blur takes a quarter of the time of torchvision's
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def _plain(size: int, area: tuple[float, float], blur: float, solarise: float) -> T.Compose:
    return T.Compose([
        T.RandomResizedCrop(size, scale=area, interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(0.5),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.Lambda(_blur)], p=blur),
        T.RandomApply([T.Lambda(ImageOps.solarize)], p=solarise),
        T.ToTensor(),
        T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip


def views_over_pil(quick: bool) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as folder:
        paths, note = find_images(Path(folder), 4 if quick else 100)
        samples = [Sample(path.stem, path, None, None) for path in paths]
        recipe, geometry = Views(), Views(colour="device")
        first = _plain(224, (0.25, 1.0), 1.0, 0.0), _plain(224, (0.25, 1.0), 0.1, 0.2)
        local = _plain(96, (0.05, 0.25), 0.5, 0.0)

        def ours() -> None:
            for number, sample in enumerate(samples):
                recipe.train_item(sample, CLASSES, draw_rng(0, number))

        def for_device() -> None:
            for number, sample in enumerate(samples):
                geometry.train_item(sample, CLASSES, draw_rng(0, number))

        def pil() -> None:
            random.seed(0)
            torch.manual_seed(0)
            for sample in samples:
                image = Image.open(sample.image).convert("RGB")
                torch.stack([make(image) for make in first])
                torch.stack([local(image) for _ in range(8)])

        times = interleave({"views": ours, "device": for_device, "pil": pil}, 1 if quick else 5)
    value, device = ratio(times, "pil", "views"), ratio(times, "pil", "device")
    speed = {name: len(samples) / median(cpu for _, cpu in times[name]) for name in times}
    return {
        "data.views_over_pil": Measured(value.value, note, value.extra),
        "data.views_for_device_over_pil": Measured(device.value, note, device.extra),
        "data.views_images_per_s": Measured(speed["views"], note),
        "data.pil_views_images_per_s": Measured(speed["pil"], note),
    }
