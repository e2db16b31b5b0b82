"""The methods of pretraining by name: what a loss set must offer, and how it is built from settings."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import nn

from frugalseg.batch import ViewsBatch
from frugalseg.errors import ConfigError
from frugalseg.nn.ema import EMATeacher
from frugalseg.papers.mevt.distillation import SelfDistillation
from frugalseg.papers.mevt.pairs import DenseCL, PairRule, PixPro
from frugalseg.papers.mevt.step import Rule
from frugalseg.papers.mevt.student import HeadSizes
from frugalseg.papers.mevt.terms import Moment, Terms


class Method(Protocol):
    """A set of losses with what it remembers; a module, so that checkpoints hold its memory."""

    sizes: HeadSizes

    def student(self, backbone: nn.Module) -> nn.Module:
        """A backbone with this method's heads; the teacher is built in the same way."""
        ...

    def prototypes(self, student: nn.Module) -> list[nn.Parameter]:
        """Parameters that are held still in the first steps."""
        ...

    def terms(self, student: nn.Module, teacher: EMATeacher, batch: ViewsBatch, moment: Moment) -> Terms:
        """Losses of a batch; nothing is updated."""
        ...

    def update(self, terms: Terms, moment: Moment) -> None:
        """Take in what is remembered for the next step."""
        ...


def create_method(name: str, rule: Mapping[str, Any], heads: Mapping[str, Any]) -> Method:
    """Build a method.

    Args:
        name: `mevt`, `dino`, `densecl` or `pixpro`.
        rule: arguments of `Rule` or, for the last two, of `PairRule`.
        heads: arguments of `HeadSizes`.

    Raises:
        ConfigError: no such method or argument.
    """
    pair = name in ("densecl", "pixpro")
    kind: Any = PairRule if pair else Rule
    try:
        # YAML has lists where tuples are meant
        made = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in rule.items()})
        sizes = HeadSizes(**heads)
    except TypeError as error:
        where = "pairs.PairRule" if pair else "step.Rule"
        raise ConfigError(
            f"model.init_args.rule or heads: {error}; see papers.mevt.{where}, papers.mevt.student.HeadSizes"
        ) from None
    for key, default in kind._field_defaults.items():
        value = getattr(made, key)
        if isinstance(default, tuple) and not (isinstance(value, tuple) and len(value) == len(default)):
            raise ConfigError(f"model.init_args.rule.{key} is {value!r}; it takes {len(default)} values")
    wrong = [key for key in ("eps", "iterations") if getattr(made, key, 1) <= 0] + ["queue"] * (made.queue < 0)
    if wrong:
        value = getattr(made, wrong[0])
        raise ConfigError(f"model.init_args.rule.{wrong[0]} is {value}; set it above 0, or the queue to 0 for none")
    if name == "dino":
        if rule.get("weights") is not None:
            raise ConfigError("model.init_args.rule.weights: method dino is the global term alone; leave them out")
        made = made._replace(weights=(1.0, 0.0, 0.0))
    methods = {"mevt": SelfDistillation, "dino": SelfDistillation, "densecl": DenseCL, "pixpro": PixPro}
    if name not in methods:
        raise ConfigError(f"model.init_args.method is {name!r}; set it to one of {', '.join(methods)}")
    return cast(Method, methods[name](made, sizes))
