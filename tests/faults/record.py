"""What came of all cases, as JSON and as a table of a page."""

import json
import os
import platform
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from frugalseg.analysis.markdown import put_between
from tests.conftest import REPOSITORY
from tests.faults.kinds import KINDS, MOUNTS

TITLES = {"sfc": "SFC", "cti": "CTI", "dsmf": "DSMF-Net", "mevt": "MEVT"}


def revision() -> str:
    """The commit, with a plus sign where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def summary(top: Path, names: list[str], began: float, nightly: bool) -> dict[str, Any]:
    """Counts over the records of all cases.

    Args:
        top: folder of the run.
        names: of the chains that were run.
        began: when, in seconds since 1970.
        nightly: which of the two sets of cases it was.
    """
    cases = [json.loads(path.read_text()) for path in sorted((top / "cases").glob("*.json"))]
    cases = [case for case in cases if case["chain"] in names]
    laid = [case for case in cases if "skipped" not in case]
    kills, hits = (sum(case.get(key, 0) for case in laid) for key in ("kills", "hits"))
    phases = Counter(phase for case in laid for phase in case.get("phases", []))
    where = Counter(case["where"] for case in laid if "where" in case)
    return {
        "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": revision(),
        "revisions": sorted({case["git"] for case in laid if "git" in case}),
        "machine": {"machine": platform.machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "nightly": nightly,
        "mounts": MOUNTS[0],
        "cases": len(laid),
        "passed": sum(case["passed"] for case in laid),
        "commands_seconds": round(sum(case["took"] for case in cases), 1),
        "kills": kills,
        "kills_that_hit_a_running_stage": hits,
        "share_hit": round(hits / kills, 4) if kills else None,
        "phases": dict(phases),
        "written_when_killed": dict(where),
        "chains": {name: _counts(laid, "chain", name) | {"kinds": _by_kind(laid, name)} for name in names},
        "kinds": {kind: _counts(laid, "kind", kind) for kind in KINDS},
        "differ_when_run_twice": _differing(cases),
        "failed": [
            {"case": f"{case['chain']} {case['stage']}: {case['kind']}", "why": case["why"]}
            for case in laid
            if not case["passed"]
        ],
    }


def _counts(cases: list[dict[str, Any]], key: str, value: str) -> dict[str, int]:
    ours = [case for case in cases if case[key] == value]
    stages = {(case["chain"], case["stage"]) for case in ours}
    kills = sum(case.get("kills", 0) for case in ours)
    return {"cases": len(ours), "passed": sum(c["passed"] for c in ours), "stages": len(stages), "kills": kills}


def _by_kind(cases: list[dict[str, Any]], chain: str) -> dict[str, dict[str, int]]:
    ours = [case for case in cases if case["chain"] == chain]
    return {kind: _counts(ours, "kind", kind) for kind in KINDS}


def _differing(cases: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Why files of two undisturbed runs differ -> which ones, with `*` for all files of a folder."""
    found: dict[str, set[str]] = {}
    for case in cases:
        for name, why in case.get("differ", {}).items():
            path = Path(name)
            short = f"*{path.suffix}" if path.parent.name else name
            found.setdefault(why, set()).add(f"{case['chain']}/{case['stage']}/{(path.parent / short).as_posix()}")
    return {why: sorted(names) for why, names in found.items()}


def table(content: dict[str, Any]) -> list[str]:
    """Markdown: a row for each kind of fault, a column for each chain."""
    chains = [name for name in TITLES if name in content["chains"]]
    lines = [f"| fault | {' | '.join(TITLES[name] for name in chains)} | survived |", "|---" * (len(chains) + 2) + "|"]
    for kind in KINDS:
        counts = content["kinds"][kind]
        cells = [content["chains"][name]["kinds"][kind] for name in chains]
        told = [f"{each['passed']} of {each['cases']}" if each["cases"] else "-" for each in (*cells, counts)]
        lines.append(f"| {kind} | {' | '.join(told)} |")
    when, share = content["finished"][:10], content["share_hit"]
    lines += [
        "",
        f"{content['kills']} kills, {100 * (share or 0):.0f} % of them while the stage was at work; {when}, revision"
        f" {content['git'][:8]}, {content['machine']['cores']} cores, "
        f"{'all kinds on all stages' if content['nightly'] else 'the bounded set'}.",
    ]
    return [*lines, *_unequal(content["differ_when_run_twice"])]


def _unequal(differ: dict[str, list[str]]) -> list[str]:
    """Which files of two undisturbed runs are not the same bytes, and why: their names, and in how many stages."""
    if not differ:
        return []
    lines = ["", "Two undisturbed runs give the same files but for these, with the number of places:", ""]
    for why, names in sorted(differ.items()):
        below = {"/".join(name.split("/")[2:]) for name in names}
        lines.append(f"- {', '.join(f'`{name}`' for name in sorted(below))} (in {len(names)}): {why}")
    return lines


def write_table(page: Path, marker: str, content: dict[str, Any]) -> None:
    """Put the table between the marks of a page.

    Args:
        page: with the two lines.
        marker: their name.
        content: what `summary` gave.
    """
    begin, end = f"<!-- {marker}: begin (python -m tests.faults --into) -->", f"<!-- {marker}: end -->"
    put_between(page, begin, end, "\n".join(table(content)))
