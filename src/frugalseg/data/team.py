"""One command that several processes run together, on one machine or on many.

They are started as for training, and find each other by the same variables (`meeting.py`). Work is dealt out while it
is done: an item goes to whoever asks next, large ones first, so that neither unequal images nor unequal machines leave
anybody idle. Results are files, whole or not there; only what is known of them goes to rank 0, which writes the
summary when nothing is missing. Every process gives a sign of life each second. Of one that has gone, rank 0 says so;
the others finish, and the same command, with any number of processes, makes what is missing.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from frugalseg.data.meeting import COMING, Place, find_place, patience
from frugalseg.data.messages import POLL, LostError, Messages
from frugalseg.errors import ConfigError, FrugalsegError

_SHARED = 10.0
"""Seconds that a network disk may take to show a new file to another machine."""


class Team:
    """All processes of a command, as one of them sees them; a single one if no launcher has started it.

    Used as a context, it tells the others of an error, and lets nobody go on to the next command before rank 0 has
    written its summary.

    Args:
        place: of this process; None asks the environment.
    """

    def __init__(self, place: Place | None = None) -> None:
        self.place = find_place() if place is None else place
        self.rank, self.world = self.place.rank, self.place.world
        self.code = 0
        """Exit code of the command; the others take rank 0's."""
        self._messages: Messages | None = None
        self._deals, self._working, self._gone = 0, False, set[int]()
        self._witness: Path | None = None
        self._is_done: Callable[[], bool] = _never
        self._began = time.monotonic()

    def begin(
        self,
        identity: Mapping[str, Any],
        claim: Callable[[], Any],
        folder: Path | None = None,
        is_done: Callable[[], bool] | None = None,
    ) -> Any:
        """Let rank 0 make the output folder its own, and see that all are about to do the same work there.

        Args:
            identity: what the results depend on; it must be equal everywhere, and fit for JSON.
            claim: rank 0 calls it; gives what is to be done, fit for JSON, None for nothing.
            folder: where all of them write.
            is_done: whether the work has been finished, which is asked by a process that comes too late.

        Returns:
            What rank 0's `claim` gave, everywhere.

        Raises:
            ConfigError: this rank has other inputs or settings than rank 0, or its folder is another one.
            LostError: rank 0 does not come, or has gone.
        """
        if self.world == 1:
            return claim()
        self._is_done = is_done or _never
        if self.rank == 0:
            self._messages = Messages(self.place)
            plan = claim()
            witness = self._leave_witness(folder) if plan is not None and folder is not None else None
            self._messages.write("start", {"identity": identity, "plan": plan, "witness": witness})
            return plan
        try:
            self._messages = Messages(self.place)
        except FrugalsegError:
            if self._is_done():
                return None
            raise
        start = self._messages.of_rank_0("start", COMING * patience())
        self._compare(start["identity"], json.loads(json.dumps(identity, default=str)))
        if folder is not None and start["witness"]:
            self._look_for(self._messages, folder / start["witness"])
        return start["plan"]

    def deal(self, sizes: Sequence[float]) -> Iterator[tuple[int, int]]:
        """Items for this process, one whenever it asks: every item goes to one process.

        All processes must call this equally often.

        Args:
            sizes: of all items, by which the work is estimated; equal everywhere.

        Returns:
            How many items have been dealt out before, and the position of the item, for each item.
        """
        self._deals, self._working = self._deals + 1, True
        return self._deal(f"next/{self._deals}", sorted(range(len(sizes)), key=lambda item: -sizes[item]))

    def _deal(self, key: str, order: Sequence[int]) -> Iterator[tuple[int, int]]:
        for turn in range(len(order)):
            place = turn if self._messages is None else self._messages.next(key)
            if place >= len(order):
                return
            yield place, order[place]

    def gather(self, results: Mapping[int, Any], total: int) -> dict[int, Any] | None:
        """Bring what is known of all items to rank 0.

        Args:
            results: by item, fit for JSON, of this process.
            total: number of all items.

        Returns:
            Results of all items in their order; None on the other ranks.

        Raises:
            FrugalsegError: ranks have failed or gone; the others have finished.
        """
        self._working = False
        if self.rank and self._messages is not None:
            self._messages.write(f"result/{self.rank}", list(results.items()))
            return None
        found, problems = dict(results), []
        for rank, kind, said in self._others():
            if kind == "result":
                found |= {int(item): value for item, value in said}
            else:
                problems.append(f"rank {rank} of {self.world} {'failed' if kind == 'failed' else 'has gone'}: {said}")
        if problems or len(found) < total:
            raise FrugalsegError(
                f"{'; '.join(problems) or 'a rank is missing'}; {total - len(found)} of {total} items are not known to"
                " be done, the other ranks have finished; mend that and run the same command again, which keeps what"
                " is there"
            )
        return {item: found[item] for item in range(total)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._messages is None:
            return
        try:
            if self.rank:
                self._leave(self._messages, error)
            else:
                self._dismiss(self._messages, error)
        finally:
            self._messages.close()
            if self._witness is not None:
                self._witness.unlink(missing_ok=True)

    def _leave_witness(self, folder: Path) -> str:
        """Leave a file in the output folder, of a name that no other run has."""
        self._witness = folder / f".team-{secrets.token_hex(8)}.{os.getpid()}.tmp"
        folder.mkdir(parents=True, exist_ok=True)
        self._witness.touch()
        return self._witness.name

    def _look_for(self, messages: Messages, witness: Path) -> None:
        """See that rank 0's file is in our folder too."""
        deadline = time.monotonic() + min(_SHARED, patience())
        while not witness.is_file() and not messages.has("end"):
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"{witness.parent}: {self._ours()} ({socket.gethostname()}) does not see there what rank 0 writes;"
                    " give a folder on a disk that all machines share"
                )
            time.sleep(POLL)

    def _ours(self) -> str:
        return f"rank {self.rank} of {self.world}"

    def _compare(self, theirs: Any, ours: Any) -> None:
        if key := _difference(theirs, ours):
            raise ConfigError(
                f"{self._ours()} ({socket.gethostname()}) differs from rank 0 in {key}; give all ranks the same command"
                " and the same data"
            )

    def _others(self) -> Iterator[tuple[int, str, Any]]:
        """(rank, "result", "failed" or "gone", what it said), of each other rank that has come, as soon as it ends."""
        messages, running = self._messages, set(range(1, self.world))
        if messages is None:
            return
        while came := {rank for rank in running if messages.has_come(rank)}:
            for rank in sorted(came):
                said = next((kind for kind in ("result", "failed") if messages.has(f"{kind}/{rank}")), None)
                if said is not None:
                    yield rank, said, messages.read(f"{said}/{rank}")
                elif messages.is_silent(rank):
                    self._gone.add(rank)
                    yield rank, "gone", f"{messages.read(f'who/{rank}')}, silent for {patience():.0f} seconds"
                else:
                    continue
                running.discard(rank)
            time.sleep(POLL)

    def _dismiss(self, messages: Messages, error: BaseException | None) -> None:
        """Rank 0's end: the others are let finish, hear how it went, and have heard before what they hear it from goes.

        An error of the kind that is no Exception is somebody who wants all this to stop.
        """
        patient = error is None or isinstance(error, Exception)
        others = range(1, self.world)
        while patient and time.monotonic() < self._began + patience() and not all(map(messages.has_come, others)):
            time.sleep(POLL)  # work that took no time: who comes later would wait for us in vain
        if self._working and patient:
            for _ in self._others():
                pass
        messages.write("end", {"code": self.code, "error": "" if error is None else _told(error)})
        waiting = set(others) - self._gone if patient else set()
        while waiting := {rank for rank in waiting if _is_here(messages, rank)}:
            time.sleep(POLL)

    def _leave(self, messages: Messages, error: BaseException | None) -> None:
        """Another rank's end."""
        try:
            if error is not None:
                messages.write(f"failed/{self.rank}", _told(error))
                return
            end = messages.of_rank_0("end")
            messages.write(f"bye/{self.rank}", True)
        except LostError:
            if error is not None or self._is_done():
                return
            raise
        if end["error"]:
            raise FrugalsegError(f"{self._ours()}: rank 0 stopped: {end['error']}")
        self.code = end["code"]


def alone(work: Callable[[], int]) -> int:
    """Let rank 0 do what is not shared out, while the others wait.

    Args:
        work: gives an exit code.

    Returns:
        Rank 0's exit code, everywhere.
    """
    with Team() as team:
        team.begin({}, _never)
        if team.rank == 0:
            team.code = work()
    return team.code


def _is_here(messages: Messages, rank: int) -> bool:
    """Whether a rank has come, and neither left nor gone."""
    left = messages.has(f"bye/{rank}") or messages.has(f"failed/{rank}")
    return messages.has_come(rank) and not left and not messages.is_silent(rank)


def _difference(theirs: Any, ours: Any, key: str = "") -> str:
    """Dotted key of the first difference; empty if there is none."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = (_difference(theirs.get(k), ours.get(k), f"{key}.{k}".strip(".")) for k in sorted({*theirs, *ours}))
        return next((difference for difference in found if difference), "")
    return "" if theirs == ours else key or "its settings"


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _never() -> bool:
    return False
