"""Write predicted masks as palette PNGs, one file per image, so that making them can stop anywhere and continue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from frugalseg.batch import WritesMasks
from frugalseg.callbacks.cam_writer import skip_present
from frugalseg.errors import ConfigError
from frugalseg.run import read_json


class MaskWriter(Callback):
    """Store `outputs["masks"][folder]` (H, W) as `<folder>/<id>.png` for each folder of a prediction.

    Ids are class ids and colours the benchmark's, as the VOC test server wants them. Each file says in its header which
    run made it (`frugalseg.data.io.made_by`).

    Args:
        folders: names of the masks that the task predicts; an id is left out when all of them are there.
    """

    def __init__(self, folders: Sequence[str] = ("masks",)) -> None:
        self.folders = tuple(folders)
        self._run = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the data module which ids are on disk.

        Raises:
            ConfigError: the data module cannot write masks.
        """
        if stage != "predict":
            return
        if not isinstance(getattr(trainer, "datamodule", None), WritesMasks):
            raise ConfigError("MaskWriter needs a data module of frugalseg.data, which knows the palette")
        root = Path(trainer.default_root_dir)
        record = root / "provenance.json"
        self._run = str(read_json(record).get("digest", "")) if record.is_file() else ""
        found = [{path.stem for path in (root / f).glob("*.png") if path.name[0] != "."} for f in self.folders]
        skip_present(trainer, set.intersection(*found))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the masks of one image.

        Raises:
            ConfigError: the task does not predict a mask that is asked for.
        """
        data: Any = getattr(trainer, "datamodule", None)
        for folder in self.folders:
            if folder not in outputs["masks"]:
                made = ", ".join(outputs["masks"])
                raise ConfigError(f"MaskWriter.folders: {folder} is not predicted, only {made}; mend the setting")
            ids = outputs["masks"][folder].cpu().numpy().astype(np.uint8)
            data.write_mask(Path(trainer.default_root_dir) / folder / f"{outputs['id']}.png", ids, self._run)
