"""Names of a ResNet that is registered several times over: as a net, as numbered stages, as a list of stages.

The reference code of SFC and of IRN keeps the ResNet itself, sequences of its parts, and lists of those sequences as
attributes of one module, so every tensor appears in the file once for each (golden/sfc/README.md names the prefixes
`resnet50.`, `stageN.` and `backbone.`). How the stages are numbered is not told there. Assumed are the three ways of
this family of code, told apart by the numbers that occur: stem alone as stage 0 or as stage 1, or stem and layer1
together as stage 1. The layers inside a sequence count on from the stem's four.
"""

from collections.abc import Iterable
from dataclasses import dataclass

STEM = ("conv1", "bn1", "relu", "maxpool")
LAYERS = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Stages:
    """How a net's parts are numbered.

    Attributes:
        first: number of the first stage.
        merged: whether the stem and layer1 are one stage.
    """

    first: int = 0
    merged: bool = False

    def parts(self) -> list[tuple[str, ...]]:
        """Children of each stage, in order."""
        if self.merged:
            return [(*STEM, LAYERS[0]), *((layer,) for layer in LAYERS[1:])]
        return [STEM, *((layer,) for layer in LAYERS)]

    def names(self, rest: str) -> tuple[str, ...]:
        """All names of a tensor of the ResNet.

        Args:
            rest: torchvision's name, e.g. `layer1.0.conv1.weight`.
        """
        child, _, tail = rest.partition(".")
        for number, children in enumerate(self.parts()):
            if child in children:
                place = f"{children.index(child)}.{tail}"
                return f"resnet50.{rest}", f"stage{self.first + number}.{place}", f"backbone.{number}.{place}"
        return (f"resnet50.{rest}",)


def stages_of(names: Iterable[str], default: Stages) -> Stages:
    """The numbering that a file's names show.

    Args:
        names: of its tensors.
        default: what to take where nothing shows it.
    """
    heads = {name.partition(".")[0] for name in names}
    listed = {name.split(".")[1] for name in names if name.startswith("backbone.")}
    if "stage0" in heads:
        return Stages(0)
    if "stage5" in heads:
        return Stages(1)
    if "stage4" in heads or ("3" in listed and "4" not in listed):
        return Stages(1, merged=True)
    return default
