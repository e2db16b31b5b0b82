"""ResNet-38 as it goes round after conversion from MXNet, and PSA's AffinityNet on it (cti.md 8.2 and 9)."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from frugalseg.convert.build import build_task
from frugalseg.convert.source import BACKBONE, Plan, Request, Settings, Source, Tensors
from frugalseg.errors import CheckpointError
from frugalseg.nn.resnet38d import ResNet38

PSA_TASK = "frugalseg.stages.psa.PSA"
HEAD = ("f8_3", "f8_4", "f8_5", "f9")


class ConvertedResNet38(Source):
    """Files with `conv1a.weight`, `b2.bn_branch2a.weight`, ...: ImageNet's, classifiers on them, and AffinityNet's.

    Names are those that `nn.resnet38d` is written after. Assumed: classifiers are called `fc8`, `fc9` or `linear1000`;
    SEAM's own `f8_3`, `f8_4` and `f9` stand without an `f8_5`, which AffinityNet has; old files hold no
    `num_batches_tracked`.
    """

    name = "resnet38"
    about = (
        "converted ResNet-38 -> safetensors for `weights:`; AffinityNet's -> a checkpoint of frugalseg.stages.psa.PSA"
    )
    tasks: ClassVar[Mapping[str, str | None]] = {"psa": PSA_TASK, BACKBONE: None}
    left = (
        (r"(fc8|fc9|linear1000)\.(weight|bias)", "classifier"),
        (r"ind_(from|to)", "indices of pairs, which are worked out anew"),
    )

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """The first convolution and the first wide block."""
        found = {"conv1a.weight", "b2.conv_branch2a.weight"} <= set(tensors)
        return "conv1a.weight and b2.conv_branch2a.weight" if found else None

    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """AffinityNet where its whole head is there; width and embedding by shapes."""
        if "conv1a.weight" not in tensors:
            raise CheckpointError("holds no conv1a.weight; give the whole net")
        if tensors["conv1a.weight"].ndim != 4 or not 1 <= tensors["conv1a.weight"].shape[0] <= 256:
            raise CheckpointError("conv1a.weight is no convolution of 1 to 256 filters; give another file")
        width = tensors["conv1a.weight"].shape[0] / 64
        whole = all(f"{name}.weight" in tensors for name in HEAD)
        if task == "psa" and not whole:
            raise CheckpointError("holds no head of AffinityNet (f8_3, f8_4, f8_5, f9); leave --task out")
        if not whole or task == BACKBONE:
            return Settings(None, {"backbone": "resnet38d", "width": width})
        embedding = [int(tensors[f"{name}.weight"].shape[0]) for name in HEAD[:3]]
        options = None if width == 1 else {"width": width}
        arguments = {"num_classes": request.classes or 21, "weights": None, "embedding": embedding}
        return Settings(PSA_TASK, {**arguments, "backbone_options": options})

    def plan(self, settings: Settings) -> Plan:
        """The same names on both sides, but for our prefixes."""
        if settings.task is None:
            with torch.device("meta"):  # of a backbone only names and shapes are asked
                state = ResNet38(width=float(settings.arguments.get("width", 1.0))).state_dict()
            head = (r"(f8_\d|f9)\.weight", "of a head")
            return Plan(settings, state, {name: (name,) for name in state}, left=(head,))
        state = (task := build_task(settings.task, settings.arguments)).state_dict()
        names = {n: (n.removeprefix("net.backbone.").removeprefix("net.head."),) for n in state if n.startswith("net.")}
        return Plan(settings, state, names, task=task)

    def default(self) -> Settings:
        """ImageNet's."""
        return Settings(None, {"backbone": "resnet38d"})
