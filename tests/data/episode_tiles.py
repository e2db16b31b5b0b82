"""A small iSAID-5i: 24 validation tiles of noise, with lists of pairs for all folds."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.conftest import picture

SIDE = 24
COUNT = 24
NAMES = [f"P00{number:02}_0_256_0_256" for number in range(COUNT)]


def write_tiles(root: Path) -> Path:
    """Write tiles that each show two classes of fold 0 (1 to 5) and one of fold 1; fold 2 has none."""
    for folder in ("images", "semantic_png", "val_list"):
        (root / "val" / folder).mkdir(parents=True)
    lines: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for number, name in enumerate(NAMES):
        Image.fromarray(picture(SIDE, SIDE, number)).save(root / f"val/images/{name}.png")
        first, second, other = 1 + number % 5, 1 + (number + 1 + number // 5 % 3) % 5, 6 + number % 5
        ids = np.zeros((SIDE, SIDE), np.uint8)
        ids[:2], ids[4:11, 3:], ids[12:20, :9], ids[12:20, 12:] = 255, first, second, other
        Image.fromarray(ids).save(root / f"val/semantic_png/{name}_instance_color_RGB.png")
        for class_id in (first, second, other):
            lines[(class_id - 1) // 5].append(f"{name}_instance_color_RGB.png_{class_id:02}")
    for fold, found in lines.items():
        (root / f"val/val_list/split{fold}_val.txt").write_text("\n".join(found))
    return root
