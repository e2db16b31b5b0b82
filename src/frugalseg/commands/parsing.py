"""What settings may name and hold, and what their parser has to say, in one line.

jsonargparse imports a class path while it parses. Three gates stand before that: `check_words` looks through the files
that the words name, `_load` through every text that the parser takes for YAML, and the parser's own list of import
paths, set by `guard`, decides on every single import. After parsing, `check_parsed` lets only classes pass that our
parameters can mean: no functions, and of other packages no class that is not a part of a training.
"""

import pkgutil
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings

from frugalseg import limits
from frugalseg.errors import ConfigError, FrugalsegError
from frugalseg.yaml_text import check_bounds, check_strings, read_yaml

_NOISE = (
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value type",
    "Given value: Namespace(",
    "Given value: NestedArg(",
    "Problem with given class_path",
)
_DENIED = re.compile(r"Importing '([^']+)' is not allowed, denied by")
_KEY = re.compile(r'(?:Parser key|Option|Key) ["\']([^"\']+)["\']')
PARTS = {
    "albumentations.core.composition.BaseCompose",
    "albumentations.core.transforms_interface.BasicTransform",
    "lightning.fabric.accelerators.accelerator.Accelerator",
    "lightning.fabric.loggers.logger.Logger",
    "lightning.fabric.plugins.environments.cluster_environment.ClusterEnvironment",
    "lightning.fabric.plugins.io.checkpoint_io.CheckpointIO",
    "lightning.fabric.plugins.precision.precision.Precision",
    "lightning.pytorch.callbacks.callback.Callback",
    "lightning.pytorch.core.datamodule.LightningDataModule",
    "lightning.pytorch.core.module.LightningModule",
    "lightning.pytorch.plugins.layer_sync.LayerSync",
    "lightning.pytorch.profilers.profiler.Profiler",
    "lightning.pytorch.strategies.strategy.Strategy",
    "torch.distributed.fsdp.api.CPUOffload",
    "torch.distributed.fsdp.api.MixedPrecision",
    "torch.nn.modules.module.Module",
    "torch.optim.lr_scheduler.LRScheduler",
    "torch.optim.optimizer.Optimizer",
}
"""Of other packages only these and what derives from them: of a class that is built, the building is what runs."""
_load_any = get_loader("yaml")
_named: set[str] = set()
"""Packages that `--allow` has named since this process began."""


def guard() -> None:
    """Let the parser import what `limits.now()` allows and nothing else; to be called before every parsing."""
    # the parser's lists only grow: what an earlier command of this process allowed is denied again
    _named.update(limits.now().allowed)
    set_parsing_settings(
        import_path_denylist=["*", *sorted(name for name in _named if not limits.permits(name))],
        import_path_allowlist=[*limits.PACKAGES, *sorted(name for name in _named if limits.permits(name))],
        # settings of any type stay what they are, even if they look like a class
        instantiate_subclass_spec_in_any=False,
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
    )
    set_loader("yaml", _load, (yaml.YAMLError,))
    # the words of other ranks stay in sys.argv; ours come without those that `limits.take` took
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended to run")


def _load(text: str) -> Any:
    """What jsonargparse reads from a text: a file's or a word's."""
    if len(text) > 40 or "&" in text or "!" in text:  # a short one cannot be a bomb
        check_bounds(text)
    try:
        content = _load_any(text)
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, LookupError) as error:
        raise yaml.YAMLError(f"a value cannot be read ({' '.join(str(error).split())[:120]})") from error
    check_strings(content)
    limits.check_class_paths(content, "settings")
    return content


def check_words(words: Sequence[str]) -> None:
    """Look through the files of `--config` and the class paths among words, then `guard` what is parsed of them.

    A refusal names its place, as the parser's own does not.

    Args:
        words: of one command.

    Raises:
        ConfigError: a file cannot be read or is a bomb, or a class path is not permitted.
    """
    for word, following in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        value = value if equals else following
        try:
            check_strings(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: {error}; give settings as plain values") from error
        if name in ("--config", "-c") and value and Path(value).is_file():
            limits.check_class_paths(read_yaml(Path(value)), value)
        elif name.startswith("--") and name.endswith(".class_path"):
            limits.check_class_path(value, name)
    guard()


def check_parsed(settings: Any, key: str = "") -> None:
    """Refuse settings that would run more than the building of a part; to be called before anything is built.

    Args:
        settings: what the parser made of them.
        key: where in them, for the message.

    Raises:
        ConfigError: a function, or a class that is neither ours, nor of a package that `--allow` names, nor a part.
    """
    if isinstance(settings, Namespace):
        settings = vars(settings)
    if isinstance(settings, dict):
        path = settings.get("class_path")
        if isinstance(path, str) and "." in path:
            _check_part(path, key)
        for name, value in settings.items():
            check_parsed(value, f"{key}.{name}" if key else str(name))
    elif isinstance(settings, list | tuple):
        for number, value in enumerate(settings):
            check_parsed(value, f"{key}[{number}]")
    elif callable(settings) and hasattr(settings, "__qualname__"):
        _check_part(f"{settings.__module__}.{settings.__qualname__}", key)


def _check_part(path: str, key: str) -> None:
    """Refuse what is no class of ours, of an allowed package, or derived from `PARTS`."""
    limits.check_class_path(path, key)
    if any(path == name or path.startswith(f"{name}.") for name in limits.now().allowed):
        return
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}: {path} is not there ({one_line(str(error))}); mend the class path") from error
    if isinstance(found, type) and path.startswith("frugalseg."):
        return
    bases = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__} if isinstance(found, type) else set()
    if not bases & PARTS:
        raise ConfigError(
            f"{key}: {path} is no class that settings can build; name a class of frugalseg, a callback, a logger, a"
            f" strategy or the like, or if you trust it add --allow {path}"
        )


def one_line(message: str) -> str:
    """The telling lines of a parser's message: which key, and why; not the listing of all types it tried.

    Args:
        message: many lines.
    """
    if denied := _DENIED.search(message):
        key = _KEY.search(message)
        return limits.refusal(denied[1], key[1] if key else "settings")
    lines = (line.strip(" -") for line in message.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))[:500]


def mendable(error: BaseException) -> BaseException:
    """What to raise in place of an error in building objects from settings.

    jsonargparse tells what a class raised in a ValueError of its own, many lines long, and keeps the original as cause.

    Args:
        error: what `ArgumentParser.instantiate` raised.

    Returns:
        A ConfigError for the ValueError or TypeError of a class that refuses its settings, else the original itself:
        it says what to mend, or it is a defect whose traceback is wanted.
    """
    original = error
    while original.__cause__ is not None and not isinstance(original, FrugalsegError):
        original = original.__cause__
    if isinstance(original, ValueError | TypeError):
        return ConfigError(f"{one_line(str(original))}; mend the setting, or see `frugalseg show --help`")
    return original
