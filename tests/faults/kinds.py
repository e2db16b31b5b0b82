"""The kinds of faults: each is laid on one stage, which must end as the undisturbed one did or refuse in one line."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import inject
from tests.faults.bench import Bench, Failed, dice, phase, touch_all
from tests.faults.chains import Stage
from tests.faults.server import start

Outcome = dict[str, object]


@dataclass(frozen=True)
class Case:
    """One fault on one stage.

    Attributes:
        bench: of the chain.
        stage: that suffers it.
        kind: name of the fault.
        number: which of several.
    """

    bench: Bench
    stage: Stage
    kind: str
    number: int = 0
    luck: object = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "luck", dice(self.bench.chain.name, self.stage.name, self.kind, self.number))

    @property
    def name(self) -> str:
        """Of its record."""
        return f"{self.bench.chain.name}.{self.stage.name}.{self.kind}.{self.number}".replace(" ", "-")

    def run(self) -> Outcome:
        """Lay the fault; gives what is to be told of it."""
        self.bench.clear(self.stage)
        try:
            return KINDS[self.kind](self)
        finally:
            self.bench.restore(self.stage)


# ---------------------------------------------------------------------- killed


def killed(case: Case) -> Outcome:
    """SIGKILL at a random moment of its work, perhaps once more, and again until it ends."""
    bench, stage, facts = case.bench, case.stage, case.bench.facts[case.stage.name]
    phases, hits, tries = [], 0, 1 + (case.luck.random() < 0.4)
    shares = _strata(case)
    for turn in range(tries):
        child = bench.start(stage)
        share = shares if turn == 0 else case.luck.random()
        moment = child.began + facts.first + share * (facts.seconds - facts.first)
        while child.poll() is None and time.monotonic() < moment:
            time.sleep(0.002)
        running = child.kill()
        seen = phase(stage, bench.folder(stage)) if running else "after its end"
        hits += running and not seen.startswith(("after", "before its"))
        phases.append(seen)
    bench.finish(stage)
    bench.check(stage)
    return {"kills": tries, "hits": hits, "phases": phases}


def _strata(case: Case) -> float:
    """Moments are spread over the work: one in each third, and so on."""
    return ((case.number % 3) + case.luck.random()) / 3


def killed_writing(case: Case) -> Outcome:
    """SIGKILL right before or right after a file gets its final name."""
    bench, stage, written = case.bench, case.stage, case.bench.facts[case.stage.name].written
    turn, after = case.luck.randrange(len(written)), case.luck.random() < 0.5
    child = bench.start(stage, inject.killed_at(turn, after))
    running = child.wait() == -9
    where = f"{'after' if after else 'before'} the renaming of {Path(written[turn]).suffix or 'a folder'}"
    bench.finish(stage)
    bench.check(stage)
    return {
        "kills": 1,
        "hits": int(running),
        "phases": [f"{'after' if after else 'while'} a file was written"],
        "where": where,
    }


def chain_killed(case: Case) -> Outcome:
    """The whole chain as one command, its stages joined by `+`: killed three times, and again until it ends."""
    bench, stages = case.bench, case.bench.chain.stages
    words = [word for stage in stages for word in ("+", *stage.words)][1:]
    whole = sum(bench.facts[stage.name].seconds for stage in stages)
    phases, hits, moments = [], 0, sorted(case.luck.uniform(0.02, 0.9) for _ in range(3))
    for stage in stages:
        bench.clear(stage)
    try:
        for share, before in zip(moments, (0.0, *moments), strict=False):
            child = start(words, bench.work, bench.top / "logs/chain.log")
            moment = child.began + (share - before) * whole
            while child.poll() is None and time.monotonic() < moment:
                time.sleep(0.01)
            running = child.kill()
            unfinished = [
                s for s in stages if (bench.folder(s) / "provenance.json").exists() and not _is_done(bench, s)
            ]
            phases.append(phase(unfinished[0], bench.folder(unfinished[0])) if unfinished else "between stages")
            hits += running and bool(unfinished)
        child = start(words, bench.work, bench.top / "logs/chain.log")
        if code := child.wait(900):
            raise Failed(f"exit code {code}: {child.printed()[-300:]}")
        for stage in stages:
            bench.check(stage, rerun=True)
    finally:
        for stage in stages:
            bench.restore(stage)
    return {"kills": 3, "hits": hits, "phases": phases}


def _is_done(bench: Bench, stage: Stage) -> bool:
    return (bench.folder(stage) / "done.json").exists()


# ---------------------------------------------------------------------- the disk


def disk_full(case: Case) -> Outcome:
    """No room at a random moment: one line; with room again it goes on."""
    bench, stage, facts = case.bench, case.stage, case.bench.facts[case.stage.name]
    if not MOUNTS[0]:
        turn = case.luck.randrange(len(facts.written))
        line = bench.refused(bench.start(stage, inject.full_at(turn)))
        bench.finish(stage)
        bench.check(stage)
        return {"said": line, "how": "injected"}
    size = 4096 * max(1, int(case.luck.uniform(0.05, 0.8) * facts.size / 4096))
    with inject.small_disk(bench.folder(stage), size) as enlarge:
        line = bench.refused(bench.start(stage))
        if not any(words in line for words in ("full", "No space", "no room")):
            raise Failed(f"{line!r} does not tell of a full disk")
        enlarge()
        bench.finish(stage)
        bench.check(stage)
    return {"said": line, "how": f"a file system of {size} bytes"}


def disk_read_only(case: Case) -> Outcome:
    """A run folder that cannot be written to: one line; once it can it goes on."""
    bench, stage = case.bench, case.stage
    begun = case.luck.random() < 0.5
    if begun:
        bench.start(stage, inject.killed_at(case.luck.randrange(len(bench.facts[stage.name].written)), True)).wait()
    if (bench.folder(stage) / "done.json").exists():
        bench.clear(stage)
    with inject.read_only(bench.folder(stage)):
        line = bench.refused(bench.start(stage), stage.folder)
    bench.finish(stage)
    bench.check(stage)
    return {"said": line, "begun": begun}


# ---------------------------------------------------------------------- files


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) * 2 // 3],
    "empty": lambda content: b"",
    "garbage": lambda content: bytes(255 - byte for byte in content[:5000]),
}


def checkpoint_damaged(case: Case) -> Outcome:
    """A damaged last.ckpt: the fit goes on from the one before it and says so; with both damaged it refuses."""
    bench, stage = case.bench, case.stage
    turns = [n for n, name in enumerate(bench.facts[stage.name].written) if name.endswith("/last.ckpt")]
    if len(turns) < 2:
        return {"skipped": "it writes no two checkpoints"}
    how = list(DAMAGES)[case.number % len(DAMAGES)]
    bench.start(stage, inject.killed_at(case.luck.choice(turns[1:]), True)).wait()
    last = bench.folder(stage) / "checkpoints/last.ckpt"
    previous = last.with_name("previous.ckpt")
    if not previous.exists():  # it was killed after the end of the fit
        raise Failed("there is no previous.ckpt")
    last.write_bytes(DAMAGES[how](last.read_bytes()))
    kept = previous.read_bytes()
    previous.write_bytes(b"PK")
    line = bench.refused(bench.start(stage), "last.ckpt", "previous.ckpt", "delete")
    previous.write_bytes(kept)
    text = bench.finish(stage)
    told = [row for row in text.splitlines() if "last.ckpt" in row and "previous.ckpt" in row]
    if len(told) != 1:
        raise Failed(f"nothing or too much is said of the damaged checkpoint: {told}")
    bench.check(stage)
    return {"how": how, "said": [line, told[0]]}


UNCOUNTED = ("done.json", "provenance.json", "hparams.yaml")
"""Not missed by anybody, but for the record, without which a folder is nobody's."""


def files_deleted(case: Case) -> Outcome:
    """Some results of a finished stage are deleted: the same command makes them again."""
    bench, stage = case.bench, case.stage
    bench.restore(stage)
    folder = bench.folder(stage)
    groups = {p.parent for p in folder.rglob("*") if p.is_file() and p.parent.name not in ("pictures", "figures")}
    groups = sorted(group for group in groups if group != folder) or [folder]
    group = case.luck.choice(groups)
    files = sorted(p for p in group.iterdir() if p.is_file() and p.name not in UNCOUNTED)
    gone = case.luck.sample(files, case.luck.randint(1, len(files)))
    for path in gone:
        path.unlink()
    text = bench.finish(stage)
    if stage.kind != "cache" and "are gone, though the stage had finished" not in text:
        raise Failed(f"nothing is said of {len(gone)} files of {group.name} that are gone: {text[-300:]}")
    bench.check(stage)
    return {"gone": f"{len(gone)} of {len(files)} files of {group.name}"}


def settings_changed(case: Case) -> Outcome:
    """Another configuration: the old run is moved aside, and it is said why; the stage after it is done again too."""
    bench, stage = case.bench, case.stage
    words, key = stage.change
    if not words:
        return {"skipped": "what it keeps lies beside that of other settings"}
    bench.restore(stage)
    child = bench.start(stage, extra=words)
    if code := child.wait():
        raise Failed(f"exit code {code} with {words}: {child.printed()[-300:]}")
    told = [line for line in child.printed().splitlines() if "the old run is now" in line]
    if len(told) != 1 or key not in told[0] or "->" not in told[0]:
        raise Failed(f"{told or 'nothing'} is said, not that {key} has changed")
    olds = list(bench.folder(stage).parent.glob(f"{bench.folder(stage).name}.old-*"))
    if len(olds) != 1 or not (olds[0] / "done.json").is_file():
        raise Failed("the old run is not beside it")
    later = next((s for s in bench.chain.stages if any(f"{stage.folder}/" in word for word in s.words)), None)
    after = ""
    if later is not None and case.number == 0 and case.luck.random() < 0.5:
        child = bench.start(later)
        child.wait()
        found = [line for line in child.printed().splitlines() if "the old run is now" in line]
        bench.restore(later)
        # one that lacks inputs now says so
        if not (len(found) == 1 and "inputs." in found[0]) and child.poll() != 2:
            raise Failed(f"{later.name} after it is not done again: {child.printed()[-300:]}")
        after = later.name
    bench.clear(stage)
    bench.finish(stage)
    bench.check(stage)
    return {"said": told[0], "after": after}


# ---------------------------------------------------------------------- time and others


def clock_changed(case: Case) -> Outcome:
    """The clock is set back or forward within a run and between two: equal results, no negative durations."""
    bench, stage = case.bench, case.stage
    first, second = ((-inject.DAY, inject.DAY), (inject.DAY, -inject.DAY))[case.number % 2]
    turn = case.luck.randrange(len(bench.facts[stage.name].written))
    kill = inject.killed_at(turn, True)
    clock = inject.clock_off(first)
    bench.start(stage, lambda: (clock(), kill())).wait()
    touch_all(bench.folder(stage), first)
    bench.finish(stage, inject.clock_off(second))
    bench.check(stage)
    folder = bench.folder(stage)
    if (folder / "done.json").is_file():
        done = json.loads((folder / "done.json").read_text())
        seconds = done.get("seconds", 0.0)
        if not 0 <= seconds < inject.DAY / 2:
            raise Failed(f"done.json tells of {seconds} seconds")
        before = (folder / "done.json").stat().st_mtime
        text = bench.finish(stage, inject.clock_off(-2 * inject.DAY))
        if "up to date" not in text or (folder / "done.json").stat().st_mtime < before:
            raise Failed("with the clock set back it is done again, or Make will think so")
        return {"seconds": seconds}
    return {}


def two_at_once(case: Case) -> Outcome:
    """A second process on the same folder refuses in one line; the first one ends as if alone."""
    bench, stage = case.bench, case.stage
    written = bench.facts[stage.name].written
    waits, until = bench.top / "waits", bench.top / "until"
    for path in (waits, until):
        path.unlink(missing_ok=True)
    turn = case.luck.randrange(max(1, len(written) - 2))
    first = bench.start(stage, inject.held_at(turn, waits, until))
    try:
        while not waits.exists() and first.poll() is None:
            time.sleep(0.005)
        line = bench.refused(
            bench.start(stage, log="-second"), "another process works there", f"process {first.process}"
        )
    finally:
        until.touch()
        code = first.wait()
    if code:
        raise Failed(f"the first one ended with {code}: {first.printed()[-300:]}")
    bench.check(stage)
    return {"said": line}


def repeated(case: Case) -> Outcome:
    """Run twice undisturbed: equal files."""
    return {"differ": case.bench.repeated(case.stage)}


MOUNTS = [False]
"""Whether small file systems can be mounted; looked up once."""
KINDS: dict[str, Callable[[Case], Outcome]] = {
    "killed": killed,
    "killed while writing": killed_writing,
    "disk full": disk_full,
    "folder read-only": disk_read_only,
    "checkpoint damaged": checkpoint_damaged,
    "files deleted": files_deleted,
    "settings changed": settings_changed,
    "clock changed": clock_changed,
    "two at once": two_at_once,
    "run twice": repeated,
    "chain killed": chain_killed,
}
