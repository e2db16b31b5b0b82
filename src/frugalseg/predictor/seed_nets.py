"""Classifiers as their tasks ask them for class maps, without the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from frugalseg.ops.cam import RULES, combine
from frugalseg.papers.cti.inference import seed_maps
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.passes import Pass
from frugalseg.papers.cti.seeds import fit_patches
from frugalseg.papers.sfc.inference import class_maps
from frugalseg.papers.sfc.model import SFCNet
from frugalseg.predictor.trust import check_timm

BACKGROUND = 0.4
"""CTI's background where a run has not found its own; the published one lies between .35 and .45."""


class SeedNet(nn.Module):
    """A net that gives class maps of an image whose tags are known, and guesses tags.

    Attributes:
        scales: at which the authors look at an image.
        num_classes: K, background included.
        threshold: score that a constant background has; None where the maps bring their own.
        rule: how maps are weighed; empty where there is one alone.
    """

    scales: ClassVar[tuple[float, ...]] = (1.0,)
    num_classes: int
    threshold: float | None = None
    rule: str = ""

    def maps(self, pairs: Sequence[Tensor], tags: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps of the present classes and of the background.

        Args:
            pairs: per scale (2, 3, H_s, W_s), normalised, the second the mirror image.
            tags: (C,) 0/1.
            size: (H, W) of the image.

        Returns:
            (k,) class ids, 0 first, and (k, H, W) float32; the mask is where each is largest.

        Raises:
            ImageError: the image is smaller than the net can look at.
        """
        raise NotImplementedError

    def presence(self, pair: Tensor) -> Tensor:
        """(C,) probabilities that classes are in an image.

        Args:
            pair: (2, 3, H, W), at scale 1.

        Raises:
            ImageError: as of `maps`.
        """
        raise NotImplementedError


class SFCSeeds(SeedNet):
    """SFC's refined classifier maps; a rule weighs its kinds of maps, `sum` is the paper's.

    Args:
        settings: of `SFCNet`, and `max_pixels`.

    Raises:
        ValueError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    scales: ClassVar[tuple[float, ...]] = (1.0, 0.5, 1.5, 2.0)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        check_timm(settings["backbone"], settings["backbone_options"])
        self.net = SFCNet(**{key: value for key, value in settings.items() if key != "max_pixels"})
        self.num_classes, self.max_pixels = int(settings["num_classes"]), int(settings["max_pixels"])
        self.rule = "sum"

    def maps(self, pairs: Sequence[Tensor], tags: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `SeedNet`."""
        keys, found, _ = class_maps(self.net, pairs, tags, size, self.max_pixels, "the image")
        return keys, combine({name: found[name].float() for name in RULES[self.rule]}, self.rule)

    def presence(self, pair: Tensor) -> Tensor:
        """See `SeedNet`."""
        height, width = pair.shape[-2:]
        everything = pair.new_ones(self.num_classes)
        logits = self.net.infer(pair, everything, height * width > self.max_pixels).score
        return (logits.flatten() / 2).sigmoid()


class CTISeeds(SeedNet):
    """CTI's seed maps over a constant background.

    Args:
        settings: of `CTIViT`, `seed_map`, `fit`, `max_pixels` and, where it is known, `threshold`.

    Raises:
        ValueError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        if settings["stem"] is not None:
            check_timm(settings["stem"]["backbone"], settings["stem"].get("options"))
        other = ("seed_map", "fit", "max_pixels", "threshold")
        self.net = CTIViT(**{key: value for key, value in settings.items() if key not in other})
        self.num_classes, self.kind = int(settings["num_classes"]), str(settings["seed_map"])
        self.fit, self.max_pixels = settings["fit"], int(settings["max_pixels"])
        self.threshold: float = float(settings.get("threshold", BACKGROUND))

    def adapt(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for tokens that were folded into a table.

        Args:
            tensors: that are going to be loaded.
        """
        if (table := tensors.get("net.token_table")) is not None:
            self.net.tokenizer, self.net.token_table = None, torch.empty_like(table)

    def settle(self) -> None:
        """Fold the tokens, which do not depend on the image, once the weights are here."""
        self.net.fold()

    def maps(self, pairs: Sequence[Tensor], tags: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `SeedNet`."""
        keys, found = seed_maps(self.net, pairs, tags, size, (self.kind,), self.fit, self.max_pixels)
        classes = found[self.kind][1:].float()
        return keys, torch.cat([classes.new_full((1, *size), self.threshold), classes])

    def presence(self, pair: Tensor) -> Tensor:
        """See `SeedNet`; the mean logit of class tokens and patches."""
        fitted = fit_patches(pair, self.net.patch_embed.patch, self.fit, self.max_pixels)
        found: Pass = self.net(fitted.images)
        logits = (found.scores.token_logits + found.scores.patch_logits) / 2
        return logits.mean(dim=0).sigmoid()
