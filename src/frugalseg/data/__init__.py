"""Benchmarks and recipes: from files on disk to the batches of `frugalseg.batch`."""

from frugalseg.data.ade20k import ADE20K
from frugalseg.data.base import ClassTable, Episode, Pair, Sample
from frugalseg.data.cityscapes import Cityscapes
from frugalseg.data.coco import COCO
from frugalseg.data.dlrsd import DLRSD
from frugalseg.data.episodes import Episodes
from frugalseg.data.isaid5i import ISAID5i
from frugalseg.data.pseudo import PseudoLabels
from frugalseg.data.recipes import MultiScale, Recipe, Segment, Tags
from frugalseg.data.views import Views
from frugalseg.data.voc import VOC

__all__ = [
    "ADE20K",
    "COCO",
    "DLRSD",
    "VOC",
    "Cityscapes",
    "ClassTable",
    "Episode",
    "Episodes",
    "ISAID5i",
    "MultiScale",
    "Pair",
    "PseudoLabels",
    "Recipe",
    "Sample",
    "Segment",
    "Tags",
    "Views",
]
