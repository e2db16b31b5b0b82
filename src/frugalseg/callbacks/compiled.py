"""`torch.compile` of what a training step spends its time in."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from frugalseg.callbacks.repeated import is_repeated

FORWARD = ("forward",)


class Compile(Callback):
    """Compile the nets of a task for training; all else runs as it is.

    Training has images of a few fixed sizes, each of which is compiled once. Validation has images of any size, and
    later commands run a few times only: they run without compiled code. Names in checkpoints do not change.

    What is hot a net says itself, in its attribute `hot`: names of methods, also of its parts (`heads.score`); without
    it, its forward pass. Losses over points whose number is found out in the step are left out for their sizes' sake.

    Args:
        backend: of `torch.compile`; `inductor` needs a C++ compiler on a CPU and Triton on a GPU.
        mode: of `torch.compile`: null, `reduce-overhead` (CUDA graphs) or `max-autotune`.
        fullgraph: end with an error where a net cannot be compiled in one piece, instead of running it in several.
    """

    def __init__(self, backend: str = "inductor", mode: str | None = None, fullgraph: bool = False) -> None:
        self.backend, self.mode, self.fullgraph = backend, mode, fullgraph
        self._compiled: list[tuple[nn.Module, str]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put compiled methods in the place of the hot ones; each is compiled when it is first called."""
        if stage != "fit" or is_repeated(trainer, self):
            return
        for owner, name in hot_methods(pl_module):
            compiled = torch.compile(
                getattr(owner, name),
                backend=self.backend,
                mode=self.mode,
                fullgraph=self.fullgraph,
                dynamic=False,
            )
            # on the instance, in front of the class's own
            setattr(owner, name, compiled)
            self._compiled.append((owner, name))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let CUDA graphs use the memory of the last step again."""
        if self.mode is not None:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run what is compiled as it was written."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with compiled code."""
        torch.compiler.set_stance("default")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the nets their own methods back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._restore()

    def _restore(self) -> None:
        torch.compiler.set_stance("default")
        while self._compiled:
            delattr(*self._compiled.pop())


def hot_methods(task: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Modules of a task and the names of their methods that a training step spends its time in.

    Args:
        task: its children with parameters are its nets.
    """
    for net in task.children():
        if next(net.parameters(), None) is None:
            continue
        for path in getattr(net, "hot", FORWARD):
            owner, _, name = str(path).rpartition(".")
            yield net.get_submodule(owner), name
