"""Protocols of linear probing: what is fixed so that two numbers can be compared (mevt.md d.2, d.3)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from frugalseg.nn.inputs import nearest
from frugalseg.ops.cam import resize

Name = Literal["L", "L-cached", "M"]


@dataclass(frozen=True)
class Protocol:
    """One way to probe.

    Args:
        name: to be named with every score.
        input_size: side of the square that images are resized to, their aspect given up; None leaves them.
        grid: side of the square grid on which logits and masks meet; None for the masks' own pixels.
        norm: features are normalised over the batch, without scale and shift.
        adamw: AdamW with a polynomial decay by steps instead of SGD with a drop by epochs.
        lr: initial rate.
        weight_decay: of either.
        momentum: of SGD.
        drop_at: epoch from which SGD's rate is a tenth.
        power: of the polynomial decay.
    """

    name: str
    input_size: int | None
    grid: int | None
    norm: bool
    adamw: bool
    lr: float
    weight_decay: float = 1e-4
    momentum: float = 0.9
    drop_at: int = 20
    power: float = 0.9


PROTOCOLS: dict[str, Protocol] = {
    "L": Protocol("L", 448, 100, norm=False, adamw=False, lr=0.01),
    "L-cached": Protocol("L-cached", 448, 100, norm=False, adamw=False, lr=0.01),
    "M": Protocol("M", None, None, norm=True, adamw=True, lr=1e-3),
}
"""By name. `L` is Leopart's for 25 epochs of batch 120 (30 for the FCN head, batch 32); `L-cached` is `L` without
augmentation; `M` is the suite's own over 40 000 steps of batch 16 (mevt.md d.3 "Ours")."""


def target(mask: Tensor, input_size: int | None, grid: int | None) -> Tensor:
    """Masks on the grid of a protocol: first at the images' size, then on the grid, as Leopart's two steps.

    Args:
        mask: (N, H, W).
        input_size: see `Protocol`.
        grid: see `Protocol`.
    """
    at_input = mask if input_size is None else nearest(mask, (input_size, input_size), centred=True)
    return at_input if grid is None else nearest(at_input, (grid, grid))


def logits_at(logits: Tensor, size: tuple[int, int], covered: tuple[int, int]) -> Tensor:
    """Logits of padded images at the size of what they pad.

    Args:
        logits: (N, K, h, w), of images of `covered` pixels.
        size: (H, W) of the images without their padding, or of the grid where nothing was padded.
        covered: at which size to resize before the padding is cut off.

    Returns:
        (N, K, *size) float32.
    """
    return resize(logits.float(), covered)[..., : size[0], : size[1]]
