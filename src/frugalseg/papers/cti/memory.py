"""Class memory of C-CTI: the newest class tokens and their mean (cti.md section 4.4)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.errors import CheckpointError


class ClassMemory(nn.Module):
    """The newest `size` tokens of every class, as one ring of slots per class; part of checkpoints.

    Args:
        num_classes: C foreground classes.
        dim: D.
        size: entries per class.
    """

    values: Tensor
    count: Tensor

    def __init__(self, num_classes: int, dim: int, size: int = 30) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(num_classes, size, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def size(self) -> int:
        """Entries that a class can hold."""
        return self.values.shape[1]

    @property
    def filled(self) -> Tensor:
        """(C,) entries that each class holds."""
        return self.count.clamp(max=self.size)

    def is_full(self) -> bool:
        """Whether every class holds `size` entries; waits for the device."""
        return bool((self.count >= self.size).all())

    @torch.no_grad()
    def update(self, tokens: Tensor, tags: Tensor) -> None:
        """Store the layer-normed token of every class in every image, image by image.

        Index arithmetic in place of a loop: no waiting for the device, whatever the number of labels.

        Args:
            tokens: (B, C, D) class tokens, in the order of the global batch.
            tags: (B, C) 0/1.
        """
        present = tags.gt(0)
        # number of the entry within its class, counted over the memory's life
        ordinal = self.count + present.long().cumsum(dim=0) - 1
        self.count += present.long().sum(dim=0)
        # a batch may hold more images of a class than there are slots: the newest stay
        keep = present & (ordinal >= self.count - self.size)
        classes = torch.arange(len(self.count), device=tokens.device)
        slot = torch.where(keep, classes * self.size + ordinal % self.size, self.values.shape[0] * self.size)
        entries = F.layer_norm(tokens.detach().to(self.values.dtype), tokens.shape[-1:])
        # one row more takes what is not kept
        rows = torch.cat([self.values.flatten(0, 1), self.values.new_zeros(1, entries.shape[-1])])
        rows[slot.flatten()] = entries.flatten(0, 1)
        self.values.copy_(rows[:-1].view_as(self.values))

    def prototypes(self) -> Tensor:
        """(C, D) mean of each class's entries; 0 for a class without entries."""
        # empty slots hold zeros
        return self.values.sum(dim=1) / self.filled.clamp(min=1)[:, None]

    def infusion(self, tokens: Tensor, tags: Tensor) -> Tensor:
        """What C-CTI infuses: the prototype of a present class, an absent class's own token.

        Args:
            tokens: (B, C, D).
            tags: (B, C) 0/1.

        Returns:
            (B, C, D) without gradient.
        """
        own = tokens.detach()
        return torch.where(tags.gt(0)[:, :, None], self.prototypes().to(own.dtype), own)

    def entries(self, index: int) -> Tensor:
        """(n, D) entries of one class, oldest first."""
        total = int(self.count[index])
        return self.values[index, torch.arange(max(0, total - self.size), total) % self.size]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse the memory of another net in words."""
        saved = state_dict.get(prefix + "values")
        if isinstance(saved, Tensor) and saved.shape != self.values.shape:
            theirs, own = (f"{c} classes x {s} entries of width {d}" for c, s, d in (saved.shape, self.values.shape))
            raise CheckpointError(
                f"the checkpoint's class memory holds {theirs}, but the settings say {own}: "
                "give the checkpoint of these settings, or begin a new fit"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def paired_tokens(tokens: Tensor, tags: Tensor) -> Tensor:
    """Tokens of a partner image in place of prototypes: the paper's pairing, as far as it is known (cti.md section 12).

    The partner for a class is the next image of the global batch, going round, that shows the class too; without one,
    and for absent classes, the image's own token stays.

    Args:
        tokens: (B, C, D).
        tags: (B, C) 0/1.

    Returns:
        (B, C, D) without gradient.
    """
    batch = len(tokens)
    images = torch.arange(batch, device=tokens.device)
    # steps from image b to image a, 1..B: B is the image itself
    steps = (images[None, :] - images[:, None] - 1) % batch + 1
    reach = torch.where(tags.gt(0)[None], steps[:, :, None], batch).amin(dim=1)
    partner = torch.where(tags.gt(0), (images[:, None] + reach) % batch, images[:, None])
    return tokens.detach().gather(0, partner[:, :, None].expand_as(tokens))
