"""From a source to a net with its weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from frugalseg.errors import CheckpointError, ConfigError, FrugalsegError
from frugalseg.predictor.kinds import TASKS
from frugalseg.predictor.source import NetSource


def build_net(source: NetSource) -> nn.Module:
    """The net of a source with its weights, in evaluation mode, without gradients.

    Args:
        source: of `read_source`.

    Raises:
        CheckpointError: the net cannot be built, or the tensors are not its.
    """
    build, owner = TASKS[source.task].build, source.task.rsplit(".", 1)[-1]
    check_sizes(lambda: build(source.settings), source.tensors, str(source.path), owner)
    try:
        net = build(source.settings)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error
    except (FrugalsegError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, MemoryError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{source.path}: its net cannot be built ({line}); give a whole checkpoint") from error
    load_exactly(net, source.tensors, str(source.path), owner)
    if (settle := getattr(net, "settle", None)) is not None:
        settle()
    return net.eval().requires_grad_(False)


def check_sizes(build: Callable[[], nn.Module], tensors: Any, place: str, owner: str) -> None:
    """Compare a net with the tensors of a file before memory is taken for it: its sizes are what that file says.

    Args:
        build: gives the net; where it cannot without memory, nothing is compared.
        tensors: by name.
        place: file or folder, for messages.
        owner: what the net is, for messages.

    Raises:
        CheckpointError: see `load_exactly`.
    """
    try:
        with torch.device("meta"):
            net = build()
    except Exception:  # a net that computes while it is built, or an error that the real one meets again
        return
    _compared(net, tensors, place, owner)


def load_exactly(net: nn.Module, tensors: Any, place: str, owner: str) -> None:
    """Load tensors into a net that has just these.

    Args:
        net: whose names they have.
        tensors: by name.
        place: file or folder, for messages.
        owner: what the net is, for messages.

    Raises:
        CheckpointError: a tensor is missing, is too many, or has another shape.
    """
    net.load_state_dict(_compared(net, tensors, place, owner))


def _compared(net: nn.Module, tensors: Any, place: str, owner: str) -> dict[str, Tensor]:
    """Tensors of a file, if they are just those of a net."""
    found: dict[str, Tensor] = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    adapt = getattr(net, "adapt", None)
    if adapt is not None:
        adapt(found)
    wanted = {name: tensor.shape for name, tensor in net.state_dict().items()}
    shapes = {name: tensor.shape for name, tensor in found.items()}
    if wrong := sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)):
        told = [tuple(known[wrong[0]]) if wrong[0] in known else "not there" for known in (shapes, wanted)]
        raise CheckpointError(
            f"{place}: {len(wrong)} tensors are not those of {owner}: {wrong[0]} is {told[0]}, in the net {told[1]}; "
            "give the checkpoint of this very net"
        )
    return found


def move(net: nn.Module, device: str | torch.device) -> torch.device:
    """Bring a net to a device.

    Args:
        net: changed in place.
        device: as torch names it.

    Raises:
        ConfigError: no such device.
    """
    try:
        place = torch.device(device)
        net.to(place)
    except (RuntimeError, AssertionError) as error:
        line = (str(error).splitlines() or ["unknown"])[0][:160]
        raise ConfigError(f"device {device!r}: {line}; give cpu, or cuda where there is a GPU") from error
    return place
