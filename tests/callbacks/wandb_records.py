"""Read back what an offline W&B run recorded: the records of its `.wandb` file.

The file is a LevelDB log behind seven bytes of W&B's own: blocks of 32 KiB, chunks with a header of checksum, length
and kind (whole, first, middle, last), which do not cross blocks.
"""

import json
import struct
import time
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7


def payloads(content: bytes):
    """Payloads of all records, in order."""
    assert content[:4] in (b"", b":W&B")
    parts, at = [], HEADER
    while at + HEADER <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if kind == 0:
            at += left
            continue
        if at + HEADER + length > len(content):
            return  # still being written
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def records_of(folder: Path, patience: float = 20.0) -> list[wandb_internal_pb2.Record]:
    """Records of one offline run's folder, `.../wandb/offline-run-*`, once W&B's service has written the last of them."""
    (file,) = folder.glob("*.wandb")
    until = time.monotonic() + patience
    while True:
        records = [wandb_internal_pb2.Record.FromString(payload) for payload in payloads(file.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.monotonic() < until, f"{file}: the run has not ended"
        time.sleep(0.05)


class Recorded:
    """What one offline run recorded, in plain Python."""

    def __init__(self, folder: Path) -> None:
        records = records_of(folder)
        kinds = [record.WhichOneof("record_type") for record in records]
        (self.run,) = [r.run for r, kind in zip(records, kinds, strict=True) if kind == "run"]
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}
        for record, kind in zip(records, kinds, strict=True):
            if kind == "config":
                self.config |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.config.update
                }
        self.history = [self._row(r.history.item) for r, kind in zip(records, kinds, strict=True) if kind == "history"]
        self.metrics = [r.metric for r, kind in zip(records, kinds, strict=True) if kind == "metric"]
        self.artifacts = [r.artifact for r, kind in zip(records, kinds, strict=True) if kind == "artifact"]
        self.exit_codes = [r.exit.exit_code for r, kind in zip(records, kinds, strict=True) if kind == "exit"]
        self.kinds = set(kinds)

    @staticmethod
    def _row(items) -> dict:
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    @property
    def keys(self) -> set[str]:
        """Keys of the history, nested ones joined by dots."""
        return {key for row in self.history for key in row}

    def manifests(self, used: bool) -> dict[str, tuple[str, str]]:
        """Artifacts that were used or logged: name -> (type, digest)."""
        return {a.name: (a.type, a.digest) for a in self.artifacts if a.use_after_commit == used}
