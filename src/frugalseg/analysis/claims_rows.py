"""Claims settled: one row each, with everything that its verdict was made from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from frugalseg.analysis.claims import TERMS, Claim
from frugalseg.analysis.claims_guard import standing
from frugalseg.analysis.claims_runs import FaultyError, Runs, UnfinishedError
from frugalseg.analysis.claims_statistics import CONFIDENCE, Effect, effect_of, holm, p_value, verdict

INCOMPLETE = "incomplete"
ASKED = 5
"""Seeds that a verdict should rest on."""


@dataclass(frozen=True)
class Row:
    """One claim with its numbers; all that tables and figures are made from, and plain enough for JSON.

    Attributes:
        claim: of `Claim`, as plain values.
        runs: names of all runs that it hangs on.
        values: term -> seed -> number as `metrics.json` has it; seeds that lack one are left out.
        differences: seed -> effect in the claim's unit, of seeds that have all numbers.
        mean: of the differences; None without any. All figures of the effect are as they are, not turned to the claim.
        std: their sample standard deviation; None for less than two.
        low: lower end of the 95 % interval; None for less than two.
        high: upper end.
        positive: differences that go the claimed way.
        verdict: of `claims_statistics`, or `INCOMPLETE`.
        p: of the test behind it.
        p_adjusted: Holm's, over all claims; those that are incomplete count as 1.
        verdict_adjusted: what remains of the verdict.
        remarks: what a reader must know.
        seconds: wall time of all stages of all its runs; None where no stage tells.
        fixed: since when the claim has been committed.
        started: when the first of its runs started.
        standing: whether it was fixed before the runs.
    """

    claim: dict[str, Any]
    runs: list[str]
    values: dict[str, dict[str, float]]
    differences: dict[str, float]
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    positive: int
    verdict: str
    p: float
    p_adjusted: float
    verdict_adjusted: str
    remarks: list[str]
    seconds: float | None
    fixed: str | None
    started: str | None
    standing: str

    def side(self, term: str) -> float | None:
        """Mean of a term in the claim's unit, over the seeds that have all numbers; None without any."""
        found = [self.values[term][seed] for seed in self.differences]
        return self.claim["scale"] * math.fsum(found) / len(found) if found else None

    def as_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def row_from(content: Mapping[str, Any]) -> Row:
    """A row again, from what `Row.as_json` gave.

    Raises:
        KeyError: a field is missing.
    """
    return Row(**{each.name: content[each.name] for each in fields(Row)})


def settle(claims: Sequence[Claim], runs: Runs, fixed: Mapping[str, datetime | None]) -> list[Row]:
    """Judge all claims of a file together: Holm's correction needs their number.

    Args:
        claims: all of the file.
        runs: where their numbers are.
        fixed: id -> since when each has been committed.
    """
    rows = [_row(claim, runs, fixed.get(claim.id)) for claim in claims]
    adjusted = holm([row["p"] for row in rows])
    return [_complete(row, p) for row, p in zip(rows, adjusted, strict=True)]


def _complete(row: dict[str, Any], p_adjusted: float) -> Row:
    stands = row["verdict"] == INCOMPLETE or p_adjusted < 1 - CONFIDENCE
    return Row(**row, p_adjusted=p_adjusted, verdict_adjusted=row["verdict"] if stands else verdict(effect_of([])))


def _row(claim: Claim, runs: Runs, fixed: datetime | None) -> dict[str, Any]:
    """All fields but those of the correction."""
    values, lacks = read_values(claim, runs)
    common = [str(seed) for seed in claim.seeds if all(str(seed) in found for found in values.values())]
    differences = {s: claim.scale * math.fsum(TERMS[term] * values[term][s] for term in values) for s in common}
    effect = effect_of(list(differences.values()))
    judged = verdict(effect, claim.sign, claim.margin) if not lacks else INCOMPLETE
    records = [record for run in claim.runs for seed in claim.seeds for record in runs.records(run, seed).values()]
    begun = [_time(start) for run in claim.runs for seed in claim.seeds for start in runs.starts(run, seed)]
    started = min(filter(None, begun), default=None)
    seconds = [record["seconds"] for record in records if record["seconds"] is not None]
    return {
        "claim": asdict(claim) | {"terms": {term: side._asdict() for term, side in claim.terms.items()}},
        "runs": list(claim.runs),
        "values": values,
        "differences": differences,
        **{key: _plain(getattr(effect, key)) for key in ("mean", "std", "low", "high")},
        "positive": sum(claim.sign * value > 0 for value in differences.values()),
        "verdict": judged,
        "p": 1.0 if lacks else p_value(effect, claim.sign, claim.margin),
        "remarks": [*lacks, *_remarks(effect, len(claim.seeds)), *_resumed(records)],
        "seconds": math.fsum(seconds) if seconds else None,
        "fixed": fixed.isoformat(timespec="seconds") if fixed else None,
        "started": started.isoformat(timespec="seconds") if started else None,
        "standing": standing(fixed, started),
    }


def read_values(claim: Claim, runs: Runs) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Numbers of all sides.

    Args:
        claim: whose.
        runs: where they are.

    Returns:
        Term -> seed -> number, and what is missing, in words: first seeds that have not finished, then faults.
    """
    values: dict[str, dict[str, float]] = {}
    lacks: dict[str, list[str]] = {}
    faults: list[str] = []
    for term, side in claim.terms.items():
        values[term] = {}
        for seed in claim.seeds:
            try:
                values[term][str(seed)] = runs.value(side, seed)
            except UnfinishedError:
                lacks.setdefault(f"{side.run} {'+'.join(side.stages)}", []).append(str(seed))
            except FaultyError as error:
                faults.append(str(error))
    told = [
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)} lacking ({name})" for name, seeds in lacks.items()
    ]
    return values, [*told, *faults]


def _remarks(effect: Effect, asked: int) -> list[str]:
    found = []
    if asked < ASKED:
        found.append(f"{asked} {'seed' if asked == 1 else 'seeds'}: fewer than {ASKED}")
    if effect.flat:
        found.append("all differences are equal: no spread to judge by")
    return found


def _resumed(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """A resumed stage tells when it was first taken up again, not when it started."""
    count = sum(bool(record["resumed"]) for record in records)
    return [f"{count} of its stages were resumed, and started earlier than is known"] if count else []


def _time(text: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return when if when.tzinfo else None


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
