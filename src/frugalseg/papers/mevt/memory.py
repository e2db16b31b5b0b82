"""What losses remember from step to step: centres of the teacher's outputs, and queues. Equal on all ranks."""

from typing import Any

import torch
from torch import Tensor, nn

from frugalseg.papers.mevt.heads import unit


class Fifo(nn.Module):
    """The latest rows, oldest first.

    Args:
        size: how many are kept.
        width: of a row.
        full: begin with random unit vectors, as a queue of negatives does, instead of with nothing.
    """

    rows: Tensor
    filled: Tensor

    def __init__(self, size: int, width: int, full: bool = False) -> None:
        super().__init__()
        self.register_buffer("rows", unit(torch.randn(size, width)) if full else torch.zeros(size, width))
        self.register_buffer("filled", torch.tensor(size if full else 0))
        self._is_full = False

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._is_full = False  # what has been loaded may be less full

    def latest(self) -> Tensor:
        """(n, width) rows that there are."""
        if self._is_full:
            return self.rows
        filled = int(self.filled)
        # once full it stays full until a checkpoint is loaded: the device is asked no more
        self._is_full = filled == len(self.rows)
        return self.rows[len(self.rows) - filled :]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Take rows in; the oldest ones give way. Of more than there is room for, evenly spread ones are kept.

        Args:
            rows: (n, width).
        """
        size = len(self.rows)
        if len(rows) > size:
            rows = rows[torch.linspace(0, len(rows) - 1, size, device=rows.device).long()]
        self.rows = torch.cat([self.rows[len(rows) :], rows.to(self.rows)])
        self.filled = (self.filled + len(rows)).clamp(max=size)
