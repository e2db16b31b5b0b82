"""Logits of whole images at one scale: in one piece, or by a sliding window whose logits are averaged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from frugalseg.errors import ConfigError
from frugalseg.nn.inputs import padded, resized
from frugalseg.ops.cam import resize
from frugalseg.ops.tiles import spans

LONGEST = 4
"""A resized image's longer side is at most so many times the wanted shorter one, as mmseg's (2048, 512)."""


@dataclass(frozen=True)
class Testing:
    """How images are tested. Scores are always those of the masks' own pixels.

    Args:
        window: side of a sliding window in pixels; null passes images whole, padded to what the net needs.
        step: pixels from window to window.
        short_side: size that the shorter side is resized to first; null leaves images as they are.

    Raises:
        ConfigError: a value out of its range.
    """

    window: int | None = None
    step: int = 341
    short_side: int | None = None
    __test__: ClassVar[bool] = False  # pytest takes it for a test otherwise

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.window is not None and not 1 <= self.step <= self.window:
            raise ConfigError(
                f"model.testing.step is {self.step} for windows of {self.window} pixels; set it to 1 to {self.window},"
                " or pixels would be left out"
            )
        if self.short_side is not None and self.short_side < 1:
            raise ConfigError(f"model.testing.short_side is {self.short_side}; set it to 1 or more, or null")

    def check(self, multiple: int) -> None:
        """Refuse windows that would each have to be padded.

        Raises:
            ConfigError: the window is no multiple of what the net needs.
        """
        if self.window is not None and self.window % multiple:
            raise ConfigError(
                f"model.testing.window is {self.window}; this backbone needs a multiple of {multiple}, such as"
                f" {-(-self.window // multiple) * multiple}"
            )


def scaled_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """(H, W) after bringing the shorter side to a length, the longer to at most `LONGEST` times that."""
    if short_side is None:
        return size
    factor = min(short_side / min(size), LONGEST * short_side / max(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def logits_of(net: Callable[[Tensor], Tensor], image: Tensor, multiple: int) -> Tensor:
    """Logits at the pixels of an image of any size, which is padded for the net.

    Args:
        net: (N, 3, H, W) -> (N, K, h, w).
        image: (N, 3, H, W).
        multiple: of the sides that the net takes.

    Returns:
        (N, K, H, W) float32.
    """
    whole = padded(image, multiple)
    return resize(net(whole).float(), (whole.shape[-2], whole.shape[-1]))[..., : image.shape[-2], : image.shape[-1]]


def averaged(function: Callable[[Tensor], Tensor], image: Tensor, window: int, step: int) -> Tensor:
    """Mean over all windows that a pixel is in.

    The last window of a row or column ends at the border, and so overlaps the one before it more than others. Every
    window weighs the same everywhere: mmseg's `slide`. `ops.tiles.sliding` fades windows towards their edges instead.

    Args:
        function: (N, 3, h, w) -> (N, K, h, w).
        image: (N, 3, H, W).
        window: side in pixels; a shorter side of the image is taken whole.
        step: pixels from window to window.

    Returns:
        (N, K, H, W).
    """
    height, width = image.shape[-2:]
    total, count = image.new_zeros(()), image.new_zeros(height, width)
    for rows in spans(height, window, window - step):
        for columns in spans(width, window, window - step):
            place = (..., slice(rows.begin, rows.end), slice(columns.begin, columns.end))
            part = function(image[place])
            if not total.ndim:
                total = part.new_zeros(*part.shape[:2], height, width)
            total[place] += part
            count[place] += 1
    return total / count


def predict(net: Callable[[Tensor], Tensor], image: Tensor, multiple: int, testing: Testing) -> Tensor:
    """Logits at the pixels of the image, by the protocol.

    Args:
        net: (N, 3, H, W) -> (N, K, h, w).
        image: (N, 3, H, W).
        multiple: of the sides that the net takes.
        testing: the protocol.

    Returns:
        (N, K, H, W) float32.
    """
    size = (image.shape[-2], image.shape[-1])
    image = resized(image, scaled_size(size, testing.short_side))

    def function(part: Tensor) -> Tensor:
        return logits_of(net, part, multiple)

    found = function(image) if testing.window is None else averaged(function, image, testing.window, testing.step)
    return resize(found, size)


def stated(testing: Testing) -> dict[str, float]:
    """The protocol as numbers, for metrics."""
    how = {"whole": 1.0} if testing.window is None else {"window": float(testing.window), "step": float(testing.step)}
    return how if testing.short_side is None else {**how, "short_side": float(testing.short_side)}
