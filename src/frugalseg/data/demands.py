"""What a recipe asks of a split."""

from collections.abc import Sequence

from frugalseg.data.base import Sample, first_five
from frugalseg.data.recipes import Recipe
from frugalseg.data.tags import check_tags
from frugalseg.errors import DatasetError


def demand(recipe: Recipe, role: str, samples: Sequence[Sample], where: str, mends: tuple[str, str]) -> None:
    """Refuse a split that lacks what the recipe needs, before the first batch.

    Args:
        recipe: what items will be made of it.
        role: "train", "val", "test" or "predict"; prediction needs no masks.
        samples: the split.
        where: the split and the folder, for messages.
        mends: how one comes by image-level labels and by masks, for messages.

    Raises:
        DatasetError: image-level labels or masks are missing, or training images show no class at all.
    """
    if recipe.needs_tags and (bare := [sample.id for sample in samples if sample.tags is None]):
        raise DatasetError(
            f"{where}: {len(bare)} of {len(samples)} ids have no image-level labels, first {first_five(bare)};"
            f" {mends[0]}, choose another split, or a recipe without tags"
        )
    if recipe.needs_tags and role == "train" and not recipe.allow_empty:
        check_tags(samples, where)
    if recipe.needs_masks and role != "predict" and (bare := [s.id for s in samples if s.mask is None]):
        raise DatasetError(
            f"{where}: {len(bare)} of {len(samples)} ids have no mask, first {first_five(bare)};"
            f" {mends[1]}, set data.pseudo_labels, or choose another split"
        )
