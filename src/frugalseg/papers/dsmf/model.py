"""DSMF-Net: graph prototypes, a prior map and a pyramid that fuses them (dsmf.md sections 3 and 4).

N episodes, K shots, d channels, S x S the grid of the backbone's last three stages (its sides may differ). The net is
split where results can be kept: `Features` of an image, and `Support`, what an episode needs of its supports.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from frugalseg.nn.dilated import Early, Stages, dilated
from frugalseg.ops.cam import resize
from frugalseg.ops.prototypes import foreground, prior_mask, scaled_cosine_map, weighted_average_pool
from frugalseg.papers.dsmf.fusion import EnrichmentFusion, Fusion, PyramidFusion
from frugalseg.papers.dsmf.grid import unit_of
from frugalseg.papers.dsmf.heads import Head


class Support(NamedTuple):
    """What an episode needs of its supports, of each shot; averaged over shots only when it is used."""

    prototypes: Tensor
    """(N, K, L, d) of each graph stage."""
    last: Tensor
    """(N, K, D4, h, w) last stage of the masked third one, not yet masked itself."""
    mask: Tensor
    """(N, K, h, w) soft masks on the grid."""


class Episode(NamedTuple):
    """Answer to an episode."""

    logits: Tensor
    """(N, 2, H, W) background and class."""
    auxiliary: list[Tensor]
    """Logits (N, 2, H, W) of each auxiliary head; empty in evaluation."""
    graph_maps: list[Tensor]
    """(N, 1, h_l, w_l) in 0..1 for each graph stage."""
    prior: Tensor
    """(N, 1, h, w) in 0..1."""


class DSMFNet(nn.Module):
    """Few-shot segmentation net over a frozen backbone.

    Args:
        backbone: a ResNet of timm, or `vgg16_bn`.
        backbone_options: further arguments of `DilatedResNet` or `DilatedVGG`.
        dim: d.
        nodes: of each graph.
        states: numbers per node.
        graph_stages: stages (1 to 4) that have a graph, a prototype and a map.
        graph_impl: `einsum`, or `pyg` for torch_geometric's layer; the same result.
        use_graph: False puts the identity in place of the graph units.
        use_maps: False keeps the maps of the stages out of the fusion.
        use_prior: False replaces the prior map by zeros.
        fusion: `sff`, or `fem`, PFENet's, the baseline.
        sff_levels: levels of the pyramid.
        sff_merge: intermediate scales between levels.
        query_dropout: of the query's reduced features.
        prior_chunk: support places that are compared at a time; None for all.
        unit: `graph`, or `grid`: a convolution of equal start and size in the place of each graph unit.

    Raises:
        ValueError: a stage that is not there, an unknown fusion or an unknown unit.
    """

    hot: ClassVar[tuple[str, ...]] = ("forward", "from_features")
    """What a training step calls; see `callbacks.Compile`."""

    def __init__(
        self,
        backbone: str = "resnet50",
        backbone_options: dict[str, Any] | None = None,
        dim: int = 256,
        nodes: int = 64,
        states: int = 128,
        graph_stages: Sequence[int] = (1, 2, 3),
        graph_impl: str = "einsum",
        use_graph: bool = True,
        use_maps: bool = True,
        use_prior: bool = True,
        fusion: Literal["sff", "fem"] = "sff",
        sff_levels: int = 4,
        sff_merge: bool = True,
        query_dropout: float = 0.5,
        prior_chunk: int | None = None,
        unit: Literal["graph", "grid"] = "graph",
    ) -> None:
        super().__init__()
        if not graph_stages or not set(graph_stages) <= {1, 2, 3, 4} or len(set(graph_stages)) < len(graph_stages):
            raise ValueError(f"graph_stages must be different stages from 1 to 4, got {tuple(graph_stages)}")
        self.backbone = dilated(backbone, backbone_options)
        self.graph_stages, self.use_maps, self.use_prior = tuple(graph_stages), use_maps, use_prior
        self.prior_chunk = prior_chunk
        channels = self.backbone.channels
        # one reducer and one unit per stage for query and supports: two would make their cosine meaningless
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[stage - 1], dim, 1, bias=False), nn.ReLU(inplace=True))
            for stage in graph_stages
        )
        self.graphs = nn.ModuleList(
            unit_of(unit, dim, nodes, states, graph_impl) if use_graph else nn.Identity() for _ in graph_stages
        )
        self.reduce_query = nn.Sequential(
            nn.Conv2d(channels[1] + channels[2], dim, 1, bias=False), nn.ReLU(inplace=True), nn.Dropout2d(query_dropout)
        )
        evidence = 1 + (len(graph_stages) if use_maps else 0)
        self.fusion: Fusion = (
            PyramidFusion(dim, evidence, sff_levels, sff_merge)
            if fusion == "sff"
            else EnrichmentFusion(dim, evidence, sff_levels)
        )
        self.head = Head(dim)
        self.auxiliary = nn.ModuleList(Head(dim) for _ in range(self.fusion.auxiliary))

    # ------------------------------------------------------------------ pieces

    def query_features(self, image: Tensor) -> Stages | Early:
        """Frozen features of queries (N, 3, H, W): all that the settings ask for."""
        return self.backbone(image) if self.use_prior else self.support_features(image)

    def support_features(self, image: Tensor) -> Stages | Early:
        """The same of supports. The prior compares the last stage of MASKED features, so theirs is rarely needed."""
        return self.backbone(image) if 4 in self.graph_stages else self.backbone.early(image)

    def stage_features(
        self, query: Stages | Early, support: Stages | Early | None = None
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Reduced features of each graph stage behind its graph unit.

        Query and supports pass a unit as ONE batch: its batch normalisation has one set of statistics (dsmf.md 4.2).

        Args:
            query: features of N images.
            support: features of N * K images, or None.

        Returns:
            Per graph stage (N, d, h_l, w_l) and (N * K, d, h_l, w_l) or None.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        for stage, reduce, graph in zip(self.graph_stages, self.reduce, self.graphs, strict=True):
            own = query[stage - 1]
            if support is None:
                found.append((graph(reduce(own)), None))
                continue
            both: Tensor = graph(reduce(torch.cat([own, support[stage - 1]])))
            # going back, parts are joined again, where slices would each fill the whole with zeros
            ours, theirs = torch.split(both, [len(own), len(both) - len(own)])
            found.append((ours, theirs))
        return found

    def masked_last(self, support: Stages | Early, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Last stage of the masked third stage (dsmf.md 4.4), frozen like the backbone.

        Args:
            support: features of M images.
            mask: (M, H, W) of 0, 1 and 255.

        Returns:
            (M, D4, h, w) features and the soft mask (M, h, w) on their grid; D4 is 0 where the prior is switched off.
        """
        soft = foreground(mask[:, None], (support.c3.shape[-2], support.c3.shape[-1]))
        if not self.use_prior:
            return support.c3[:, :0], soft[:, 0]
        return self.backbone.last(support.c3 * soft.to(support.c3.dtype)), soft[:, 0]

    def prototypes(self, features: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Prototype of each graph stage (dsmf.md 4.3).

        Args:
            features: per graph stage (M, d, h_l, w_l).
            mask: (M, H, W) of 0, 1 and 255.

        Returns:
            (M, L, d).
        """
        pooled = [weighted_average_pool(f, foreground(mask[:, None], (f.shape[-2], f.shape[-1]))) for f in features]
        return torch.stack(pooled, dim=1)

    def answer(
        self, query: Stages | Early, features: Sequence[Tensor], support: Support, size: tuple[int, int]
    ) -> Episode:
        """From query features and what is known of the supports to logits (dsmf.md 4.3 to 4.7).

        Prototypes are averaged over shots before the cosine, prior maps after they were scaled.

        Args:
            query: features of N images.
            features: per graph stage (N, d, h_l, w_l) of the query.
            support: of the same N episodes.
            size: (H, W) of the logits.

        Returns:
            `Episode`.
        """
        grid = (query.c3.shape[-2], query.c3.shape[-1])
        prototypes = support.prototypes.mean(dim=1)
        maps = [scaled_cosine_map(f, prototypes[:, stage]) for stage, f in enumerate(features)]
        prior = self.prior(query, support)
        evidence = torch.cat(
            [resize(m, grid, align_corners=True) for m in (*(maps if self.use_maps else ()), prior)], 1
        )
        joined = self.reduce_query(torch.cat([query.c2, query.c3], dim=1))
        fused, between = self.fusion(joined, prototypes.mean(dim=1).to(joined.dtype), evidence.to(joined.dtype))
        auxiliary = (
            [head(part, size) for head, part in zip(self.auxiliary, between, strict=True)] if self.training else []
        )
        return Episode(self.head(fused, size), auxiliary, maps, prior)

    def prior(self, query: Stages | Early, support: Support) -> Tensor:
        """(N, 1, h, w) prior map; zeros where it is switched off.

        Raises:
            ValueError: the prior is on and the query's last stage is missing.
        """
        if not self.use_prior:
            return query.c3.new_zeros(len(query.c3), 1, *query.c3.shape[-2:])
        if not isinstance(query, Stages):
            raise ValueError("the prior map compares the last stage of the query, which is missing")
        return prior_mask(query.c4, support.last, support.mask, self.prior_chunk)

    # ------------------------------------------------------------------ an episode

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor) -> Episode:
        """Segment the class of the supports in the query.

        Args:
            query: (N, 3, H, W) normalised.
            supports: (N, K, 3, H, W).
            masks: (N, K, H, W) of 0, 1 and 255.

        Returns:
            `Episode`.
        """
        own, theirs = self.query_features(query), self.support_features(supports.flatten(0, 1))
        return self.from_features(own, theirs, masks, (query.shape[-2], query.shape[-1]))

    def from_features(
        self,
        query: Stages | Early,
        support: Stages | Early,
        masks: Tensor,
        size: tuple[int, int],
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Episode:
        """The same from frozen features, which training may keep.

        Args:
            query: features of N images.
            support: features of N * K images, shots of an episode behind one another; the last stage is read only where
                it has a graph.
            masks: (N, K, H, W).
            size: (H, W) of the logits.
            known: what `masked_last` gives for these supports, where it has been kept.

        Returns:
            `Episode`.
        """
        episodes, shots = masks.shape[:2]
        flat = masks.flatten(0, 1)
        pairs = self.stage_features(query, support)
        prototypes = self.prototypes([theirs for _, theirs in pairs if theirs is not None], flat)
        last, soft = self.masked_last(support, flat) if known is None else known
        parts = (part.reshape(episodes, shots, *part.shape[1:]) for part in (prototypes, last, soft))
        return self.answer(query, [own for own, _ in pairs], Support(*parts), size)
