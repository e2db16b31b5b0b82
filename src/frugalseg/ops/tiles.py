"""Dense functions of images too large for one pass: overlapping tiles, blended on the function's own grid.

A net of stride s puts its cells on every s-th pixel. Tiles that begin on such a pixel have the same cells as the whole
image, so their results are laid over one another cell by cell and nothing is resized twice.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """Rows or columns of one tile in pixels, end exclusive."""

    begin: int
    end: int


def spans(length: int, size: int, overlap: int, align: int = 1) -> list[Span]:
    """Cut a side into tiles.

    Args:
        length: of the side, in pixels.
        size: of a tile; the last one may be up to `align - 1` pixels shorter.
        overlap: pixels that neighbours share, at least.
        align: every tile begins at a multiple of this.

    Returns:
        Tiles from left to right that cover the side; a single one where the side is not longer than `size`.

    Raises:
        ValueError: no pixels, or a tile that is not longer than the overlap and one step of `align`.
    """
    if length < 1 or align < 1 or overlap < 0 or size < overlap + align:
        raise ValueError(f"tiles of {size} pixels that share {overlap} and begin at multiples of {align}: no such cut")
    if length <= size:
        return [Span(0, length)]
    hop = (size - overlap) // align * align
    last = -(-(length - size) // align) * align
    begins = [*range(0, last, hop), last]
    return [Span(begin, min(begin + size, length)) for begin in begins]


def blend(span: Span, length: int, stride: int, overlap: int, margin: int = 0) -> Tensor:
    """Weights of a tile's cells along one side: 0 in the margin, rising over the overlap, constant inside.

    Only edges inside the image fade: at the image's border nothing else could take over.

    Args:
        span: the tile.
        length: of the whole side in pixels.
        stride: pixels per cell.
        overlap: pixels that neighbours share.
        margin: pixels next to an inner edge that do not count, because they lack what lies beyond it.

    Returns:
        (ceil((end - begin) / stride),) float64.
    """
    cells = -(-(span.end - span.begin) // stride)
    place = torch.arange(cells, dtype=torch.float64)
    far = torch.full((cells,), float(cells + overlap), dtype=torch.float64)
    left = far if span.begin == 0 else place + 1
    right = far if span.end == length else cells - place
    unused = -(-margin // stride)
    rise = max(1, overlap // stride - 2 * unused)
    return (torch.minimum(left, right) - unused).clamp(0, rise)


def sliding(
    function: Callable[[Tensor], Tensor],
    image: Tensor,
    size: int,
    overlap: int,
    stride: int = 1,
    align: int | None = None,
    margin: int = 0,
) -> Tensor:
    """Apply a function tile by tile and blend the results.

    A function whose cells see no further than `margin` pixels gives what the whole image gives, up to rounding.

    Args:
        function: (N, D, h, w) -> (N, K, ceil(h / stride), ceil(w / stride)).
        image: (N, D, H, W).
        size: side of a tile in pixels.
        overlap: pixels that neighbours share, at least.
        stride: pixels per cell of the result.
        align: tiles begin at multiples of this; a multiple of `stride`, which is also the default. A net whose inner
            grid is coarser than its result names that grid's stride here.
        margin: pixels along inner edges of tiles that are thrown away.

    Returns:
        (N, K, ceil(H / stride), ceil(W / stride)), float32 or better.

    Raises:
        ValueError: the function's result has another size, or overlap and margin leave a gap.
    """
    align = stride if align is None else align
    if align % stride:
        raise ValueError(f"tiles that begin at multiples of {align} do not fit cells of {stride} pixels")
    if overlap < 2 * -(-margin // stride) * stride:
        raise ValueError(f"an overlap of {overlap} pixels leaves a gap between margins of {margin}")
    height, width = image.shape[-2:]
    total, weights = None, torch.zeros(-(-height // stride), -(-width // stride), dtype=torch.float64)
    for rows in spans(height, size, overlap, align):
        for columns in spans(width, size, overlap, align):
            part = function(image[..., rows.begin : rows.end, columns.begin : columns.end])
            down = blend(rows, height, stride, overlap, margin)
            weight = down[:, None] * blend(columns, width, stride, overlap, margin)
            if part.shape[-2:] != weight.shape:
                raise ValueError(f"a tile gave {tuple(part.shape[-2:])} cells, not {tuple(weight.shape)}")
            if total is None:
                kind = torch.promote_types(part.dtype, torch.float32)
                total = torch.zeros(*part.shape[:2], *weights.shape, dtype=kind, device=part.device)
            top, left = rows.begin // stride, columns.begin // stride
            place = (slice(top, top + weight.shape[0]), slice(left, left + weight.shape[1]))
            total[..., place[0], place[1]] += part * weight.to(total)
            weights[place] += weight
    if total is None:  # spans are never empty; this is for the type checker
        raise ValueError("no tiles")
    return total / weights.to(total)
