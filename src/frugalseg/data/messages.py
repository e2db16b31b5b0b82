"""What the processes of one command tell each other, and whether they are still there."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from frugalseg.data.meeting import Place, connect, patience
from frugalseg.errors import FrugalsegError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

BEAT = 1.0
"""Seconds between signs of life."""
POLL = 0.05
"""Seconds between two looks at what others have said."""


class LostError(FrugalsegError):
    """Rank 0 has gone, or never came."""


class Messages:
    """Notes in a store that all processes see; from now on this one gives a sign of life each second.

    Args:
        place: of this process.

    Raises:
        FrugalsegError: rank 0 does not answer, or its port is taken.
    """

    def __init__(self, place: Place) -> None:
        self.place, self._store = place, connect(place)
        self._stop, self._seen = threading.Event(), dict[int, tuple[bytes, float]]()
        self.write(f"who/{place.rank}", f"{socket.gethostname()}, process {os.getpid()}")
        self.write(f"beat/{place.rank}", 0)
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        """Give a sign of life until the end."""
        beats = 0
        while not self._stop.wait(BEAT):
            beats += 1
            try:
                self.write(f"beat/{self.place.rank}", beats)
            except LostError:
                return

    def close(self) -> None:
        """Give no more signs of life."""
        self._stop.set()

    def write(self, key: str, value: Any) -> None:
        """Leave a note that is fit for JSON."""
        self._ask(lambda store: store.set(key, json.dumps(value, default=str)))

    def read(self, key: str) -> Any:
        """Read a note that is there."""
        return json.loads(self._raw(key))

    def has(self, key: str) -> bool:
        """Whether a note is there."""
        return bool(self._ask(lambda store: store.check([key])))

    def next(self, key: str) -> int:
        """Draw a number: 0, 1, 2, ..., each once over all processes."""
        return int(self._ask(lambda store: store.add(key, 1))) - 1

    def has_come(self, rank: int) -> bool:
        """Whether a process has ever given a sign of life."""
        return self.has(f"beat/{rank}")

    def is_silent(self, rank: int) -> bool:
        """Whether a process that has come gave no sign of life for too long, by our own clock."""
        beat, now = self._raw(f"beat/{rank}"), time.monotonic()
        if self._seen.get(rank, (b"", 0.0))[0] != beat:
            self._seen[rank] = beat, now
        return now - self._seen[rank][1] > patience()

    def of_rank_0(self, key: str, limit: float = 0.0) -> Any:
        """Wait for a note of rank 0.

        Args:
            key: of the note.
            limit: seconds in which it must come, if it has not yet.

        Raises:
            FrugalsegError: it ends without that note; says why.
            LostError: it does not come, or has gone.
        """
        deadline = time.monotonic() + limit
        while not self.has(key):
            if self.has("end"):
                if self.has(key):  # both were written since we asked; the end may itself be what is waited for
                    break
                raise FrugalsegError(f"{self._ours()}: rank 0 stopped: {self.read('end')['error']}")
            here = self.has_come(0)
            if (here and self.is_silent(0)) or (not here and time.monotonic() > deadline):
                raise LostError(self._lost())
            time.sleep(POLL)
        return self.read(key)

    def _raw(self, key: str) -> bytes:
        return bytes(self._ask(lambda store: store.get(key)))

    def _ask(self, question: Callable[["Store"], Any]) -> Any:
        """Ask the store, which goes with rank 0 or with torchrun."""
        try:
            return question(self._store)
        except RuntimeError:
            raise LostError(self._lost()) from None

    def _ours(self) -> str:
        return f"rank {self.place.rank} of {self.place.world}"

    def _lost(self) -> str:
        return (
            f"{self._ours()}: rank 0 has gone, or has not come; see what it says, and run the same command again, which"
            " keeps what is there"
        )
