"""ResNet-38 of "Wider or Deeper" (Wu et al., 2016, model A1), dilated: wide, pre-activation, stride 8.

The backbone of PSA and of most papers on weak labels since. Tensors are named as in the converted ImageNet weights that
go round (`conv1a.weight`, `b2.bn_branch2a.running_mean`, ...), so that those files fit (cti.md 8.2 and 9).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Features(NamedTuple):
    """Rectified features that the papers read, all at stride 8; depths are those of the full width."""

    conv4: Tensor
    """(N, 512, h, w) input of b5 after its first normalisation."""
    conv5: Tensor
    """(N, 1024, h, w) input of b6 after its first normalisation."""
    conv6: Tensor
    """(N, 4096, h, w) the end of the net."""


class _Stage(NamedTuple):
    """Equal blocks in a row; only the first changes depth or size."""

    blocks: int
    depths: tuple[int, ...]
    """Depth after each 3x3 convolution, or of the three convolutions of a bottleneck."""
    stride: int = 1
    dilation: int = 1
    first_dilation: int = 1
    """Of the first convolution of the first block, which still sees the grid of the stage before."""
    dropout: float = 0.0


_PLAN = {
    "b2": _Stage(3, (128, 128), stride=2),
    "b3": _Stage(3, (256, 256), stride=2),
    "b4": _Stage(6, (512, 512), stride=2),
    "b5": _Stage(3, (512, 1024), dilation=2),
    "b6": _Stage(1, (512, 1024, 2048), dilation=4, dropout=0.3),
    "b7": _Stage(1, (1024, 2048, 4096), dilation=4, dropout=0.5),
}
STAGES = ("conv1a", *_PLAN)
"""What `trained_from` may name."""


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and rectifier, beside a shortcut.

    Args:
        inputs: depth of the input.
        depths: depth after each convolution.
        stride: of the first convolution and of the shortcut.
        dilations: of the two convolutions.
    """

    def __init__(
        self, inputs: int, depths: tuple[int, ...], stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        middle, outputs = depths
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, middle, 3, stride, padding=first, dilation=first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, outputs, 3, padding=second, dilation=second, bias=False)
        same = inputs == outputs and stride == 1
        self.conv_branch1 = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D, h, w) -> the sum of branch and shortcut, and the rectified input that both begin with.

        A shortcut that keeps the shape is the input itself, before normalisation.
        """
        active = F.relu(self.bn_branch2a(x))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(active)
        branch = self.conv_branch2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))
        return shortcut + branch, active


class WideBottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution, the latter two with dropout of whole channels, beside a 1x1 shortcut.

    Args:
        inputs: depth of the input.
        depths: depth after each convolution.
        dilation: of the 3x3 convolution.
        dropout: probability that a channel is dropped in training.
    """

    def __init__(self, inputs: int, depths: tuple[int, ...], dilation: int, dropout: float) -> None:
        super().__init__()
        narrow, middle, outputs = depths
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(narrow)
        self.conv_branch2b1 = nn.Conv2d(narrow, middle, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(middle)
        self.conv_branch2b2 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D, h, w) -> the sum of branch and shortcut, and the rectified input that both begin with."""
        active = F.relu(self.bn_branch2a(x))
        branch = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))
        branch = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(branch))))
        return self.conv_branch1(active) + self.conv_branch2b2(branch), active


def _blocks(width: float) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of all residual blocks, at a fraction of the published depths."""
    inputs = _scaled(64, width)
    for stage, plan in _PLAN.items():
        depths = tuple(_scaled(depth, width) for depth in plan.depths)
        for number in range(plan.blocks):
            first = number == 0
            if len(depths) == 3:
                block: nn.Module = WideBottleneck(inputs, depths, plan.dilation, plan.dropout)
            else:
                dilations = (plan.first_dilation if first else plan.dilation, plan.dilation)
                block = WideBlock(inputs, depths, plan.stride if first else 1, dilations)
            yield (stage if first else f"{stage}_{number}"), block
            inputs = depths[-1]


def _scaled(depth: int, width: float) -> int:
    return max(1, round(depth * width))


class ResNet38(nn.Module):
    """ResNet-38 without its classifier; 105 million parameters.

    Args:
        trained_from: first stage of `STAGES` that learns; earlier ones run without a graph and never get a gradient.
            `b3` is what PSA does, `b2` MCTformer's segmentation network.
        frozen_norm: normalisation is fixed altogether: it uses its running statistics, and its scale and shift do not
            learn either, as in all papers of this line. (In `ResNetStages`, SFC's way, they learn.)
        width: all depths times this number; for tests and miniatures.

    Raises:
        ValueError: an unknown stage, or a width that is not positive.
    """

    def __init__(self, trained_from: str = "b3", frozen_norm: bool = True, width: float = 1.0) -> None:
        super().__init__()
        if trained_from not in STAGES:
            raise ValueError(f"trained_from must be one of {', '.join(STAGES)}, got {trained_from!r}")
        if width <= 0:
            raise ValueError(f"width must be positive, got {width}")
        self.conv1a = nn.Conv2d(3, _scaled(64, width), 3, padding=1, bias=False)
        self.block_names: list[str] = []
        for name, block in _blocks(width):
            self.add_module(name, block)
            self.block_names.append(name)
        # depths of conv4, conv5 and conv6
        self.channels: tuple[int, ...] = tuple(_scaled(depth, width) for depth in (512, 1024, 4096))
        self.output_stride = 8
        self.bn7 = nn.BatchNorm2d(self.channels[-1])
        self.frozen_norm = frozen_norm
        self.first_trained = STAGES.index(trained_from)
        for name, module in self.named_children():
            if not self._learns(name):
                module.requires_grad_(False)
        if frozen_norm:
            for norm in self._norms():
                norm.requires_grad_(False)
        # a new module is in training mode without anybody having called train()
        self.train(self.training)

    def _learns(self, name: str) -> bool:
        """Whether a child comes at or after the first stage that learns."""
        stage = name.partition("_")[0]
        return stage not in STAGES or STAGES.index(stage) >= self.first_trained

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> "ResNet38":
        """Switch modes; frozen normalisation stays in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, image: Tensor) -> Features:
        """Run the net.

        Args:
            image: (N, 3, H, W), ImageNet mean and deviation removed.

        Returns:
            The three feature maps, sides rounded up: h = ceil(H / 8). Those read before `trained_from` carry no
            gradient.
        """
        graph = torch.is_grad_enabled()
        read: dict[str, Tensor] = {}
        with torch.set_grad_enabled(graph and self._learns("conv1a")):
            x = self.conv1a(image)
        for name in self.block_names:
            with torch.set_grad_enabled(graph and self._learns(name)):
                x, active = getattr(self, name)(x)
            if name in ("b5", "b6"):  # all others' would only cost memory
                read[name] = active
        return Features(read["b5"], read["b6"], F.relu(self.bn7(x)))
