"""Segmentation nets as their tasks ask them, without the tasks: logits at the pixels of an image."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from frugalseg.nn.features import Backbone, FrozenBackbone
from frugalseg.nn.inputs import padded, resized
from frugalseg.ops.cam import resize
from frugalseg.ops.crf import Kernels
from frugalseg.predictor.trust import check_backbone, check_timm
from frugalseg.stages.deeplab.inference import Inference
from frugalseg.stages.deeplab.model import DeepLabNet
from frugalseg.stages.deeplab.passes import Passes
from frugalseg.stages.finetune.inference import Testing, predict
from frugalseg.stages.finetune.net import FineTuneNet
from frugalseg.stages.probe.heads import FCNHead, LinearHead
from frugalseg.stages.probe.protocols import PROTOCOLS, logits_at


class SegmentNet(nn.Module):
    """A net that gives masks from images alone.

    Its tensors have the names that they have in checkpoints.

    Attributes:
        num_classes: K.
        multiple: of the places at which tiles of a larger image must begin; images themselves are of any size.
        inference: how passes become a mask.
    """

    num_classes: int
    multiple: int
    inference: Inference

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the pixels of images.

        Args:
            image: (N, 3, H, W) float32, normalised.

        Returns:
            (N, K, H, W) float32.
        """
        raise NotImplementedError

    def cells(self, image: Tensor, name: str, scale: float) -> Tensor:
        """Logits on the net's own grid, in tiles where the image is too large for one pass.

        Args:
            image: as of `forward`.
            name: of the image, for messages.
            scale: of the image, for messages.

        Returns:
            (N, K, h, w).
        """
        found: Tensor = self(image)
        return found

    def dense(self, image: Tensor) -> Tensor | None:
        """Features of images of permitted sizes, (N, D, h, w); None for nets that are not asked for them."""
        return None


class DeepLabSegmenter(SegmentNet):
    """Of `stages.deeplab`.

    Args:
        settings: of `DeepLabNet`, and `inference`.

    Raises:
        ValueError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        net = {key: value for key, value in settings.items() if key != "inference"}
        if net["backbone"] != "resnet38d":
            check_timm(net["backbone"], net["backbone_options"])
        self.net = DeepLabNet(**net)
        self.num_classes, self.multiple = int(settings["num_classes"]), self.net.align
        self.inference = _inference(settings.get("inference") or {})

    @property
    def inference(self) -> Inference:
        """How passes become a mask; may be set."""
        return self._inference

    @inference.setter
    def inference(self, value: Inference) -> None:
        """Passes of another kind need another runner."""
        self._inference = value
        self.passes = Passes(self.net, value.window, value.overlap, value.max_pixels)

    def forward(self, image: Tensor) -> Tensor:
        """See `SegmentNet`."""
        return resize(self.net(image).float(), (image.shape[-2], image.shape[-1]))

    def cells(self, image: Tensor, name: str, scale: float) -> Tensor:
        """See `SegmentNet`."""
        return self.passes(image, name, scale)


def _inference(settings: Mapping[str, Any]) -> Inference:
    """How the run was going to predict."""
    found = {**settings, "kernels": Kernels(**settings["kernels"])} if settings.get("kernels") else dict(settings)
    return Inference(**found)


class FineTuned(SegmentNet):
    """Of `stages.finetune`, without the auxiliary head of its training.

    Args:
        settings: of `FineTuneNet`, and `testing`.

    Raises:
        ConfigError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = FineTuneNet(
            settings["num_classes"], backbone_of(settings["backbone"]), settings["head"], settings["head_options"],
            settings["norm"], settings["frozen_norm"],
        )  # fmt: skip
        self.num_classes, self.multiple = int(settings["num_classes"]), self.net.backbone.multiple
        self.testing, self.inference = Testing(**settings["testing"]), Inference()

    def forward(self, image: Tensor) -> Tensor:
        """See `SegmentNet`; by the protocol of the task's validation, a sliding window where it has one."""
        return predict(self.net, image, self.multiple, self.testing)

    def dense(self, image: Tensor) -> Tensor | None:
        """See `SegmentNet`; of heads that read a pyramid there are none."""
        backbone = self.net.backbone
        return None if backbone.gives_pyramid else backbone(image)[0]


class Probed(SegmentNet):
    """Of `stages.probe`: a head on a backbone that is frozen.

    Args:
        settings: of `LinearProbe`, resolved.

    Raises:
        ConfigError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        norm, classes = PROTOCOLS[settings["protocol"]].norm, int(settings["num_classes"])
        self.backbone = FrozenBackbone(backbone_of(settings["backbone"]))
        width = self.backbone.width
        self.head: LinearHead | FCNHead = (
            LinearHead(width, classes, norm)
            if settings["head"] == "linear"
            else FCNHead(width, classes, norm, settings["channels"])
        )
        self.num_classes, self.multiple, self.inference = classes, self.backbone.multiple, Inference()
        self.input_size, self.grid = settings["input_size"], settings["grid"]

    def forward(self, image: Tensor) -> Tensor:
        """See `SegmentNet`: as in validation, then resized to the pixels of the image."""
        own = (image.shape[-2], image.shape[-1])
        image = image if self.input_size is None else resized(image, (self.input_size, self.input_size))
        whole = padded(image, self.multiple)
        size, covered = (image.shape[-2], image.shape[-1]), (whole.shape[-2], whole.shape[-1])
        features = self.backbone.dense(whole)
        if self.grid is not None:
            size = covered = (self.grid, self.grid)
            features = features if self.head.pointwise else resize(features.float(), size)
        return resize(logits_at(self.head(features), size, covered), own)

    def dense(self, image: Tensor) -> Tensor | None:
        """See `SegmentNet`."""
        return self.backbone.dense(image)


def backbone_of(settings: Mapping[str, Any]) -> Backbone:
    """Which net, of the plain values that a checkpoint or package holds.

    Args:
        settings: `name`, `stages`, `multiple` and `options`.

    Raises:
        CheckpointError: a net that is not the suite's or timm's own, or that would read other files.
    """
    check_backbone(settings["name"], settings["options"])
    stages = cast(tuple[int, ...], tuple(settings["stages"]))
    return Backbone(settings["name"], None, "", stages, settings["multiple"], dict(settings["options"]))
