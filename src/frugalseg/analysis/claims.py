"""Claims that runs settle: what is compared with what, and by which rule, read from experiments/claims/claims.yaml.

The comments at the top of that file say what each key means.
"""

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from frugalseg.errors import ConfigError
from frugalseg.run import digest_of
from frugalseg.yaml_text import load_yaml

KINDS = ("difference", "interaction", "within")
PAPERS = ("sfc", "cti", "dsmf", "mevt")
BETTER = {"higher": 1.0, "lower": -1.0}
"""Which way a paper claims, and the sign of an effect that goes there."""
FOLDS = (0, 1, 2)
"""Of `fold: mean`."""
TERMS = {"treatment": 1.0, "baseline": -1.0, "control treatment": -1.0, "control baseline": 1.0}
"""What an effect is the sum of, and the signs; claims that have no control have the first two."""
_NEEDED = ("id", "paper", "statement", "source", "treatment", "baseline", "better", "unit", "equal", "command")
_OPTIONAL = (
    "kind", "control", "run", "stage", "metric", "fold", "scale", "margin", "controls", "needs", "seeds",
)  # fmt: skip
_SIDE = ("run", "stage", "metric", "fold")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Side(NamedTuple):
    """Where one number per seed is read.

    Attributes:
        run: folder under the folder of all runs.
        stages: one, or several whose mean is taken.
        metrics: keys of `metrics.json`, likewise.
        fold: number, `any`, `mean`, or None where the run has no folds.
    """

    run: str
    stages: tuple[str, ...]
    metrics: tuple[str, ...]
    fold: int | str | None


@dataclass(frozen=True)
class Claim:
    """One claim; attributes as the file's comments say.

    Attributes:
        terms: of `TERMS`, as many as the kind has.
        seeds: that it is judged on.
    """

    id: str
    paper: str
    statement: str
    source: str
    kind: str
    terms: dict[str, Side]
    better: str
    unit: str
    scale: float
    margin: float
    equal: str
    command: str
    controls: tuple[str, ...]
    needs: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def sign(self) -> float:
        """Of an effect as claimed."""
        return BETTER[self.better]

    @property
    def runs(self) -> tuple[str, ...]:
        """All runs whose work the claim hangs on."""
        return tuple(dict.fromkeys([*(side.run for side in self.terms.values()), *self.needs]))

    @property
    def digest(self) -> str:
        """Of what decides the verdict; words may be mended without changing it."""
        decisive = ("kind", "terms", "better", "scale", "margin", "seeds")
        content = asdict(self)
        return digest_of({key: content[key] for key in decisive})


class _Strict(yaml.SafeLoader):
    """A loader that refuses a key that stands twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"key {twice[0]} twice in line {node.start_mark.line + 1} and below")
        return super().construct_mapping(node, deep)


def read_claims(path: Path) -> list[Claim]:
    """Read a file of claims.

    Args:
        path: such as experiments/claims/claims.yaml.

    Raises:
        ConfigError: the file is missing, or something in it is wrong: says which claim and which key.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable ({error}); give the file of claims with --file") from error
    return parse_claims(text, str(path))


def parse_claims(text: str, name: str) -> list[Claim]:
    """Read the text of a file of claims.

    Args:
        text: YAML.
        name: of the file, for messages.

    Raises:
        ConfigError: something in it is wrong.
    """
    try:
        content = load_yaml(text, _Strict)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: no YAML ({' '.join(str(error).split())[:200]}); mend the file") from error
    if not isinstance(content, dict) or set(content) != {"seeds", "claims"} or not isinstance(content["claims"], list):
        raise ConfigError(f"{name}: must have the keys `seeds` and `claims`, a list, and no others")
    seeds = _seeds(name, content["seeds"])
    claims = [_claim(f"{name}: claim {place + 1}", entry, seeds) for place, entry in enumerate(content["claims"])]
    ids = [claim.id for claim in claims]
    if twice := [own for own in ids if ids.count(own) > 1]:
        raise ConfigError(f"{name}: has the id {twice[0]} twice; give each claim its own")
    for claim in claims:
        if lost := [other for other in claim.controls if other not in ids or other == claim.id]:
            raise ConfigError(f"{name}: claim {claim.id}: controls names {lost[0]}, which is no other claim's id")
    return claims


def _claim(where: str, entry: Any, seeds: tuple[int, ...]) -> Claim:
    """One entry of the list."""
    _known(where, entry, _NEEDED, _OPTIONAL)
    words = {key: _words(where, key, entry[key]) for key in _NEEDED if key not in ("treatment", "baseline")}
    where = f"{where} ({words['id']})"
    kind = _one_of(where, "kind", entry.get("kind", "difference"), KINDS)
    paper = _one_of(where, "paper", words["paper"], PAPERS)
    if not re.fullmatch(rf"{paper}(-[a-z0-9]+)+", words["id"]):
        raise ConfigError(f"{where}: id must be {paper}- and small letters, digits and -")
    return Claim(
        id=words["id"],
        paper=paper,
        statement=words["statement"],
        source=words["source"],
        kind=kind,
        terms=_terms(where, kind, entry),
        better=_one_of(where, "better", words["better"], BETTER),
        unit=words["unit"],
        scale=_number(where, "scale", entry.get("scale", 1), lambda value: value > 0, "above 0"),
        margin=_number(where, "margin", entry.get("margin", 0), lambda value: value >= 0, "0 or more"),
        equal=words["equal"],
        command=words["command"],
        controls=_names(where, "controls", entry.get("controls", []), empty=True),
        needs=_names(where, "needs", entry.get("needs", []), empty=True),
        seeds=_seeds(where, entry["seeds"]) if "seeds" in entry else seeds,
    )


def _terms(where: str, kind: str, entry: Mapping[str, Any]) -> dict[str, Side]:
    """Sides by the names of `TERMS`."""
    if (kind == "interaction") != ("control" in entry):
        raise ConfigError(f"{where}: a control belongs to kind interaction, and to no other")
    if kind != "within" and "run" in entry:
        raise ConfigError(f"{where}: run belongs to kind within; name runs as treatment and baseline")
    given = {name: entry[name] for name in ("treatment", "baseline")}
    if kind == "interaction":
        _known(f"{where}: control", entry["control"], ("treatment", "baseline"), ())
        given |= {f"control {name}": entry["control"][name] for name in ("treatment", "baseline")}
    sides = {name: _side(f"{where}: {name}", value, entry) for name, value in given.items()}
    if len(set(sides.values())) < len(sides):
        raise ConfigError(f"{where}: two sides are the same numbers")
    if (sides["treatment"].run == sides["baseline"].run) != (kind == "within") and kind != "interaction":
        raise ConfigError(f"{where}: kind {kind} compares {'one run' if kind == 'within' else 'two runs'}")
    return sides


def _side(where: str, given: Any, entry: Mapping[str, Any]) -> Side:
    """A side; what it leaves out is the claim's."""
    own = {"run": given} if isinstance(given, str) else given
    _known(where, own, (), _SIDE)
    full = {**{key: entry[key] for key in _SIDE if key in entry}, **own}
    if lack := [key for key in ("run", "stage", "metric") if key not in full]:
        raise ConfigError(f"{where}: no {lack[0]} here nor in the claim")
    fold = full.get("fold")
    if fold not in (None, "any", "mean") and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 0):
        raise ConfigError(f"{where}: fold {fold!r} is no number, any or mean")
    (run,) = _names(where, "run", [full["run"]])
    metrics = [full["metric"]] if isinstance(full["metric"], str) else full["metric"]
    if not isinstance(metrics, list) or not metrics or not all(isinstance(key, str) and key for key in metrics):
        raise ConfigError(f"{where}: metric {full['metric']!r} is no key or list of keys")
    stages = [full["stage"]] if isinstance(full["stage"], str) else full["stage"]
    return Side(run, _names(where, "stage", stages), tuple(metrics), fold)


def _known(where: str, content: Any, needed: Sequence[str], optional: Sequence[str]) -> None:
    """Refuse a section that lacks keys or has others."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: {content!r} is no section of keys")
    if unknown := [key for key in content if key not in (*needed, *optional)]:
        raise ConfigError(f"{where}: unknown key {unknown[0]}; known are {', '.join((*needed, *optional))}")
    if lack := [key for key in needed if key not in content]:
        raise ConfigError(f"{where}: lacks the key {lack[0]}")


def _words(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: {key} {value!r} is no text")
    return " ".join(value.split())


def _one_of(where: str, key: str, value: Any, known: Sequence[str] | Mapping[str, float]) -> str:
    if value not in tuple(known):
        raise ConfigError(f"{where}: {key} {value!r} is none of {', '.join(known)}")
    return str(value)


def _number(where: str, key: str, value: Any, holds: Callable[[float], bool], bound: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not holds(value):
        raise ConfigError(f"{where}: {key} {value!r} is no number {bound}")
    return float(value)


def _names(where: str, key: str, value: Any, empty: bool = False) -> tuple[str, ...]:
    """Names of folders or claims: none may lead out of its folder."""
    if not isinstance(value, list) or not (value or empty):
        raise ConfigError(f"{where}: {key} {value!r} is no list of names")
    if odd := [name for name in value if not isinstance(name, str) or not _NAME.fullmatch(name)]:
        raise ConfigError(f"{where}: {key} {odd[0]!r} is no name of letters, digits, ., _ and -")
    return tuple(value)


def _seeds(where: str, value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in value)
    if not whole or not value or len(set(value)) < len(value):
        raise ConfigError(f"{where}: seeds {value!r} is no list of different whole numbers")
    return tuple(value)
