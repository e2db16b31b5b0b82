"""Which faults are laid on which stages: by day a part of them, by night all."""

from collections.abc import Iterator

from tests.faults.bench import Bench
from tests.faults.kinds import KINDS, Case


def cases_of(bench: Bench, nightly: bool) -> Iterator[Case]:
    """All cases of a chain, stage by stage."""
    often = {} if not nightly else {
        "killed": 12, "killed while writing": 8, "disk full": 4, "folder read-only": 2, "checkpoint damaged": 3,
        "files deleted": 4, "chain killed": 4, "clock changed": 2, "two at once": 3,
    }  # fmt: skip
    for place, stage in enumerate(bench.chain.stages):
        for turn, kind in enumerate(KINDS):
            if kind == "checkpoint damaged" and stage.kind != "fit":
                continue
            if kind == "chain killed" and stage != bench.chain.stages[-1]:
                continue
            rare = kind in ("folder read-only", "clock changed", "two at once", "settings changed", "disk full")
            if rare and not nightly and (place + turn) % 3:
                continue  # every third stage, others for each kind
            first = place if kind in ("checkpoint damaged", "clock changed") else 0
            usual = 2 if kind == "killed" and stage.kind == "fit" else 1
            for number in range(often.get(kind, usual)):
                yield Case(bench, stage, kind, first + number)
