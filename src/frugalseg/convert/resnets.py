"""Sources that are ResNets: torchvision's backbones, the authors' SFC, and IRN."""

import re
from collections.abc import Mapping
from typing import ClassVar

from frugalseg.convert.build import build_task
from frugalseg.convert.source import BACKBONE, Plan, Request, Settings, Source, Tensors
from frugalseg.convert.stages import Stages, stages_of
from frugalseg.errors import CheckpointError
from frugalseg.nn.backbone import ResNetStages

SFC_TASK = "frugalseg.papers.sfc.SFC"
IRN_TASK = "frugalseg.stages.irn.IRN"
BLOCKS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""Whether blocks are bottlenecks, and how many each layer has -> name."""
CLASSIFIER = (r"(resnet50\.)?fc\.(weight|bias)", "ImageNet classifier")


def resnet_of(names: Mapping[str, object]) -> str:
    """Which ResNet torchvision's names are of.

    Raises:
        CheckpointError: of none that is known.
    """
    blocks = [len({name.split(".")[1] for name in names if name.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)]
    bottleneck = "layer1.0.conv3.weight" in names
    if (name := BLOCKS.get((bottleneck, (blocks[0], blocks[1], blocks[2], blocks[3])))) is None:
        raise CheckpointError(
            f"a ResNet with {blocks} blocks is none of {', '.join(BLOCKS.values())}; give one of them"
        )
    return name


def backbone_plan(settings: Settings, stages: Stages | None) -> Plan:
    """A ResNet alone, under torchvision's names and, with `stages`, under all that a reference gives it."""
    state = ResNetStages(str(settings.arguments["backbone"])).state_dict()
    if stages is None:
        return Plan(settings, state, {name: (name,) for name in state})
    names = {name: stages.names(name) for name in state}
    heads = (r"(side\d|classifier|f9|newly_added|fc_edge\d|fc_dp\d|edge_layers|dp_layers|mean_shift)\..*", "of a head")
    return Plan(settings, state, names, {name: (name,) for name in state}, left=(heads,), partial=True)


class TorchvisionResNet(Source):
    """torchvision's ResNets, and whoever keeps its names (DINO's and Leopart's ResNet-50)."""

    name = "torchvision"
    about = "ResNet-18 to 152 under torchvision's names -> safetensors for `weights:`"
    tasks: ClassVar[Mapping[str, str | None]] = {BACKBONE: None}
    left = (CLASSIFIER,)
    lacks = "a classifier"

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """A stem and four layers."""
        return "layer4.0.conv1.weight" if {"conv1.weight", "layer4.0.conv1.weight"} <= set(tensors) else None

    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """Depth by the number of blocks."""
        return Settings(None, {"backbone": resnet_of(tensors)})

    def plan(self, settings: Settings) -> Plan:
        """Both sides have the same names."""
        return backbone_plan(settings, None)

    def default(self) -> Settings:
        """ResNet-50."""
        return Settings(None, {"backbone": "resnet50"})


class AuthorsSFC(Source):
    """SFC's `.pth` (sfc.md section 2; golden/sfc/param_names.txt).

    Heads are `side1` to `side4`, `classifier` and `f9`. Assumed, as the golden files do not tell: a list `newly_added`
    may hold the heads once more, in any order, since their shapes tell them apart; see `stages` for the backbone.
    """

    name = "sfc"
    about = "the authors' SFC -> a checkpoint of frugalseg.papers.sfc.SFC"
    tasks: ClassVar[Mapping[str, str | None]] = {"sfc": SFC_TASK, BACKBONE: None}
    left = (CLASSIFIER,)
    heads: ClassVar[tuple[str, ...]] = ("classifier", "f9", "side1", "side2", "side3", "side4")

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """Side convolutions and the affinity's."""
        return "side1.weight and f9.weight" if {"side1.weight", "f9.weight"} <= set(tensors) else None

    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """Number of classes and depths by the shapes of the heads."""
        stages = stages_of(tensors, Stages(0))
        if task == BACKBONE:
            return Settings(None, {"backbone": "resnet50"}, (stages, self.heads))
        missing = [name for name in self.heads if f"{name}.weight" not in tensors]
        if missing:
            raise CheckpointError(f"holds no {missing[0]}.weight; give SFC's own file, or take --task backbone")
        if wrong := [name for name in self.heads if tensors[f"{name}.weight"].ndim != 4]:
            raise CheckpointError(f"{wrong[0]}.weight is no convolution; give SFC's own file")
        side = [int(tensors[f"side{i}.weight"].shape[0]) for i in (1, 2, 3, 4)]
        arguments = {"num_classes": int(tensors["classifier.weight"].shape[0]) + 1, "side": side, "weights": None}
        width, own = int(tensors["f9.weight"].shape[0]), int(tensors["classifier.weight"].shape[1])
        arguments |= {"embedding": None if width == own else width}
        return Settings(SFC_TASK, arguments, (stages, self._listed(tensors)))

    def _listed(self, tensors: Tensors) -> tuple[str, ...]:
        """Order of the heads in `newly_added`: each place takes a head of its shape."""
        order = list[str]()
        places = [name for name in tensors if re.fullmatch(r"newly_added\.\d+\.weight", name)]
        for place in sorted(places, key=lambda name: int(name.split(".")[1])):
            same = (h for h in self.heads if h not in order and tensors[f"{h}.weight"].shape == tensors[place].shape)
            order.append(next(same, ""))
        return tuple(order) or self.heads

    def plan(self, settings: Settings) -> Plan:
        """Backbone under its several names, heads under two."""
        stages, order = settings.layout
        if settings.task is None:
            return backbone_plan(settings, stages)
        state = (task := build_task(settings.task, settings.arguments)).state_dict()
        names: dict[str, tuple[str, ...]] = {}
        accepted: dict[str, tuple[str, ...]] = {}
        for ours in state:
            if ours.startswith("net.backbone."):
                rest = ours.removeprefix("net.backbone.")
                names[ours], accepted[ours] = stages.names(rest), (rest,)
            elif ours.startswith("net.heads."):
                rest = ours.removeprefix("net.heads.")
                head = rest.partition(".")[0]
                listed = (f"newly_added.{order.index(head)}.weight",) if head in order else ()
                names[ours] = (rest, *listed)
        own = {name: "what training alone needs" for name in state if name.startswith(("bank.", "class_weight"))}
        return Plan(settings, state, names, accepted, own, task=task)

    def default(self) -> Settings:
        """On VOC."""
        return Settings(SFC_TASK, {"num_classes": 21, "weights": None}, (Stages(0), self.heads))


class AuthorsIRN(Source):
    """IRN's `res50_irn.pth` (sfc.md 7.2; golden/sfc/param_names_irn_heads.txt).

    Heads are `fc_edge1` to `fc_edge6` and `fc_dp1` to `fc_dp7`. Assumed: lists `edge_layers` and `dp_layers` hold them
    once more in that order, and the mean shift is a running mean of a module of its own that also ends `fc_dp7`.
    """

    name = "irn"
    about = "IRN's edges and displacements -> a checkpoint of frugalseg.stages.irn.IRN"
    tasks: ClassVar[Mapping[str, str | None]] = {"irn": IRN_TASK, BACKBONE: None}
    left = (CLASSIFIER,)
    shift: ClassVar[tuple[str, ...]] = (
        "mean_shift.running_mean", "fc_dp7.4.running_mean", "dp_layers.6.4.running_mean",
    )  # fmt: skip

    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """The edge branches."""
        return next((name for name in ("fc_edge1.0.weight", "edge_layers.0.0.weight") if name in tensors), None)

    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """With the displacement branch where the file has one; the number of classes is not in it."""
        stages = stages_of(tensors, Stages(1))
        if task == BACKBONE:
            return Settings(None, {"backbone": "resnet50"}, stages)
        displacement = any(name.startswith(("fc_dp", "dp_layers.")) for name in tensors)
        arguments = {"num_classes": request.classes or 21, "weights": None, "displacement": displacement}
        return Settings(IRN_TASK, arguments, stages)

    def plan(self, settings: Settings) -> Plan:
        """Backbone under its several names, heads under two, the mean shift under three."""
        if settings.task is None:
            return backbone_plan(settings, settings.layout)
        state = (task := build_task(settings.task, settings.arguments)).state_dict()
        names: dict[str, tuple[str, ...]] = {}
        accepted: dict[str, tuple[str, ...]] = {}
        for ours in state:
            part, _, rest = ours.removeprefix("net.").partition(".")
            if part == "backbone":
                names[ours], accepted[ours] = settings.layout.names(rest), (rest,)
            elif rest == "mean_shift":
                names[ours], accepted[ours] = self.shift, ("mean_shift",)
            else:
                head, _, tail = rest.partition(".")
                listed = "edge_layers" if part == "edge" else "dp_layers"
                names[ours] = (rest, f"{listed}.{int(head[-1]) - 1}.{tail}")
        return Plan(settings, state, names, accepted, task=task)

    def default(self) -> Settings:
        """With displacements."""
        return Settings(IRN_TASK, {"num_classes": 21, "weights": None, "displacement": True}, Stages(1))
