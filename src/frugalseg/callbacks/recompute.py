"""Activation checkpointing: blocks keep their inputs alone, and work out the rest again on the way back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from frugalseg.callbacks.repeated import is_repeated


class Recompute(Callback):
    """Let every block that learns forget its activations in training: less memory, about a third more time.

    Gradients are those of a plain step: random numbers are drawn again from the same state, and the running statistics
    of batch normalisation are updated once. Together with `Compile`, blocks that update such statistics keep their
    activations.
    """

    def __init__(self) -> None:
        self._wrapped: list[nn.Module] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put a forgetful forward pass in the place of each block's own."""
        if stage != "fit" or is_repeated(trainer, self):
            return
        for block in blocks(pl_module):
            block.forward = _forgetful(block)
            self._wrapped.append(block)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the blocks their own forward passes back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._restore()

    def _restore(self) -> None:
        while self._wrapped:
            del self._wrapped.pop().forward


def blocks(net: nn.Module) -> list[nn.Module]:
    """The repeated parts of a net: members of its lists and sequences that have parts and learn, the innermost ones.

    These are the residual blocks of ResNets, the blocks of transformers, and the levels and branches of heads.

    Args:
        net: any.
    """
    members = {
        member: None
        for several in net.modules()
        if isinstance(several, nn.Sequential | nn.ModuleList)
        for member in several
        if next(member.children(), None) is not None and any(p.requires_grad for p in member.parameters())
    }
    return [each for each in members if not any(part in members for part in each.modules() if part is not each)]


def _forgetful(block: nn.Module) -> Callable[..., Any]:
    """The forward pass of a block that keeps nothing but its inputs."""
    plain: Callable[..., Any] = block.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        # looked for here, as `trainer.sync_batchnorm` puts others in their places after `setup`
        norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
        counting = [norm for norm in norms if norm.training and norm.track_running_stats]
        if not torch.is_grad_enabled() or (counting and torch.compiler.is_compiling()):
            return plain(*inputs, **named)
        if counting:
            named["context_fn"] = partial(_contexts, counting)  # only then, as compiled code takes none
        return checkpoint(plain, *inputs, use_reentrant=False, **named)

    return forward


def _contexts(norms: Sequence[_BatchNorm]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first pass, and of the one on the way back."""
    return nullcontext(), _still(norms)


@contextmanager
def _still(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let batch normalisation count nothing: its statistics have seen this batch."""
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, tracked in kept:
        # a counter that nobody reads, since `nn.SyncBatchNorm` refuses to work without any
        norm.momentum, norm.num_batches_tracked = 0.0, None if tracked is None else torch.zeros_like(tracked)
    try:
        yield
    finally:
        for norm, momentum, tracked in kept:
            norm.momentum, norm.num_batches_tracked = momentum, tracked
