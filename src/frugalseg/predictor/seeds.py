"""Seed masks and class maps of images from classifiers that have learned tags alone."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.data.normalise import Normaliser
from frugalseg.data.rescale import rescaled
from frugalseg.errors import ConfigError
from frugalseg.ops.cam import RULES, labels_from_maps
from frugalseg.predictor.base import Picture, Predictor, pixels_of
from frugalseg.predictor.nets import build_net, move
from frugalseg.predictor.seed_nets import SeedNet
from frugalseg.predictor.source import NetSource


class SeedPredictor(Predictor):
    """SFC or CTI: where the classes of an image's tags are.

    Maps are those that `frugalseg predict` writes for the same checkpoint at the same scales, which are the authors'
    here (SFC four, CTI one), with the mirror image.

    Attributes:
        source: what it was made from.
        device: where it computes.
        num_classes: K, background included.
        scales: sizes at which an image is looked at; may be set.
        tag_threshold: probability from which a class is taken to be in an image whose tags are not given; may be set.

    Args:
        source: of `read_source`.
        device: as torch names it.

    Raises:
        CheckpointError: the tensors are not those of the net.
        ConfigError: no such device.
    """

    kind: ClassVar[str] = "seeds"

    def __init__(self, source: NetSource, device: str | torch.device = "cpu") -> None:
        able = "seed masks and class maps: predictor(image, tags), predictor.maps(image, tags)"
        super().__init__(source.path, able, source.class_names, source.palette)
        self.source = source
        net = cast(SeedNet, build_net(source))
        self.net, self.device = net, move(net, device)
        self.num_classes, self.scales = net.num_classes, net.scales
        self.mean, self.std = source.mean, source.std
        self.tag_threshold = 0.5
        self._normaliser = Normaliser(source.mean, source.std)

    @property
    def threshold(self) -> float | None:
        """Score of the constant background, of CTI; None for SFC, whose maps bring their own. May be set for CTI.

        Of a checkpoint in its run folder it is the best of the run's last validation, which has looked at masks; else
        0.4.
        """
        return self.net.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        """Set it.

        Raises:
            ConfigError: a net of SFC, or a value outside 0..1.
        """
        if self.net.threshold is None:
            raise ConfigError(f"{self.path}: its maps bring their own background; leave the threshold out")
        if not 0 <= value <= 1:
            raise ConfigError(f"threshold is {value}: set it to a number from 0 to 1")
        self.net.threshold = float(value)

    @property
    def rule(self) -> str:
        """How SFC's maps are weighed, a key of `frugalseg.ops.cam.RULES`; empty for CTI. May be set for SFC."""
        return self.net.rule

    @rule.setter
    def rule(self, value: str) -> None:
        """Set it.

        Raises:
            ConfigError: a net of CTI, or no such rule.
        """
        if not self.net.rule or value not in RULES:
            known = ", ".join(RULES) if self.net.rule else "none: this net has one kind of map"
            raise ConfigError(f"rule is {value!r}: known are {known}")
        self.net.rule = value

    def __call__(
        self,
        image: Picture,
        tags: Sequence[str | int] | None = None,
        supports: Sequence[tuple[Picture, Any]] | None = None,
    ) -> NDArray[np.uint8]:
        """The seed mask of an image at its own size; see `Predictor`."""
        if supports is not None:
            raise ConfigError(f"{self.path}: needs tags and no supports; leave them out")
        keys, maps = self._scores(pixels_of(image), tags)
        return cast(NDArray[np.uint8], labels_from_maps(maps, keys).to(torch.uint8).cpu().numpy())

    def maps(self, image: Picture, tags: Sequence[str | int] | None = None) -> dict[int, NDArray[np.float32]]:
        """Class maps of an image at its own size; see `Predictor`."""
        keys, maps = self._scores(pixels_of(image), tags)
        return {int(key): each.cpu().numpy() for key, each in zip(keys.tolist(), maps, strict=True)}

    @torch.no_grad()
    def presence(self, image: Picture) -> dict[int, float]:
        """Class id -> probability that the image shows the class, of all classes but the background.

        Args:
            image: as of a call.

        Raises:
            ImageError: as of a call.
        """
        found = self.net.presence(self._pair(pixels_of(image), 1.0))
        return {class_id: float(value) for class_id, value in enumerate(found.tolist(), start=1)}

    def ids_of(self, tags: Sequence[str | int]) -> list[int]:
        """Class ids of tags.

        Args:
            tags: names, or ids from 1 upward.

        Raises:
            ConfigError: no such class, or the names are not known.
        """
        return [self._id_of(tag) for tag in ([tags] if isinstance(tags, str | int) else tags)]

    # ------------------------------------------------------------------ inside

    def _id_of(self, tag: str | int) -> int:
        if isinstance(tag, str):
            if not self.class_names:
                raise ConfigError(f"tag {tag!r}: {self.path} does not know the names of its classes; give ids")
            if tag not in self.class_names[1:]:
                raise ConfigError(f"tag {tag!r}: no such class; known are {', '.join(self.class_names[1:])}")
            return self.class_names.index(tag, 1)
        if isinstance(tag, bool) or not 1 <= int(tag) < self.num_classes:
            raise ConfigError(f"tag {tag}: no such class; give ids from 1 to {self.num_classes - 1}")
        return int(tag)

    @torch.no_grad()
    def _scores(self, pixels: NDArray[np.uint8], tags: Sequence[str | int] | None) -> tuple[Tensor, Tensor]:
        """(k,) class ids and (k, H, W) maps."""
        if not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"scales are {list(self.scales)}: give one or more numbers above 0")
        if tags is None:
            shown = (self.net.presence(self._pair(pixels, 1.0)) >= self.tag_threshold).float()
        else:
            shown = torch.zeros(self.num_classes - 1, device=self.device)
            shown[[each - 1 for each in self.ids_of(tags)]] = 1
        pairs = [self._pair(pixels, scale) for scale in self.scales]
        return self.net.maps(pairs, shown, (pixels.shape[0], pixels.shape[1]))

    def _pair(self, pixels: NDArray[np.uint8], scale: float) -> Tensor:
        return torch.from_numpy(self._normaliser.pair(rescaled(pixels, scale))).to(self.device)
