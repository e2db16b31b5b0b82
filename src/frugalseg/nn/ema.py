"""A teacher whose parameters are the exponential moving average of a student's."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class EMATeacher(nn.Module):
    """Moving average of a student, without gradients.

    Running statistics of BatchNorm are left to the teacher itself, which is to run in training mode (mevt.md c.1);
    `update` can copy all buffers instead. Mode and dropout are the wrapped module's own: hand in one without DropPath.

    Args:
        student: where the first parameters and buffers come from.
        module: of the same parameters as the student, filled with them here; None for a copy of the student.

    Raises:
        ValueError: parameters of `module` have other names or shapes than the student's.
    """

    def __init__(self, student: nn.Module, module: nn.Module | None = None) -> None:
        super().__init__()
        self.module = deepcopy(student) if module is None else module
        if _shapes(self.module) != _shapes(student):
            raise ValueError("a teacher has the parameters of its student: names or shapes differ")
        self.module.load_state_dict(student.state_dict())
        self.module.requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the wrapped module makes of its input, without a gradient."""
        return self.module(*inputs, **options)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float, buffers: bool = False) -> None:
        """Set each parameter to momentum * teacher + (1 - momentum) * student.

        Args:
            student: the one handed in at the beginning, after its optimiser step.
            momentum: 1 leaves the teacher as it is, 0 copies the student; both exactly.
            buffers: copy the student's buffers too.

        Raises:
            ValueError: the momentum is outside 0..1.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum of a teacher lies in 0..1, got {momentum}")
        theirs = dict(student.named_parameters())
        own: list[Tensor] = []
        new: list[Tensor] = []
        for name, parameter in self.module.named_parameters():
            own.append(parameter)
            new.append(theirs[name])
        # lerp is exact at both ends, which momentum * a + (1 - momentum) * b is not
        torch._foreach_lerp_(own, new, 1.0 - momentum)
        if buffers:
            given = dict(student.named_buffers())
            for name, buffer in self.module.named_buffers():
                buffer.copy_(given[name])


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}
