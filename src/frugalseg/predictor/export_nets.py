"""Nets as graphs that stand alone: from pixels 0..255 to answers, the normalisation inside, no choice left to data."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.errors import ConfigError
from frugalseg.nn.inputs import padded
from frugalseg.ops.cam import min_max
from frugalseg.papers.cti.passes import Pass
from frugalseg.papers.cti.seeds import map_kinds
from frugalseg.predictor.base import Predictor
from frugalseg.predictor.features import FeaturePredictor
from frugalseg.predictor.seed_nets import CTISeeds
from frugalseg.predictor.seeds import SeedPredictor
from frugalseg.predictor.segment_nets import DeepLabSegmenter, Probed
from frugalseg.predictor.segmenter import SegmentPredictor


class Graph(nn.Module):
    """A net that is exported.

    Attributes:
        outputs: names of what it gives.
        classes: C of its second input, the tags; 0 where it has none.
        multiple: sides that it takes where they are left open; 1 for all of them.
        stride: pixels of the image per cell of its first answer.

    Args:
        predictor: whose net it is.
        multiple: see above.
    """

    outputs: tuple[str, ...] = ("logits",)
    classes: int = 0
    stride: int = 1

    def __init__(self, predictor: Any, multiple: int) -> None:
        super().__init__()
        self.net: nn.Module = predictor.net
        self.multiple = multiple
        normaliser = predictor._normaliser
        self.register_buffer("mean", torch.tensor(normaliser.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normaliser.std).view(1, 3, 1, 1), persistent=False)

    def normalised(self, image: Tensor) -> Tensor:
        """What the net takes, in the very operations of `data.normalise`."""
        return image.div(255).sub(cast(Tensor, self.mean)).div(cast(Tensor, self.std))


class SegmentGraph(Graph):
    """Logits (B, K, H, W) of images (B, 3, H, W).

    Args:
        predictor: the segmenter.
    """

    def __init__(self, predictor: SegmentPredictor) -> None:
        net = predictor.net
        multiple = net.multiple
        if isinstance(net, DeepLabSegmenter):
            # what the backbone fills up by itself, any size for convolutions
            multiple = int(getattr(net.net.backbone, "multiple", 1))
        elif isinstance(net, Probed) and net.input_size is not None:
            multiple = 1
        super().__init__(predictor, multiple)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.net(self.normalised(image))
        return found


class FeatureGraph(Graph):
    """Dense features (B, D, H / s, W / s), rounded up, and tokens (B, C) of images (B, 3, H, W).

    Args:
        predictor: of features.
    """

    outputs = ("features", "token")

    def __init__(self, predictor: FeaturePredictor) -> None:
        super().__init__(predictor, predictor.multiple)
        self.stride = predictor.stride

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        height, width = ((side + self.stride - 1) // self.stride for side in image.shape[-2:])
        found = self.net(padded(self.normalised(image), self.multiple))
        return found.features[:, :, :height, :width], found.token


class SeedGraph(Graph):
    """Maps (B, C, H, W) of CTI in 0..1 from images (B, 3, H, W) and tags (B, C) of 0 and 1, at one scale and mirrored.

    Maps of absent classes are 0. The mask is the largest map's class where it exceeds the background's threshold.
    Images are not shrunk, however large. Where pixels that fill no patch are filled up or the image is resized (`fit`),
    sides are multiples of the patch, and of such images alone the answer is the predictor's.

    Args:
        predictor: of CTI.
    """

    outputs = ("maps",)

    def __init__(self, predictor: SeedPredictor) -> None:
        own = cast(CTISeeds, predictor.net)
        super().__init__(predictor, 1 if own.fit == "crop" else own.net.patch_embed.patch)
        self.classes, self.kind = own.num_classes - 1, own.kind
        self.net, self.first = own.net, own.net.first

    def forward(self, image: Tensor, tags: Tensor) -> Tensor:
        """See the class."""
        size, count = (image.shape[-2], image.shape[-1]), image.shape[0]
        image = self.normalised(image)
        rows_from, patches_from = None if self.kind == "r" else 0, 0 if self.kind == "q" else None
        found: Pass = self.net(torch.cat([image, image.flip(-1)]), None, rows_from, patches_from)
        channels = torch.arange(self.first, self.first + self.classes, device=image.device)
        maps = map_kinds(found, channels, [self.kind])[self.kind]
        full = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return min_max(full[:count] + full[count:].flip(-1)) * tags[:, :, None, None]


def graph_of(predictor: Predictor) -> Graph:
    """The graph of a predictor's net.

    Args:
        predictor: of `frugalseg.load`, on the CPU.

    Raises:
        ConfigError: the net is of a kind that is not exported.
    """
    if isinstance(predictor, SegmentPredictor):
        return SegmentGraph(predictor).eval()
    if isinstance(predictor, FeaturePredictor):
        return FeatureGraph(predictor).eval()
    if isinstance(predictor, SeedPredictor) and isinstance(predictor.net, CTISeeds):
        return SeedGraph(predictor).eval()
    raise ConfigError(
        f"{predictor.path}: {predictor.able.split(':', 1)[0]} of such a net are not exported; give a segmentation net, "
        "a pre-training or CTI, or use `frugalseg package`"
    )
