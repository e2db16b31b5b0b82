"""Annotations in COCO's form: outlines as polygons, run lengths where polygons cannot tell the region, boxes, areas."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Region = NDArray[np.bool_]
Record = Mapping[str, Any]

_FINER = 2


def polygons(region: Region) -> list[list[float]] | None:
    """Outlines of a region, from which pycocotools decodes exactly its pixels.

    Corners lie a quarter of a pixel inside the pixels' edges: there every pixel centre is on the right side, whatever
    way a reader rounds.

    Args:
        region: Shape `(H, W)`, not empty.

    Returns:
        One `[x, y, x, y, ...]` in pixels per connected part, or None where the region has a hole, which polygons of
        COCO cannot tell.
    """
    finer = region.astype(np.uint8).repeat(_FINER, axis=0).repeat(_FINER, axis=1)
    contours, hierarchy = cv2.findContours(finer, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():
        return None
    return [((contour.ravel() + 0.5) / _FINER).tolist() for contour in contours]


def run_lengths(region: Region) -> dict[str, list[int]]:
    """Uncompressed run lengths: down the columns, in turn outside and inside, outside first.

    Args:
        region: Shape `(H, W)`.

    Returns:
        `counts` and `size`, the latter `[H, W]`.
    """
    column_major = np.concatenate([[False], region.ravel(order="F")])
    changes = np.flatnonzero(column_major[1:] != column_major[:-1])
    return {"counts": np.diff([0, *changes, region.size]).tolist(), "size": list(region.shape)}


def annotation(region: Region, category: int, image_id: int, number: int, crowd: bool) -> Record:
    """The record of one object.

    Args:
        region: Its pixels, shape `(H, W)`, not empty.
        category: Category id.
        image_id: Image id.
        number: Number of the object in its image, 1 to 9; makes the annotation's id.
        crowd: Mark it as a group of objects, whose region COCO gives as run lengths.

    Returns:
        The record; its box is `[left, top, width, height]` in pixels.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    outlines = None if crowd else polygons(region)
    return {
        "segmentation": run_lengths(region) if outlines is None else outlines,
        "area": float(region.sum()),
        "iscrowd": int(crowd),
        "image_id": image_id,
        "bbox": [float(left), float(top), float(columns[-1] + 1 - left), float(rows[-1] + 1 - top)],
        "category_id": category,
        "id": 10 * image_id + number,
    }


def image_record(file_name: str, image_id: int, size: tuple[int, int]) -> Record:
    """The record of one image; `size` is (H, W)."""
    return {
        "license": 1,
        "file_name": file_name,
        "coco_url": "",
        "height": size[0],
        "width": size[1],
        "date_captured": "2014-01-01 00:00:00",
        "flickr_url": "",
        "id": image_id,
    }


def instances(images: Sequence[Record], annotations: Sequence[Record], categories: Sequence[Record]) -> bytes:
    """Content of an `instances_*.json`."""
    document = {
        "info": {
            "description": "frugalseg miniature COCO",
            "url": "",
            "version": "1.0",
            "year": 2014,
            "contributor": "frugalseg",
            "date_created": "2014/01/01",
        },
        "licenses": [{"url": "", "id": 1, "name": "synthetic, no rights reserved"}],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    return json.dumps(document).encode()
