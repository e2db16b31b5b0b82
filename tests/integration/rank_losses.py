"""A callback for tests: every rank writes the terms of every step to a file of its own."""

import json
from pathlib import Path

from lightning.pytorch import Callback


class RankLosses(Callback):
    """Write `<folder>/rank<r>.json`: a list of {term: value}, one per step."""

    def __init__(self, folder: str) -> None:
        self.folder, self.rows = Path(folder), []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        terms = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/loss_")}
        self.rows.append(terms | {"ids": list(batch["id"])})

    def on_train_end(self, trainer, pl_module):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(self.rows))
