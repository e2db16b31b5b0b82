"""Every kind of released file through `frugalseg convert` and back: a table, and the same as JSON.

`python -m tests.studies.round_trips [--out runs/round_trips.json]`. The files are built here (tests/convert/kinds.py);
no network. Tensors are counted by name: authors' nets register some of them several times.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from frugalseg.convert import Request, to_official, to_ours
from frugalseg.convert.matching import same
from frugalseg.run import write_json
from tests.convert.kinds import KINDS, Kind, inner


def row(name: str, kind: Kind, folder: Path) -> dict[str, object]:
    """What one kind comes to."""
    theirs, ours, back = folder / "theirs.pth", folder / f"ours{kind.ending}", folder / "back.pth"
    again = folder / f"again{kind.ending}"
    content = kind.build()
    torch.save(content, theirs)
    heads = 3 if "--heads" in kind.words else None
    part = "student" if "student" in kind.words else "teacher"
    request = Request(heads=heads, part=part)
    report = to_ours(theirs, ours, request)
    to_official(ours, back)
    to_ours(back, again, request)
    first, second = (inner(each, part)[0] for each in (content, torch.load(back, weights_only=True)))
    equal = list(first) == list(second) and all(same(first[each], second[each]) for each in first)
    return {
        "kind": name,
        "source": report.source,
        "tensors": report.tensors,
        "matched": report.matched,
        "further names of them": report.repeated,
        "left out": len(report.left),
        "not known": len(report.unknown),
        "official-ours-official": "equal" if equal else "DIFFERS",
        "ours-official-ours": "equal" if _equal_files(ours, again) else "DIFFERS",
    }


def _equal_files(one: Path, other: Path) -> bool:
    from tests.convert.test_round_trips import read

    states = [(content := read(path)).get("state_dict", content) for path in (one, other)]
    return set(states[0]) == set(states[1]) and all(same(states[0][each], states[1][each]) for each in states[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/round_trips.json"))
    options = parser.parse_args()
    rows = []
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(name, kind, Path(folder)))
    write_json(options.out, {"rows": rows})
    for cells in (list(rows[0]), ["---"] * len(rows[0]), *(list(each.values()) for each in rows)):
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
