"""Classes of COCO and COCO-Stuff 164k, and how COCO-Stuff's mask values become class ids."""

from functools import cache
from typing import Literal

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import ClassTable
from frugalseg.data.codes import MaskCode
from frugalseg.data.lists import read_text
from frugalseg.ops.palette import voc_palette

Labels = Literal["instances", "stuff171", "stuff27", "things12", "stuff15"]

NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 object classes by category id; class id in a mask = place + 1."""
GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids between 1 and 90 that no object has."""
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in GAPS)
"""Category id of each of `NAMES`."""

COARSE = (
    "electronic", "appliance", "food-things", "furniture-things", "indoor-things", "kitchen-things", "accessory",
    "animal", "outdoor-things", "person", "sports", "vehicle",
    "ceiling", "floor", "food-stuff", "furniture-stuff", "raw-material", "textile", "wall", "window", "building",
    "ground", "plant", "sky", "solid", "structural", "water",
)  # fmt: skip
"""COCO-Stuff's 27 super-categories in the order of IIC and STEGO: 12 of things, then 15 of stuff."""
THINGS = 12
VALUES = tuple(value for value in range(182) if value + 1 not in (*GAPS, 91))
"""The 171 values in COCO-Stuff's masks (label id - 1): the gaps and 91, hair brush, were never drawn."""


@cache
def stuff_table(labels: Labels) -> ClassTable:
    """Names of one of COCO-Stuff's label sets; there is no background, 255 is unlabeled.

    Args:
        labels: stuff171, stuff27, things12 or stuff15.
    """
    if labels == "stuff171":
        lines = (read_text("cocostuff", "labels") or "").splitlines()
        names = tuple(lines[value + 1].partition(": ")[2] for value in VALUES)
    else:
        names = {"stuff27": COARSE, "things12": COARSE[:THINGS], "stuff15": COARSE[THINGS:]}[labels]
    return ClassTable(names, voc_palette(), background=False)


@cache
def stuff_code(labels: Labels) -> MaskCode:
    """How mask values become class ids.

    Args:
        labels: stuff171 numbers the 171 values without gaps; stuff27 groups them; things12 and stuff15 keep the groups
            0..11 or 12..26 (numbered from 0) and ignore what is in the others.
    """
    if labels == "stuff171":
        ids = {value: place for place, value in enumerate(VALUES)}
    else:
        coarse = [int(line) for line in (read_text("cocostuff", "to27") or "").split()]
        first, last = {"stuff27": (0, 27), "things12": (0, THINGS), "stuff15": (THINGS, 27)}[labels]
        ids = {v: coarse[v] - first if first <= coarse[v] < last else IGNORE_INDEX for v in VALUES}
    return MaskCode.of({**ids, IGNORE_INDEX: IGNORE_INDEX})
