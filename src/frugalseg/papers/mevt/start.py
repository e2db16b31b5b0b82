"""Where a pretraining begins that does not begin with random numbers."""

from pathlib import Path

from torch import nn

from frugalseg.errors import WeightsError
from frugalseg.nn.features import Backbone, load_into
from frugalseg.nn.weights import names_file, read_file
from frugalseg.papers.mevt.backbones import TimmBackbone

TEACHER = "teacher.module.backbone."
"""What stands before the names of the teacher's net in a checkpoint of `Pretrain`."""


def load_start(backbone: nn.Module, weights: str) -> None:
    """Fill a backbone before its first step.

    Args:
        backbone: of `create_backbone`.
        weights: a checkpoint of `Pretrain`, whose teacher is taken; a file with the backbone's own names; for a net of
            timm also a timm name.

    Raises:
        WeightsError: the file is missing, unreadable, or of another net.
    """
    ours = names_file(weights) and any(n.startswith(TEACHER) for n in read_file(Path(weights).expanduser()))
    if isinstance(backbone, TimmBackbone):
        load_into(backbone.net, Backbone(weights=weights, prefix=f"{TEACHER}net." if ours else ""))
    elif names_file(weights):
        # what a net without a decoder, say, does not take over is left behind on purpose
        load_into(backbone, Backbone("own:net", weights, TEACHER if ours else "", partial=True))
    else:
        raise WeightsError(f"{weights}: MEVT has no published weights; give a file, or null for random numbers")
