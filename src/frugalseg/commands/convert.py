"""`frugalseg convert`: checkpoints that authors released as ours, and ours under their names.

To ours: a net whose task is here becomes a checkpoint for `predict`, `validate`, `test --ckpt_path` and
`frugalseg.load`; a backbone becomes safetensors for `weights:`. Everything in the file is told: what matched, what was
left out on purpose, what no rule knows. A tensor that is registered several times must be equal everywhere.

To official: the names, the duplicates and the wrapper of the authors, so that their code loads it strictly.

Nothing in a file is executed. A report is written beside the new file: OUT.json.
"""

import argparse
from pathlib import Path

from frugalseg.convert import SOURCES, Request, to_official, to_ours
from frugalseg.convert.ours import planned
from frugalseg.convert.reading import read_raw
from frugalseg.convert.report import table
from frugalseg.convert.sources import source_named
from frugalseg.errors import ConfigError, RunFolderError


def run(argv: list[str]) -> int:
    """Convert one file, or print a table of names."""
    options = _parser().parse_args(argv)
    request = Request(options.source, options.task, options.classes, options.heads, options.part)
    if options.table:
        _print_table(options.file, request)
        if options.out is None:
            return 0
    if options.file is None or options.out is None:
        raise ConfigError("frugalseg convert needs FILE and --out OUT; or --table with FILE or --from SOURCE")
    if options.out.exists() and not options.overwrite:
        raise RunFolderError(f"{options.out}: is there already; give another --out, or --overwrite")
    if options.out.exists() and options.out.samefile(options.file):
        raise RunFolderError(f"{options.out}: is the file that is read; give another --out")
    convert = to_ours if options.to == "ours" else to_official
    for line in convert(options.file, options.out, request).lines():
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    sources = "\n".join(f"  {name:<12} {source.about}" for name, source in SOURCES.items())
    parser = argparse.ArgumentParser(
        "frugalseg convert", description=__doc__, epilog=f"sources:\n{sources}", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("file", type=Path, nargs="?", help="of the authors; with --to official one of ours")
    parser.add_argument("--from", dest="source", metavar="SOURCE", help="whose names; default: found out and told")
    parser.add_argument("--to", choices=("ours", "official"), default="ours")
    parser.add_argument(
        "--out", type=Path, help="file to write: .ckpt, .safetensors of a backbone, .pth of the authors"
    )
    parser.add_argument("--task", help="what it shall be: sfc, cti, irn, psa, a class path, or backbone for that alone")
    parser.add_argument(
        "--classes", type=int, metavar="K", help="with the background; refuse a file with another number"
    )
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads of a narrow CTI; default: width / 64")
    parser.add_argument("--part", choices=("teacher", "student"), default="teacher", help="of a whole DINO checkpoint")
    parser.add_argument("--table", action="store_true", help="print the table of names; without --out write nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    return parser


def _print_table(file: Path | None, request: Request) -> None:
    """Names of a file's net, or of the released one."""
    if file is not None:
        raw = read_raw(file, request.part)
        _, _, plan, found = planned(raw, request)
        lines = table(plan, raw.tensors, found)
    elif request.source is not None:
        source = source_named(request.source)
        lines = table(source.plan(source.default()))
    else:
        raise ConfigError("frugalseg convert --table needs FILE or --from SOURCE")
    print("\n".join(lines))
