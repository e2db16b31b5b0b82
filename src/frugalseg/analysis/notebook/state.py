"""What checkpoints keep besides weights: class weights and image bank of SFC, class memory of CTI."""

from pathlib import Path

import torch
from torch import Tensor

from frugalseg.errors import CheckpointError


def read_tensors(stage: Path, *names: str) -> dict[str, Tensor]:
    """Buffers of the last checkpoint of a fit; nothing is unpickled.

    Args:
        stage: folder of the fit.
        names: of the tensors.

    Raises:
        CheckpointError: the checkpoint is not there, damaged, or lacks one of them.
    """
    path = stage / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise CheckpointError(
            f"missing: {path.name} of {stage.parent.parent.name}/{stage.name}; run its make target again"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except Exception as error:  # damage makes torch raise nearly anything
        raise CheckpointError(f"{path}: not readable ({type(error).__name__}); run the stage again") from error
    if lacking := [name for name in names if name not in state]:
        raise CheckpointError(f"{path}: holds no {lacking[0]}; it is the checkpoint of another paper's net")
    return {name: state[name] for name in names}
