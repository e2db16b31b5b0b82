"""Benchmarks and recipes: from files on disk to the batches of `frugalseg.batch`.

Names are imported when they are first used: Lightning, which data modules need, takes seconds and 800 MB, and listing
or downloading a data set does without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frugalseg.data.ade20k import ADE20K
    from frugalseg.data.base import ClassTable, Episode, Pair, Sample
    from frugalseg.data.cityscapes import Cityscapes
    from frugalseg.data.coco import COCO
    from frugalseg.data.dlrsd import DLRSD
    from frugalseg.data.episodes import Episodes
    from frugalseg.data.folder import Folder
    from frugalseg.data.images import Images
    from frugalseg.data.isaid5i import ISAID5i
    from frugalseg.data.pseudo import PseudoLabels
    from frugalseg.data.recipes import MultiScale, Recipe, Segment, Tags
    from frugalseg.data.resized_segment import ResizedSegment
    from frugalseg.data.views import Views
    from frugalseg.data.voc import VOC

_HOME = {
    "ADE20K": "ade20k",
    "COCO": "coco",
    "Cityscapes": "cityscapes",
    "ClassTable": "base",
    "DLRSD": "dlrsd",
    "Episode": "base",
    "Episodes": "episodes",
    "Folder": "folder",
    "ISAID5i": "isaid5i",
    "Images": "images",
    "MultiScale": "recipes",
    "Pair": "base",
    "PseudoLabels": "pseudo",
    "Recipe": "recipes",
    "ResizedSegment": "resized_segment",
    "Sample": "base",
    "Segment": "recipes",
    "Tags": "recipes",
    "VOC": "voc",
    "Views": "views",
}

__all__ = [
    "ADE20K",
    "COCO",
    "DLRSD",
    "VOC",
    "Cityscapes",
    "ClassTable",
    "Episode",
    "Episodes",
    "Folder",
    "ISAID5i",
    "Images",
    "MultiScale",
    "Pair",
    "PseudoLabels",
    "Recipe",
    "ResizedSegment",
    "Sample",
    "Segment",
    "Tags",
    "Views",
]


def __getattr__(name: str) -> Any:
    """Import the module of a name and keep the name here.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
