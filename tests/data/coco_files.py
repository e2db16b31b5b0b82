"""Small COCO folders for tests."""

import json
from pathlib import Path

from frugalseg.data.coco_names import CATEGORY_IDS, NAMES

OFFICIAL = dict(zip(CATEGORY_IDS, NAMES, strict=True))
OWN = {4: "disc", 7: "ring", 90: "star"}


def box(number, image, category, x, y, w, h, **more):
    """An annotation whose polygon covers columns x..x+w-1 and rows y..y+h-1."""
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"id": number, "image_id": image, "category_id": category, "segmentation": [polygon], "area": w * h,
            "bbox": [x, y, w, h], "iscrowd": 0, **more}  # fmt: skip


def runs(number, image, category, size, counts, **more):
    """A crowd as run lengths: down the columns, zeros first."""
    code = {"size": list(size), "counts": counts}
    return {**box(number, image, category, 0, 0, 1, 1), "segmentation": code, "iscrowd": 1, **more}


def write_json(root, folder, images, annotations, categories=OFFICIAL, size=(10, 12)):
    """ROOT/annotations/instances_<folder>.json; `images` are ids."""
    path = Path(root) / "annotations" / f"instances_{folder}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"COCO_{folder}_" if folder.endswith("2014") else ""
    path.write_text(json.dumps({
        "info": {"year": 2014},
        "images": [{"id": n, "file_name": f"{prefix}{n:012d}.jpg", "height": size[0], "width": size[1]} for n in images],
        "annotations": annotations,
        "categories": [{"id": n, "name": name, "supercategory": "x"} for n, name in categories.items()],
    }))  # fmt: skip
    return path


def touch(folder, names, suffix=".jpg"):
    """Empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{suffix}").touch()
