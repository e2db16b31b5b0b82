"""MEVT as timm knows models: importing this file makes `timm.create_model("mevt_s")` work, and `mevt_xs`, `mevt_tiny`.

Supported: `num_classes`, `global_pool`, `drop_rate`, `drop_path_rate` and the arguments of `MEVT`; `forward_features`
and `forward_head` as of a transformer with a class token; `forward_intermediates` and `features_only` for F1 to F4;
`get_classifier`, `reset_classifier`, `group_matcher`, `set_grad_checkpointing`, `no_weight_decay`. Not supported: other
numbers of input channels, and `pretrained=True` by name, as no weights are published; a folder of `frugalseg package`
loads with `local-dir:`. The dense features Z are no entry of `feature_info`, whose strides may only grow: see `dense`.
"""

from typing import Any, Literal, cast

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from frugalseg.nn.initial import small_normal_
from frugalseg.papers.mevt.blocks import as_tokens
from frugalseg.papers.mevt.decoder import Decoder
from frugalseg.papers.mevt.encoder import STEP, Encoder
from frugalseg.papers.mevt.model import MEVT, PRESETS

Pool = Literal["token", "avg", ""]


class TimmMEVT(nn.Module):
    """The parts of a `MEVT` under timm's methods; its tensors have the names of a `MEVT`'s, and `head.*` with classes.

    Args:
        num_classes: outputs of the classifier; 0 for none, then a forward pass gives the pooled features.
        global_pool: `token` for the global token g, `avg` for the mean of F4, empty for all tokens.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block.
        in_chans: 3.
        **settings: of `MEVT`.

    Raises:
        ValueError: another number of input channels, another pooling, or a setting that `MEVT` refuses.
    """

    num_prefix_tokens = 1
    output_fmt = "NCHW"

    def __init__(
        self,
        num_classes: int = 0,
        global_pool: Pool = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        in_chans: int = 3,
        **settings: Any,
    ) -> None:
        super().__init__()
        if in_chans != 3:
            raise ValueError(f"MEVT takes images of 3 channels, got in_chans={in_chans}")
        net = MEVT(**{"drop_path": drop_path_rate, **settings})
        self.encoder: Encoder = net.encoder
        self.decoder: Decoder | None = net.decoder
        self.width, self.stride = net.width, net.stride
        """Of `dense`."""
        self.in_chans, widths = in_chans, [stage.norm.normalized_shape[0] for stage in self._stages()]
        self.feature_info = [
            {"num_chs": width, "reduction": 4 << number, "module": f"encoder.stages.{number}"}
            for number, width in enumerate(widths)
        ]
        self.num_features = self.head_hidden_size = self.embed_dim = widths[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def _stages(self) -> list[Any]:
        return list(self.encoder.stages)

    # ------------------------------------------------------------------ features

    def dense(self, image: Tensor) -> Tensor:
        """Dense features Z, (N, `width`, H / `stride`, W / `stride`); see `MEVT.dense`."""
        encoded = self.encoder(image)
        return cast(Tensor, encoded.stages[2] if self.decoder is None else self.decoder(encoded))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W), sides multiples of 32 -> (N, 1 + h * w, C4): the global token, then F4 row by row."""
        encoded = self.encoder(x)
        return torch.cat([encoded.token[:, None], as_tokens(encoded.stages[3])], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool what `forward_features` gives and classify it.

        Args:
            x: (N, 1 + h * w, C4).
            pre_logits: leave out the classifier.
        """
        if self.global_pool:
            x = x[:, 0] if self.global_pool == "token" else x[:, 1:].mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else cast(Tensor, self.head(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes) logits, or (N, C4) pooled features where there are no classes."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps of stages.

        Args:
            x: (N, 3, H, W), sides multiples of 32.
            indices: stages 0 to 3, or how many of the last ones; None for all.
            norm: without effect: every stage ends in a norm of its own.
            stop_early: run no stage behind the last wanted one.
            output_fmt: `NCHW`.
            intermediates_only: give the maps alone.

        Returns:
            The maps, or what `forward_features` gives and the maps; of the last stage that ran.

        Raises:
            ValueError: another format, or a side is no multiple of 32.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt!r}")
        if not all(x.shape[-2:]) or any(side % STEP for side in x.shape[-2:]):
            raise ValueError(f"images must have sides that are multiples of {STEP}, got {tuple(x.shape[-2:])} (H x W)")
        stages = self._stages()
        chosen, last = feature_take_indices(len(stages), indices)
        maps, front = [], x[:, :0, 0]
        for stage in stages[: last + 1] if stop_early or intermediates_only else stages:
            x, front = stage(x, None, self.encoder.checkpointing)
            maps.append(x)
        wanted = [each for number, each in enumerate(maps) if number in chosen]
        return wanted if intermediates_only else (torch.cat([front, as_tokens(x)], dim=1), wanted)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the decoder and the stages behind the last wanted one; nothing but `forward_intermediates` runs then.

        Args:
            indices: as of `forward_intermediates`.
            prune_norm: without effect: there is no norm behind the stages.
            prune_head: drop the classifier too.

        Returns:
            The stages' numbers.
        """
        chosen, last = feature_take_indices(len(self.encoder.stages), indices)
        self.encoder.stages = self.encoder.stages[: last + 1]
        self.decoder = None
        if prune_head:
            self.reset_classifier(0)
        return chosen

    # ------------------------------------------------------------------ the classifier, and what trainers ask

    def get_classifier(self) -> nn.Module:
        """The last linear; an identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Pool | None = None) -> None:
        """Begin with another classifier.

        Args:
            num_classes: 0 for none.
            global_pool: another pooling; None keeps it.

        Raises:
            ValueError: another pooling than `token`, `avg` and none.
        """
        if global_pool not in ("token", "avg", "", None):
            raise ValueError(f"global_pool must be token, avg or empty, got {global_pool!r}")
        self.num_classes = num_classes
        self.global_pool: Pool = self.global_pool if global_pool is None else global_pool
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for parameter in self.head.parameters():
            small_normal_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)

    def no_weight_decay(self) -> set[str]:
        """The global token; norms and biases are the trainer's own to leave out."""
        return {name for name, _ in self.named_parameters() if name.endswith(("token", "mask_token"))}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that put parameters into layers, first to last; the decoder is one layer, behind the encoder."""
        place = r"^encoder\.stages\.(\d+)"
        # what of a stage is in no block, its embedding and its norm, goes with its first block
        inside = [(place, None)] if coarse else [(place + r"\.blocks\.(\d+)", None), (place, (0,))]
        return {"stem": r"^encoder\.(?:stages\.0\.embed|mask_token)", "blocks": [*inside, (r"^decoder", (1000,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make activations again on the way back."""
        self.encoder.checkpointing = enable
        if self.decoder is not None:
            self.decoder.checkpointing = enable


def _build(name: str, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    taps = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
    return cast(
        nn.Module, build_model_with_cfg(TimmMEVT, name, pretrained, feature_cfg=taps, **{**PRESETS[name], **settings})
    )


def mevt_s(pretrained: bool = False, **settings: Any) -> nn.Module:
    """26.4 M parameters (mevt.md b.6)."""
    return _build("mevt_s", pretrained, settings)


def mevt_xs(pretrained: bool = False, **settings: Any) -> nn.Module:
    """3.9 M parameters (mevt.md b.6)."""
    return _build("mevt_xs", pretrained, settings)


def mevt_tiny(pretrained: bool = False, **settings: Any) -> nn.Module:
    """0.7 M parameters, for tests and CPUs (mevt.md b.6)."""
    return _build("mevt_tiny", pretrained, settings)


_CONFIG = {"num_classes": 0, "crop_pct": 0.875, "first_conv": "encoder.stages.0.embed", "classifier": "head"}
default_cfgs = generate_default_cfgs({name: dict(_CONFIG) for name in PRESETS})
"""timm's record of each model: 3 x 224 x 224, ImageNet's means, no weights."""
for _entry in (mevt_s, mevt_xs, mevt_tiny):
    register_model(_entry)
