"""`python -m tests.faults`: lay every kind of fault on every stage of every miniature chain, and tell what came of it.

Writes results/faults.json. An interrupted run goes on: what has passed is kept in runs/faults until all has; `--fresh`
begins anew. `--into PAGE --marker M` writes the table of the last run between the marks of a page instead.
"""

import argparse
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.faults import inject, kinds, server
from tests.faults.bench import Bench, Failed
from tests.faults.cases import cases_of
from tests.faults.chains import CHAINS
from tests.faults.kinds import KINDS, Case
from tests.faults.record import revision, summary, write_table


def main() -> int:
    """Run it; 1 where something did not survive."""
    options = _parse()
    out = REPOSITORY / options.out
    if options.into is not None:
        write_table(options.into, options.marker, json.loads(out.read_text()))
        print(f"{options.into}: {options.marker} written from {options.out}")
        return 0
    top = REPOSITORY / options.folder
    began = _begin(top, options)
    server.load()
    kinds.MOUNTS[0] = inject.can_mount(top)
    names = options.only or list(CHAINS)
    _run_lanes(names, top, options)
    content = summary(top, names, began, options.nightly)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if not content["failed"] and not (options.only or options.stage or options.kind):
        (top / "plan.json").unlink()  # the next run begins at the beginning, not with what has failed
    print(f"{out}: {content['passed']} of {content['cases']} cases passed, {content['kills']} kills")
    for failure in content["failed"]:
        print(f"failed: {failure['case']}: {failure['why']}", file=sys.stderr)
    return 1 if content["failed"] else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("--nightly", action="store_true", help="more kills, and every kind on every stage")
    parser.add_argument("--only", action="append", choices=[*CHAINS], help="a chain; may be repeated")
    parser.add_argument("--stage", action="append", help="a stage; may be repeated")
    parser.add_argument("--kind", action="append", choices=[*KINDS], help="a kind of fault; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever has passed before")
    parser.add_argument("--lanes", type=int, default=2, help="chains at a time; default: 2")
    parser.add_argument("--out", default="results/faults.json", help="default: results/faults.json")
    parser.add_argument("--folder", default="runs/faults", help="to work in; default: runs/faults")
    parser.add_argument("--into", type=Path, help="write the table of --out into this page, and run nothing")
    parser.add_argument("--marker", default="faults", help="name of the marks in the page; default: faults")
    return parser.parse_args()


def _begin(top: Path, options: argparse.Namespace) -> float:
    """Go on with a run that was interrupted, or begin a new one; gives when it was begun."""
    record = top / "plan.json"
    for name in options.only or CHAINS:
        inject.unmount_all(top / name)
    known = json.loads(record.read_text()) if record.is_file() else {}
    if known.get("nightly") == options.nightly and not options.fresh:
        print(f"{top}: goes on with what was interrupted")
        return float(known["began"])
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    began = time.time()
    record.write_text(json.dumps({"nightly": options.nightly, "began": began}))
    return began


def _run_lanes(names: list[str], top: Path, options: argparse.Namespace) -> None:
    """Processes, each of which takes the next chain when it has done one."""
    reader, writer = os.pipe()
    os.write(writer, bytes(range(len(names))))
    os.close(writer)
    lanes = []
    for _ in range(min(options.lanes, len(names))):
        sys.stdout.flush()
        if (process := os.fork()) == 0:
            code = 1
            try:
                while chosen := os.read(reader, 1):
                    _run_chain(Bench(CHAINS[names[chosen[0]]](), top / names[chosen[0]]), top, options)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        lanes.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(lane, 0)[1]) for lane in lanes]
    if any(codes):
        raise SystemExit(f"a lane ended with {codes}; the same command goes on")


def _run_chain(bench: Bench, top: Path, options: argparse.Namespace) -> None:
    try:
        bench.prepare(print)
    except Failed as failure:
        _keep(top / "cases" / f"{bench.chain.name}.json", _failed(bench.chain.name, str(failure)))
        print(f"{bench.chain.name} FAILED: {failure}", flush=True)
        return
    cases = [
        case
        for case in cases_of(bench, options.nightly)
        if (not options.stage or case.stage.name in options.stage) and (not options.kind or case.kind in options.kind)
    ]
    for number, case in enumerate(cases, 1):
        record = top / "cases" / f"{case.name}.json"
        if record.is_file() and json.loads(record.read_text())["passed"]:
            continue
        content = _outcome(case)
        _keep(record, content)
        verdict = "ok" if content["passed"] else f"FAILED: {content['why']}"
        print(
            f"{bench.chain.name} {number}/{len(cases)} {case.stage.name}: {case.kind} {content['took']:.1f} s {verdict}",
            flush=True,
        )


def _keep(record: Path, content: dict[str, object]) -> None:
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(content, indent=1, default=str))


def _failed(chain: str, why: str) -> dict[str, object]:
    return {"chain": chain, "stage": "all", "kind": "run twice", "passed": False, "why": why, "took": 0.0}


def _outcome(case: Case) -> dict[str, object]:
    began = time.monotonic()
    content: dict[str, object] = {"chain": case.bench.chain.name, "stage": case.stage.name, "kind": case.kind}
    content["git"] = revision()
    try:
        content |= case.run() | {"passed": True}
    except Failed as failure:
        content |= {"passed": False, "why": str(failure)}
    except Exception as error:  # a defect of the bench, which must not end the others
        content |= {"passed": False, "why": f"{type(error).__name__}: {error} ({traceback.format_exc(limit=-2)})"}
    return content | {"took": round(time.monotonic() - began, 2)}


if __name__ == "__main__":
    sys.exit(main())
