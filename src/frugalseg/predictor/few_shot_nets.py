"""Few-shot nets as their tasks ask them, without the tasks."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from frugalseg.nn.dilated import dilated
from frugalseg.ops.cam import resize
from frugalseg.ops.prototypes import foreground, scaled_cosine_map, weighted_average_pool
from frugalseg.papers.dsmf.cache import SupportCache, joined
from frugalseg.papers.dsmf.model import DSMFNet, Support
from frugalseg.predictor.trust import check_timm


class FewShotNet(nn.Module):
    """A net that finds in an image what others show.

    Attributes:
        size: longer side of the images that it has seen in training; None where that is not known.
    """

    size: int | None

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
        """Scores of one episode; each image is worked out by itself, as in the task's evaluation.

        Args:
            query: (1, 3, S, S), normalised.
            supports: (K, 3, S, S).
            masks: (K, S, S) of 0, 1 and 255.

        Returns:
            (1, 2, S, S): of the rest and of what is sought.
        """
        raise NotImplementedError


class GraphMatcher(FewShotNet):
    """DSMF-Net.

    Args:
        settings: of `DSMFNet`, and `size`.

    Raises:
        ValueError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        check_timm(settings["backbone"], settings["backbone_options"])
        self.net = DSMFNet(**{key: value for key, value in settings.items() if key != "size"})
        self.size = settings["size"]

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
        """See `FewShotNet`."""
        keep = SupportCache(0)
        known = [
            keep.get(("", shot), lambda k=shot: self._support(supports[k : k + 1], masks[k : k + 1]))  # type: ignore[misc]
            for shot in range(len(supports))
        ]
        own = self.net.query_features(query)
        features = [found for found, _ in self.net.stage_features(own)]
        size = (query.shape[-2], query.shape[-1])
        return self.net.answer(own, features, joined([known]), size).logits

    def _support(self, image: Tensor, mask: Tensor) -> Support:
        """What an episode needs of one support."""
        stages = self.net.support_features(image)
        features = [found for found, _ in self.net.stage_features(stages)]
        last, soft = self.net.masked_last(stages, mask)
        return Support(self.net.prototypes(features, mask)[:, None], last[:, None], soft[:, None])


class Prototypes(FewShotNet):
    """The baseline: the cosine with a prototype of frozen features, above a threshold.

    Args:
        settings: `backbone`, `backbone_options`, `stage` and `size`.

    Raises:
        ValueError: a setting that the net does not take.
        CheckpointError: a net that would read other files.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        check_timm(settings["backbone"], settings["backbone_options"])
        self.backbone = dilated(settings["backbone"], settings["backbone_options"])
        self.stage, self.size = int(settings["stage"]), settings["size"]
        self.register_buffer("threshold", torch.tensor(float("nan")))

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
        """See `FewShotNet`."""
        own, theirs = self.backbone(query)[self.stage - 1], self.backbone(supports)[self.stage - 1]
        soft = foreground(masks[:, None], (theirs.shape[-2], theirs.shape[-1]))
        prototype = weighted_average_pool(theirs, soft).mean(dim=0, keepdim=True)
        found = scaled_cosine_map(own, prototype)
        found = resize(found, (query.shape[-2], query.shape[-1]), align_corners=True)
        # the greater of map and threshold wins
        return torch.cat([cast(Tensor, self.threshold).to(found).expand_as(found), found], dim=1)
