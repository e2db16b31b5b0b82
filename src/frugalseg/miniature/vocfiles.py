"""What worlds in VOC's layout have in common: names, lists, annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.miniature.writing import World

Box = tuple[int, int, int, int]
_YEARS: Final = {"train": "2012", "val": "2011"}  # two years keep the ids of the splits apart


def picture_id(split: str, index: int) -> str:
    """Name of a picture, in the style of VOC's: `2012_000001`; `index` counts from 0."""
    return f"{_YEARS[split]}_{index + 1:06d}"


def voc_layout(
    facts: Mapping[str, object],
    class_names: Sequence[str],
    images: Mapping[str, int],
    folders: Mapping[str, str],
    make: Callable[[str, int], Mapping[str, bytes]],
) -> World:
    """A world in VOC's layout.

    Args:
        facts: See `World`.
        class_names: Content of `ImageSets/classes.txt`, background first.
        images: Number of pictures of `train` and `val`.
        folders: The files of a picture, as {folder: suffix}.
        make: (split, index) -> {folder: content}, one entry for each of `folders`.

    Returns:
        The world, to be given to `write_world`.
    """

    def path(folder: str, split: str, index: int) -> str:
        return f"{folder}/{picture_id(split, index)}{folders[folder]}"

    return World(
        facts,
        images,
        paths=lambda split, index: [path(folder, split, index) for folder in folders],
        make=lambda split, index: {path(folder, split, index): it for folder, it in make(split, index).items()},
        extras=lambda: _lists(images, class_names),
    )


def _lists(images: Mapping[str, int], class_names: Sequence[str]) -> dict[str, bytes]:
    ids = {split: [picture_id(split, index) for index in range(count)] for split, count in images.items()}
    lists = {**ids, "trainaug": ids["train"], "trainval": sorted(ids["train"] + ids["val"])}
    texts = {f"ImageSets/Segmentation/{name}.txt": lines for name, lines in lists.items()}
    texts["ImageSets/classes.txt"] = list(class_names)
    return {path: "".join(f"{line}\n" for line in lines).encode() for path, lines in texts.items()}


def bounding_box(region: NDArray[np.bool_]) -> Box:
    """VOC's xmin, ymin, xmax, ymax of a region that is not empty: counted from 1, both ends inside."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]) + 1, int(rows[0]) + 1, int(columns[-1]) + 1, int(rows[-1]) + 1


def annotation_xml(name: str, size: int, objects: Sequence[tuple[str, Box]], *, segmented: bool) -> bytes:
    """An annotation in VOC's form; class names need no escaping because generators use plain words."""
    lines = [
        "<annotation>",
        "\t<folder>VOC2012</folder>",
        f"\t<filename>{name}.jpg</filename>",
        "\t<source><database>frugalseg miniature</database></source>",
        f"\t<size><width>{size}</width><height>{size}</height><depth>3</depth></size>",
        f"\t<segmented>{int(segmented)}</segmented>",
    ]
    for label, box in objects:
        corners = "".join(f"<{tag}>{at}</{tag}>" for tag, at in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        lines += [
            "\t<object>",
            f"\t\t<name>{label}</name>",
            "\t\t<pose>Unspecified</pose>",
            "\t\t<truncated>0</truncated>",
            "\t\t<difficult>0</difficult>",
            f"\t\t<bndbox>{corners}</bndbox>",
            "\t</object>",
        ]
    return ("\n".join([*lines, "</annotation>"]) + "\n").encode()
