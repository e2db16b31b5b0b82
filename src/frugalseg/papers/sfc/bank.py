"""Image bank: one image per class, from which every step draws evenly over classes (sfc.md section 3)."""

from typing import Any

import torch
from torch import Tensor, nn


class ImageBank(nn.Module):
    """Slots for one image per class, kept in checkpoints.

    A slot holds the crop, its full label vector and the box of its valid pixels; the reference stores full-size masks,
    which box and labels determine. Empty slots are all-zero images without a class and with an empty box.

    Args:
        num_classes: C foreground classes.
    """

    image: Tensor
    tags: Tensor
    box: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # the size of the crops is known with the first batch
        self.register_buffer("image", torch.zeros(0))
        self.register_buffer("tags", torch.zeros(num_classes, num_classes))
        self.register_buffer("box", torch.zeros(num_classes, 4, dtype=torch.int64))

    @torch.no_grad()
    def update(self, image: Tensor, tags: Tensor, box: Tensor) -> None:
        """Write each image into the slot of every class it contains; later images of the batch overwrite earlier ones.

        Crops of another size than before empty all slots first.

        Args:
            image: (B, 3, S, S).
            tags: (B, C) 0/1.
            box: (B, 4).
        """
        if self.image.shape[1:] != image.shape[1:]:
            self.image = image.new_zeros(self.num_classes, *image.shape[1:])
            self.tags, self.box = torch.zeros_like(self.tags), torch.zeros_like(self.box)
        order = torch.arange(1, len(image) + 1, device=image.device)[:, None]
        last = (tags.gt(0) * order).amax(dim=0)
        source, filled = (last - 1).clamp_min(0), last > 0
        # whole-slot selection instead of boolean indexing, which would wait for the device
        for name, fresh in (("image", image), ("tags", tags), ("box", box)):
            slots = getattr(self, name)
            keep = filled.view(-1, *[1] * (slots.ndim - 1))
            setattr(self, name, torch.where(keep, fresh[source].to(slots.dtype), slots))

    def draw(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image, tags and box of the given slots.

        Args:
            slots: (n,) class ids, 0-based without background.

        Returns:
            (n, 3, S, S), (n, C) and (n, 4).
        """
        slots = slots.to(self.tags.device, non_blocking=True)
        return self.image[slots], self.tags[slots], self.box[slots]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the crop size from the checkpoint before the values are copied."""
        saved = state_dict.get(prefix + "image")
        if isinstance(saved, Tensor) and saved.shape != self.image.shape:
            self.image = self.image.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
