"""What a finished stage tells W&B: its inputs and outputs, its scores, its tables by class and its pictures."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalseg.callbacks.wandb_artifacts import log_lineage, makers, paths_in
from frugalseg.callbacks.wandb_names import read_facts
from frugalseg.callbacks.wandb_runs import RECORD, close_run, open_run, wandb_mode
from frugalseg.callbacks.wandb_tables import ClassTable, class_tables, counted_tables, scalars
from frugalseg.errors import FrugalsegError
from frugalseg.run import read_json

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

_PICTURES = 24
"""Most pictures of one stage."""


def finish_trained(loggers: Iterable[Any], folder: Path, settings: Mapping[str, Any], class_names: Any) -> None:
    """Complete the run of a stage that a Trainer ran, and end it.

    Args:
        loggers: of the Trainer; nothing is done unless W&B's is among them.
        folder: of the stage, finished.
        settings: resolved; files that they name are the stage's inputs.
        class_names: of the data, or None.
    """
    from lightning.pytorch.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            tables = class_tables(read_json(folder / "metrics.json"))
            tables |= counted_tables(folder / "confusion.npz", class_names or ())
            # settings of the trainer and of the run itself name no inputs
            named = {key: settings.get(key) for key in ("ckpt_path", "model", "data")}
            _complete(logger.experiment, folder, paths_in(named), tables)


def log_stage(folder: Path, inputs: Sequence[Path]) -> None:
    """Log a finished stage of a verb that has no Trainer to a W&B run of its own, where its inputs were logged.

    So an experiment is followed from its first stage to its last, and a verb that is used alone stays quick.

    Args:
        folder: of the stage, finished.
        inputs: files and folders that it read.
    A tracker that cannot be reached, or is wrongly asked for, is told of: the stage has finished all the same.
    """
    try:
        followed = any((maker / RECORD).is_file() for maker in [folder, *makers(inputs)])
        if not followed or wandb_mode() == "disabled" or (run := open_run(folder)) is None:
            return
    except FrugalsegError as error:
        log.warning("W&B: %s; the results are in %s", error, folder)
        return
    metrics = read_json(folder / "metrics.json")
    run.config.update(read_facts(folder).details, allow_val_change=True)  # type: ignore[no-untyped-call]
    _complete(run, folder, inputs, class_tables(metrics), {**scalars(metrics), **_drawn(folder)})


def _complete(
    run: "Run",
    folder: Path,
    inputs: Iterable[Path],
    tables: Mapping[str, ClassTable],
    others: Mapping[str, Any] | None = None,
) -> None:
    """One row of tables and other values, and lineage. A tracker that fails says so, and takes no result with it."""
    import wandb

    row = dict(others or {})
    try:
        with _staged_in(folder / "wandb" / "staged"):
            row |= {key: wandb.Table(columns=[*t.columns], data=t.rows) for key, t in tables.items()}
            if row:
                run.log(row)
        log_lineage(run, folder, inputs)
    except (wandb.errors.Error, FrugalsegError, OSError) as error:
        log.warning("W&B: %s; the results are in %s", " ".join(str(error).split())[:160], folder)
    close_run()


def _drawn(folder: Path) -> dict[str, Any]:
    """Figures and pictures that a verb drew, by `<folder>/<name>`."""
    import wandb

    files = [path for part in ("figures", "pictures") for path in sorted((folder / part).glob("*.png"))]
    return {f"{path.parent.name}/{path.stem}": wandb.Image(str(path)) for path in files[:_PICTURES]}


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Keep copies of tables, until they are sent, in the run folder: W&B would put them in the user's home."""
    given = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = given or str(folder.absolute())
    try:
        yield
    finally:
        if given is None:
            del os.environ["WANDB_DATA_DIR"]
