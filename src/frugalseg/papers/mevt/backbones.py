"""Backbones of the pretraining task: MEVT's presets, and nets of timm as baselines under the same losses."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from frugalseg.errors import ConfigError
from frugalseg.nn.features import create_timm
from frugalseg.papers.mevt.model import MEVT, PRESETS, Dense, create


class TimmBackbone(nn.Module):
    """A net of timm that says of images what MEVT says: its last map, and its class token or the mean of the map.

    Args:
        name: timm name, such as `vit_small_patch16_224` or `resnet50`.
        options: further arguments of the timm model. Transformers with positions take images of any size.

    Raises:
        ConfigError: timm has no such model or the model no such argument, or it gives no map.
    """

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        try:
            net: Any = create_timm(name, dict(options or {}))
        except ConfigError as error:
            raise ConfigError(f"model.init_args.preset is none of {', '.join(PRESETS)}, so of timm: {error}") from error
        if not isinstance(getattr(net, "fc_norm", nn.Identity()), nn.Identity):
            raise ConfigError(f"model.init_args.changes: {name} norms its averaged token alone; leave out global_pool")
        self.net = net
        self.width = self.token_width = int(net.num_features)
        self.front = int(getattr(net, "num_prefix_tokens", 0))
        self.stride = int(net.feature_info[-1]["reduction"])
        # of other sizes some nets round their maps down, some up, and some refuse them
        self.multiple = self.stride
        self.last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        """Whether its maps have their channels last."""

    def forward(self, image: Tensor) -> Dense:
        """Last map and token; see `Dense`.

        Args:
            image: (N, 3, H, W); sides of a transformer are multiples of its patch.
        """
        net: Any = self.net
        found: Tensor = net.forward_features(image)
        if found.ndim == 4:
            found = found.permute(0, 3, 1, 2) if self.last else found
            return Dense(found, found.mean(dim=(2, 3)), (found,))
        grid = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        cells = found[:, self.front :].transpose(1, 2).reshape(found.shape[0], -1, *grid)
        token = found[:, 0] if self.front else found.mean(dim=1)
        return Dense(cells, token, (cells,))


def create_backbone(preset: str, changes: Mapping[str, Any] | None, teacher: bool = False) -> nn.Module:
    """Build the net that is pretrained.

    Args:
        preset: of MEVT, or a name of timm.
        changes: arguments that differ from the preset, or the timm model's own.
        teacher: without stochastic depth.

    Raises:
        ConfigError: no such net, or an argument that it does not take.
    """
    settings = dict(changes or {})
    if preset not in PRESETS:
        # not every net knows the word
        plain = {"drop_path_rate": 0.0} if teacher and "drop_path_rate" in settings else {}
        return TimmBackbone(preset, {**settings, **plain})
    if settings.get("joined"):
        raise ConfigError("model.init_args.changes.joined is of evaluation alone; leave it out")
    try:
        return create(preset, **({**settings, "drop_path": 0.0} if teacher else settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.init_args.changes: {error}") from error


def check_sides(backbone: nn.Module, size: Sequence[int], key: str) -> None:
    """Refuse views that the net cannot take.

    Args:
        backbone: of `create_backbone`.
        size: (H, W) of the views.
        key: the setting of the recipe, for the message.

    Raises:
        ConfigError: a side is no multiple of what the net divides images into.
    """
    step = 32 if isinstance(backbone, MEVT) else int(getattr(backbone, "multiple", 1))
    if any(side % step for side in size):
        raise ConfigError(f"data.recipe.{key} is {size[0]}; this net needs a multiple of {step}")
