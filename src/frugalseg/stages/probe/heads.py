"""What is trained on frozen features: one linear map, or the small convolutional head of the same protocol."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearHead(nn.Module):
    """One linear map per place.

    Without normalisation it may come before or after a bilinear resize of the features: weights of the resize sum to 1.

    Args:
        width: D of the features.
        num_classes: K.
        norm: normalise features over the batch first.
    """

    pointwise = True
    """Whether it may be applied before resizing."""

    def __init__(self, width: int, num_classes: int, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False) if norm else nn.Identity()
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, K, h, w)."""
        logits: Tensor = self.classifier(self.norm(features))
        return logits


class FCNHead(nn.Module):
    """Two 3x3 convolutions, one over their result beside the input, whole channels dropped, a linear map.

    There is no normalisation inside, as in Leopart's copy of the mmseg head (its `fcn/fcn_head.py`).

    Args:
        width: D of the features.
        num_classes: K.
        norm: normalise features over the batch first.
        channels: of the hidden convolutions.
        dropout: share of the channels that are dropped in training.
    """

    pointwise = False

    def __init__(
        self, width: int, num_classes: int, norm: bool = False, channels: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False) if norm else nn.Identity()
        self.first = nn.Conv2d(width, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.joined = nn.Conv2d(width + channels, channels, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, K, h, w)."""
        x = self.norm(features)
        hidden = F.relu(self.second(F.relu(self.first(x))))
        hidden = F.relu(self.joined(torch.cat([x, hidden], dim=1)))
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits
