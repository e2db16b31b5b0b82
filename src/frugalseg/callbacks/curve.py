"""`metrics.csv`, which goes on where a fit goes on, and loses nothing when the process is killed."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from frugalseg.errors import RunFolderError
from frugalseg.run import write_text


class Curve(ExperimentWriter):
    """Lightning's writer, but that it deletes no older file: rows are added to those that are there.

    A row that is equal to the one before it is left out: `checkpoints.LastCheckpoint` writes one early.

    Args:
        folder: of `metrics.csv`; what is in it must be whole, see `trim`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(log_dir=str(folder))
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = list(next(csv.reader(file), []))
        self._newest = ""

    def _check_log_dir_exists(self) -> None:
        """Look at nothing: the older file is ours."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Note a row."""
        super().log_metrics(metrics_dict, step)
        row = repr(sorted(self.metrics[-1].items()))  # as a text: no NaN equals another
        if row == self._newest:
            self.metrics.pop()
        self._newest = row

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            _write(path, fieldnames, list(csv.DictReader(file)))


def trim(path: Path, newest: int | None) -> None:
    """Take from `metrics.csv` what a resumed fit writes again, and a row of which a killed process wrote half.

    Args:
        path: the file; nothing happens where there is none.
        newest: last step that is kept; None for all.

    Raises:
        RunFolderError: the file cannot be read.
    """
    if not path.is_file():
        return
    try:
        text = path.read_text()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        rows = list(reader)
        kept = [row for row in rows if newest is None or int(row["step"]) <= newest]
    except (OSError, csv.Error, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        reason = f"no step: {error}" if isinstance(error, KeyError | TypeError) else str(error)
        raise RunFolderError(f"{path}: not readable ({reason}); delete it to go on without the old rows") from error
    if not kept:
        path.unlink()
    elif len(kept) < len(rows) or not text.endswith("\n"):
        _write(path, list(reader.fieldnames or []), kept)


def _write(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, names)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
