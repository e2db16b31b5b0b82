"""What every source of checkpoints tells: how to know it, what net it is of, and what its tensors are called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch import Tensor

BACKBONE = "backbone"
"""Word of `--task` for the backbone alone, as safetensors."""
Tensors = Mapping[str, Tensor]


def same_class(one: str, other: str) -> bool:
    """Whether two class paths mean one task: it may be named by its package or by its module."""
    return one.rsplit(".", 1)[-1] == other.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        source: name of a source; None for finding it out.
        task: short name or class path of the wanted task, or `backbone`; None takes what the file is of.
        classes: number of classes with the background, which the file must have; None takes its own.
        heads: attention heads, where the file does not tell.
        part: `teacher` or `student`, where there are both.
    """

    source: str | None = None
    task: str | None = None
    classes: int | None = None
    heads: int | None = None
    part: str = "teacher"


@dataclass(frozen=True)
class Settings:
    """What net a file is of.

    Attributes:
        task: class path, or None for a backbone alone.
        arguments: of the task; of a backbone what tells it apart.
        layout: how the authors put the net together, where they did so in several ways.
    """

    task: str | None
    arguments: Mapping[str, Any]
    layout: Any = None


@dataclass(frozen=True)
class Plan:
    """Names of one net on both sides.

    Attributes:
        settings: of the net.
        state: all tensors of ours; their values are what stays where the file has nothing.
        names: our name -> names under which the authors' net registers that tensor, all of which are written.
        accepted: our name -> further names that are read.
        own: our name without a counterpart -> why that does no harm.
        filler: names of the authors' net that ours does without -> value that is written where none was kept.
        left: what is left out on purpose besides the source's own list: regular expression and reason.
        partial: whether a part of the file's net is wanted alone, so that there is no way back to the whole.
        task: that `state` is of; None for a backbone.
    """

    settings: Settings
    state: Tensors
    names: Mapping[str, tuple[str, ...]]
    accepted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    filler: Tensors = field(default_factory=dict)
    left: tuple[tuple[str, str], ...] = ()
    partial: bool = False
    task: LightningModule | None = None

    def by_their_name(self) -> dict[str, str]:
        """Every name that is read -> our name."""
        return {
            theirs: ours for table in (self.accepted, self.names) for ours, all_ in table.items() for theirs in all_
        }


class Source(ABC):
    """One kind of released files.

    Attributes:
        name: word of `--from`.
        about: one line for `--help`.
        tasks: short name -> class path of the tasks that its files can become; `backbone` among them where they can
            become a backbone.
        wrapper: key under which its authors save the state dict.
        left: tensors that are left out on purpose: regular expression of the name, and why.
        kin: sources for whose files its own may be taken, where --from says which.
        lacks: what of its authors' net ours has not, so that files made from nets of ours are without it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    tasks: ClassVar[Mapping[str, str | None]]
    wrapper: ClassVar[tuple[str, ...]] = ()
    left: ClassVar[tuple[tuple[str, str], ...]] = ()
    kin: ClassVar[tuple[str, ...]] = ()
    lacks: ClassVar[str] = ""

    @abstractmethod
    def sign(self, tensors: Tensors, wrapper: tuple[str, ...]) -> str | None:
        """What shows that tensors are of this source, in words; None where nothing does."""

    @abstractmethod
    def settings(self, tensors: Tensors, request: Request, task: str | None) -> Settings:
        """The net that the authors' tensors are of.

        Args:
            tensors: by their names.
            request: what the user asks for besides.
            task: key of `tasks`; None takes what the file is of.

        Raises:
            CheckpointError: the tensors contradict each other or the request.
        """

    @abstractmethod
    def plan(self, settings: Settings) -> Plan:
        """Names of a net on both sides."""

    @abstractmethod
    def default(self) -> Settings:
        """The released net, for a table without a file."""

    def of_ours(self, task: str | None, arguments: Mapping[str, Any], tensors: Tensors) -> Settings:
        """Settings of one of our files.

        Args:
            task: class path, or None.
            arguments: its hyper-parameters.
            tensors: ours.
        """
        if task is None:
            return self.settings(tensors, Request(), None)
        # the name alone is taken from the file: what is imported is said here
        own = next(path for path in self.tasks.values() if path is not None and same_class(path, task))
        return Settings(own, dict(arguments), self.default().layout)
