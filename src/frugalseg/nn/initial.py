"""Initial numbers of transformers."""

import torch
from torch import Tensor, nn

STD = 0.02
"""ViT's, DeiT's and timm's."""
_FAR = 10.0


def small_normal_(tensor: Tensor) -> Tensor:
    """Fill with normal numbers of standard deviation 0.02, as timm does.

    `trunc_normal_` cuts at 2, a hundred standard deviations away, by inverting the distribution function; where the
    uniform number under it is rounded to an end (seen with torch 2.11), the weight is 2 itself. Such ones are drawn
    again; where there are none, no further random number is taken.

    Args:
        tensor: filled in place.

    Returns:
        It.
    """
    if tensor.is_meta:  # a net that is built for its shapes alone
        return tensor
    nn.init.trunc_normal_(tensor, std=STD)
    with torch.no_grad():
        far = tensor.abs() > _FAR * STD
        if far.any():
            tensor[far] = STD * torch.randn(int(far.sum()), dtype=tensor.dtype, device=tensor.device)
    return tensor
