"""Settings of CTI that make no sense are refused when the task is made, with the key's name."""

from collections.abc import Mapping
from typing import Any

from frugalseg.errors import ConfigError


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that make no sense.

    Raises:
        ConfigError: names the key and what it may be.
    """
    least = {
        **dict.fromkeys(("dim", "depth", "heads", "patch", "grid", "memory_size", "max_pixels"), 1),
        **dict.fromkeys(("warmup_lr", "min_lr", "warmup", "weight_decay", "terms_from_epoch"), 0),
        **dict.fromkeys(("background_weight", "intra_weight", "cross_weight"), 0),
    }
    for key, low in least.items():
        if settings[key] < low:
            raise ConfigError(f"model.init_args.{key} is {settings[key]}: set it to {low} or more")
    if settings["lr"] <= 0:
        raise ConfigError(f"model.init_args.lr is {settings['lr']}: set it to a number above 0")
    if not 0 <= settings["drop_path"] < 1:
        raise ConfigError(f"model.init_args.drop_path is {settings['drop_path']}: set it to 0 or more, below 1")
    if settings["background_weight"] and not settings["background_token"]:
        raise ConfigError("model.init_args.background_weight: there is no background token; set it to 0")
