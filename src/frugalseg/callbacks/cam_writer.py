"""Write arrays such as class maps, one file per image, so that making them can stop anywhere and continue."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from frugalseg.batch import SkipsIds
from frugalseg.run import write_arrays


def skip_present(trainer: Trainer, present: set[str]) -> None:
    """Take ids that are on disk out of the predict loader.

    Args:
        trainer: whose data module is told.
        present: the ids; every rank must leave out the same, however far the others have written meanwhile, so those
            of rank 0 count.
    """
    present = trainer.strategy.broadcast(present)
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, SkipsIds):
        data.skip(present)


class CamWriter(Callback):
    """Store each prediction as `<folder>/<id>.npz`: plain arrays, no pickled objects.

    A file is written under a temporary name and renamed, so it is whole or absent; ids whose file is there are taken
    out of the loader before anything is decoded. Under DDP every rank writes its own images.

    Args:
        folder: name of the folder within the run's: `maps`, `edges`, ...
        compress: deflate the arrays; float16 maps shrink to about half.
    """

    def __init__(self, folder: str = "maps", compress: bool = True) -> None:
        self.folder, self.compress = folder, compress

    def target(self, trainer: Trainer) -> Path:
        """`folder` in the run folder, whose owner and settings are checked when it is claimed."""
        return Path(trainer.default_root_dir) / self.folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the data module which ids are on disk."""
        if stage != "predict":
            return
        target = self.target(trainer)
        target.mkdir(parents=True, exist_ok=True)
        skip_present(trainer, {path.stem for path in target.glob("*.npz") if not path.name.startswith(".")})

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one prediction: `outputs["arrays"]` under `outputs["id"]`."""
        write_arrays(self.target(trainer) / f"{outputs['id']}.npz", outputs["arrays"], self.compress)
