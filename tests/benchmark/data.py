"""Reading and cropping genuine JPEGs against a plain Pillow and torchvision pipeline, on one core."""

import os
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from frugalseg.data.base import Sample
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.recipes import Tags
from frugalseg.data.sampler import draw_rng
from frugalseg.miniature.voc import write_voc_world
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
