"""What `frugalseg cache` leaves behind: one file that says which features were kept, of what, and where."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frugalseg.errors import ConfigError, DatasetError

NAME = "cache.json"
"""Usual name of the file; the folders of the splits lie beside it."""
AGAIN = "run `frugalseg cache` again"


@dataclass(frozen=True)
class CacheIndex:
    """Kept features of a training and a validation split.

    Args:
        train: name and digest of the split that is trained on.
        val: likewise, of the split that is scored.
        benchmark: name of the data module.
        class_names: K names, in the order of the class ids.
        backbone: `FrozenFeatures.digest` of the net.
        width: D of its features.
        input_size: side of the images.
        grid: side of the masks.
        images: how many each split has.
        root: folder of the splits; it is not written, as it is that of the file.
    """

    train: tuple[str, str]
    val: tuple[str, str]
    benchmark: str
    class_names: tuple[str, ...]
    backbone: str
    width: int
    input_size: int
    grid: int
    images: dict[str, int] = field(default_factory=dict)
    root: Path = Path()

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def content(self) -> dict[str, Any]:
        """What is written."""
        return {key: value for key, value in asdict(self).items() if key != "root"}

    def check(self, backbone: str, width: int, input_size: int | None, grid: int | None) -> None:
        """Refuse to train on features of another net or size.

        Args:
            backbone: digest of the net that the task names.
            width: D of its features.
            input_size: side of images that the task names.
            grid: side of masks that the task names.

        Raises:
            ConfigError: they differ.
        """
        here = {"width": width, "input_size": input_size, "grid": grid}
        kept = {"width": self.width, "input_size": self.input_size, "grid": self.grid}
        apart = [f"{name} {kept[name]}, not {here[name]}" for name in here if kept[name] != here[name]]
        if not apart and backbone != self.backbone:
            apart = ["the backbone's settings or weights"]
        if apart:
            raise ConfigError(
                f"{self.root / NAME}: the kept features are not those of model.init_args ({'; '.join(apart)}); {AGAIN} "
                "with the same model settings and seed"
            )


def read_index(path: Path) -> CacheIndex:
    """Read the file.

    Args:
        path: usually `.../cache.json`.

    Raises:
        DatasetError: it is missing, damaged or something else.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["class_names"] = tuple(content["class_names"])
        for role in ("train", "val"):
            name, digest = content[role]
            content[role] = (str(name), str(digest))
        return CacheIndex(**content, root=path.parent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        what = type(error).__name__ if isinstance(error, OSError) else " ".join(str(error).split())[:120]
        raise DatasetError(
            f"{path}: no index of kept features ({what}); {AGAIN}, and name the file it prints"
        ) from None
