"""`python -m tests.supply.hooks CHECK FILE...`: the checks of .pre-commit-config.yaml that no tool of ours has.

Each takes a file and says in one line what is wrong with it, or nothing.
"""

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import yaml

LARGEST = 2 << 20
"""Bytes of the largest file; the golden vectors and the lists that ship stay below it."""
CONFLICT = re.compile(r"^(<{7} |>{7} |\|{7} |={7}$)", re.MULTILINE)
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How a pickle begins, by protocol; one inside a zip is torch's."""
PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib"}
REGISTRY_HOST = re.compile(r"\b(?:(?:test\.)?py[p]i\.org|[\w-]+\.pythonh[o]sted\.org|registry\.np[m]js\.org)\b")
INDEX_SETTING = re.compile(
    r"(?:--|^\s*|\bPIP_)(?:extra[-_])?(?:index[-_]url|find[-_]links)\b\s*[ =:]\s*[\"']?(?:https?|file):", re.I | re.M
)
AT_ADDRESS = re.compile(r"^\s*[\"']?[\w.\[\]-]+\s*@\s*(?:git\+|https?:|file:)", re.M)
"""A requirement that names its own place: `name @ https://...`."""


def text_of(path: Path) -> str:
    """A file's text; nothing of one that is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def large(path: Path) -> str | None:
    """Files that belong to a release or a data set, not to Git."""
    size = path.stat().st_size
    return f"{size} bytes, more than {LARGEST}; leave it out of Git" if size > LARGEST else None


def conflict(path: Path) -> str | None:
    """What a merge left behind."""
    found = CONFLICT.search(text_of(path))
    return f"the mark `{found[0].strip()}` of a merge; finish the merge" if found else None


def settings(path: Path) -> str | None:
    """YAML, TOML, JSON and notebooks that do not parse."""
    try:
        if path.suffix in {".yaml", ".yml", ".cff"}:
            list(yaml.safe_load_all(path.read_text()))
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text())
        elif path.suffix in {".json", ".ipynb"}:
            json.loads(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        return f"cannot be read ({' '.join(str(error).split())[:160]})"
    return None


def notebook(path: Path) -> str | None:
    """Notebooks with outputs: results are written by scripts."""
    cells = json.loads(path.read_text()).get("cells", [])
    count = sum(bool(cell.get("outputs") or cell.get("execution_count")) for cell in cells)
    return f"{count} cells have outputs; clear them" if count else None


def registry(path: Path) -> str | None:
    """Package indexes by name: the configured one decides where packages come from."""
    text = text_of(path)
    found = REGISTRY_HOST.search(text) or INDEX_SETTING.search(text)
    if found is None and path.name.endswith((".toml", ".txt", ".lock", ".cfg")):
        found = AT_ADDRESS.search(text)
    return f"`{found[0].strip()}` names a package index or a place; names and versions only" if found else None


def pickled(path: Path) -> str | None:
    """Pickles, by name and by content: loading one runs what is in it."""
    with path.open("rb") as stream:
        begin = stream.read(2)
    if path.suffix in PICKLE_SUFFIXES or begin in PICKLES:
        return "a pickle or a name of one; weights are safetensors, arrays npz without objects"
    return None


CHECKS: dict[str, Callable[[Path], str | None]] = {
    "large": large,
    "conflict": conflict,
    "settings": settings,
    "notebook": notebook,
    "registry": registry,
    "pickled": pickled,
}


def main(argv: list[str]) -> int:
    """Print a line for each bad file; 1 where there is one."""
    if len(argv) < 1 or argv[0] not in CHECKS:
        print(f"python -m tests.supply.hooks CHECK FILE...; CHECK is one of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    bad = 0
    for path in map(Path, argv[1:]):
        if path.is_file() and (said := CHECKS[argv[0]](path)):
            print(f"{path}: {said}")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
