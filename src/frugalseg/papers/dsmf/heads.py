"""Head of DSMF-Net, for the fused features and for the auxiliary losses alike (dsmf.md 4.6, as PFENet)."""

from torch import Tensor, nn

from frugalseg.ops.cam import resize
from frugalseg.ops.precision import at_least_float32


class Head(nn.Module):
    """3x3 convolution, rectifier, dropout of whole channels, 1x1 convolution to the classes.

    Args:
        dim: d.
        classes: background and foreground.
        dropout: probability that a channel is dropped.
    """

    def __init__(self, dim: int = 256, classes: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(dim, classes, 1),
        )

    def forward(self, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Logits, resized with aligned corners.

        Args:
            features: (N, d, h, w).
            size: (H, W) of the image or label; None for the grid of the features.

        Returns:
            (N, classes, H, W), at least float32: bfloat16 logits would be resized in steps of bfloat16.
        """
        logits = at_least_float32(self.layers(features))
        return logits if size is None else resize(logits, size, align_corners=True)
