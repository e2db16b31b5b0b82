"""Folders of images, good and bad ones."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.conftest import picture


def write_image(path: Path, height: int = 40, width: int = 48, seed: int = 0) -> Path:
    """An image of the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed)).save(path)
    return path


def write_folder(root: Path, count: int, side: int = 36) -> Path:
    """Many small images, all different."""
    root.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(root / f"{number:05d}.jpg", quality=60)
    return root


def cut_off(path: Path) -> None:
    """Keep the first half: the header is right, the pixels are not there."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def write_bad_ones(root: Path) -> dict[str, str]:
    """One of each kind of what cannot be used; name -> a word of the reason."""
    for name in ("cut.jpg", "cut.png", "cut.webp", "cut.bmp"):
        cut_off(write_image(root / name, 120, 160))
    (root / "empty.jpg").touch()
    (root / "text.png").write_text("no image")
    (root / "page.jpeg").write_text("<html>404</html>")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    write_image(root / "flat.jpg", 31, 200)
    write_image(root / "thin.png", 200, 31)
    cut = dict.fromkeys(["cut.jpg", "cut.png", "cut.webp", "cut.bmp"], "cannot be decoded")
    words = {
        "empty.jpg": "is empty",
        "text.png": "not an image",
        "page.jpeg": "not an image",
        "gone.jpg": "leads nowhere",
    }
    return {**cut, **words, "flat.jpg": "31x200", "thin.png": "200x31"}


def touch_later(path: Path) -> None:
    """Make a file look changed."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
