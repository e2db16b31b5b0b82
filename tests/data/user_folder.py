"""A user's folder for tests: small photos in folders, with the labels that a test asks for."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.image_folder import write_image

CLASSES = ("background", "cat", "dog", "sofa", "tree")
PALETTE = {"background": (0, 0, 0), "cat": (255, 0, 0), "dog": (0, 255, 0), "sofa": (0, 0, 255), "tree": (9, 9, 9)}


def shown(number: int) -> tuple[int, ...]:
    """Class ids of the number-th photo, one or two."""
    first = number % 4 + 1
    return (first,) if number % 3 else tuple(sorted({first, (number // 3) % 4 + 1}))


def ids_of(number: int, height: int = 40, width: int = 48) -> np.ndarray:
    """The number-th mask: a block of each class."""
    ids = np.zeros((height, width), np.uint8)
    for place, class_id in enumerate(shown(number)):
        ids[4 : height - 4, 4 + 20 * place : 18 + 20 * place] = class_id
    return ids


def names_of(count: int) -> list[str]:
    """Paths of photos: half of them in a folder, one with a suffix in upper case."""
    names = [f"{'trip/' if number % 2 else ''}p{number:03d}.jpg" for number in range(count)]
    return [names[0].replace("jpg", "JPG"), *names[1:]] if count else []


def write_photos(root: Path, count: int = 16, folder: str = "images") -> list[str]:
    """Photos without labels."""
    names = names_of(count)
    for number, name in enumerate(names):
        write_image(root / folder / name, seed=number)
    return names


def write_tags(root: Path, rows: dict[str, str] | None = None, count: int = 16, header: str = "image,tags") -> Path:
    """tags.csv; without rows that of the photos."""
    names = names_of(count)
    rows = rows or {name: ";".join(CLASSES[c] for c in shown(number)) for number, name in enumerate(names)}
    with (root / "tags.csv").open("w", newline="") as file:
        file.write(f"{header}\n")
        csv.writer(file).writerows(rows.items())
    return root / "tags.csv"


def write_masks(root: Path, count: int = 16, folder: str = "masks", colours: bool = False) -> None:
    """A mask for each of the first photos, of ids or of colours."""
    table = np.array(list(PALETTE.values()), np.uint8)
    for number, name in enumerate(names_of(count)):
        ids = ids_of(number)
        path = (root / folder / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table[ids] if colours else ids).save(path)


def write_classes(root: Path, colours: bool = False) -> None:
    """classes.txt, or palette.csv."""
    if colours:
        lines = [f"{name},{','.join(map(str, colour))}" for name, colour in PALETTE.items()]
        (root / "palette.csv").write_text("\n".join(["name,r,g,b", *lines]) + "\n")
    else:
        (root / "classes.txt").write_text("\n".join(CLASSES[1:]) + "\n")


def write_all(root: Path, count: int = 16) -> Path:
    """Photos, tags, masks and classes."""
    write_photos(root, count)
    write_tags(root, count=count)
    write_masks(root, count)
    write_classes(root)
    return root
