"""How many images an optimiser step takes: told once, compared with what the learning rate is meant for."""

import logging
from typing import Any

from lightning.pytorch import Trainer

log = logging.getLogger(__name__)


def effective_batch(trainer: Trainer) -> dict[str, int] | None:
    """Images of a step and what they are the product of.

    Args:
        trainer: with its data module.

    Returns:
        `images`, `per_process`, `processes`, `nodes` and `accumulated`; None where the data have no batch size.
    """
    per_process = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if not isinstance(per_process, int):
        return None
    accumulated = max(1, int(trainer.accumulate_grad_batches))
    return {
        "images": per_process * trainer.world_size * accumulated,
        "per_process": per_process,
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
        "accumulated": accumulated,
    }


def tell_batch(trainer: Trainer, settings: dict[str, Any]) -> dict[str, int] | None:
    """Say how many images a step takes where that is no setting, and warn where the rate is meant for another number.

    The learning rate stays as it is: who changes the number of devices decides on it.

    Args:
        trainer: of a fit.
        settings: `run.*`, with the number `batch` that the learning rate is meant for, or null.

    Returns:
        `effective_batch`.
    """
    found = effective_batch(trainer)
    if found is None:
        return None
    product = f"{found['per_process']} x {found['processes']} processes x {found['accumulated']} accumulated batches"
    if found["images"] != found["per_process"]:
        log.info(f"a step takes {found['images']} images: {product}")
    meant = settings.get("batch")
    if meant is not None and int(meant) != found["images"]:
        log.warning(
            f"run.batch: the learning rate is meant for steps of {meant} images, this fit's take {found['images']}"
            f" ({product}); the rate is left as it is: set data.batch_size, devices or accumulate_grad_batches, or"
            " choose a rate and set run.batch"
        )
    return found
