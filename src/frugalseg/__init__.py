"""frugalseg: semantic segmentation with few labels (SFC, CTI, DSMF-Net, MEVT)."""

from os import PathLike
from typing import TYPE_CHECKING, Any

from frugalseg._version import __version__

if TYPE_CHECKING:
    from frugalseg.papers.mevt.timm_entry import TimmMEVT
    from frugalseg.predictor import Predictor

__all__ = ["__version__", "create_model", "load"]


def load(checkpoint: str | PathLike[str], device: str = "cpu") -> "Predictor":
    """Open a trained net for use.

    Args:
        checkpoint: a checkpoint of `frugalseg fit`, or a folder (or its weights) that `frugalseg package` wrote.
        device: as torch names it.

    Returns:
        What answers for images. By its `kind`: `segmenter` masks, `predictor(image)`; `seeds` masks and class maps of
        tags, `predictor(image, tags)`; `few-shot` masks, `predictor(image, supports=[(image, mask)])`; `features`
        `features(image)` and `token(image)`. See `frugalseg.predictor`.

    Raises:
        CheckpointError: it is missing, damaged, or of a task that nothing here makes a predictor of.
        ConfigError: no such device.
    """
    # torch and timm take seconds to import: only those who load a net pay for them
    from frugalseg.predictor import open_predictor

    return open_predictor(checkpoint, device)


def create_model(name: str, checkpoint: str | PathLike[str] | None = None, **changes: Any) -> "TimmMEVT":
    """Build a MEVT with the methods of a timm model; afterwards `timm.create_model` knows these names too.

    Args:
        name: `mevt_s`, `mevt_xs` or `mevt_tiny`.
        checkpoint: as of `load`; None for random numbers. Without `changes` its own settings are taken.
        **changes: `num_classes` and other arguments of `frugalseg.papers.mevt.timm_entry.TimmMEVT`.

    Raises:
        ConfigError: no such name, or an argument that the net refuses.
        CheckpointError: it is missing, damaged, of another task, or of another net than this.
    """
    from frugalseg.predictor import build_model

    return build_model(name, checkpoint, changes)
