"""`python -m tests.supply.lock [--write [--upgrade NAME ...]]`: requirements.lock out of pyproject.toml, or its faults.

Without --write the lock is checked against the bounds, against what the packages themselves need, and against what is
installed. With it pip works the pins out: those that are there stay unless --upgrade names them, so that a second run
writes the same bytes.

The lock has no hashes: pip takes them for all packages or none, a hash belongs to one wheel of one platform and Python,
and which index torch comes from (CUDA or CPU builds of one version) is the user's choice. Wheels of a release are
attested instead (RELEASING.md).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from frugalseg.errors import ConfigError, FrugalsegError
from frugalseg.run import write_text
from tests.supply.environments import PLATFORMS, Environment, Requires, closure, installed, marker
from tests.supply.project import LOCK, PYPROJECT, Pin, bounds, python_versions, read_lock

HEADER = """\
# Exact versions for `make setup` (Python {first} to {last}), written by `make lock`. Names and versions only: the configured
# package index decides where they come from.
# torch and torchvision must be taken as this pair: a CPU-only torch beside a CUDA torchvision breaks timm.
"""
LINUX = next(iter(PLATFORMS))
YANKED = re.compile(r"yanked version: '([^']+)' candidate \(version (\S+)")
"""What pip warns of."""


def pins_of(
    roots: list[Requirement], requires: Requires, versions: dict[str, tuple[str, str]], pythons: list[str]
) -> list[Pin]:
    """Pins of all that is needed anywhere.

    Args:
        roots: what pyproject.toml asks for.
        requires: normalised name -> requirements.
        versions: normalised name -> (name as it is spelled, version).
        pythons: supported ones, lowest first.

    Raises:
        ConfigError: something that Linux needs has no version.
    """
    places = {Environment(python, platform) for python in pythons for platform in PLATFORMS}
    names = {place: closure(roots, requires, place) for place in places}
    pins = []
    for name in sorted(set().union(*names.values())):
        needed = {place for place in places if name in names[place]}
        if name in versions:
            pins.append(Pin(*versions[name], marker(needed, pythons)))
        elif any(place.platform == LINUX for place in needed):
            raise ConfigError(f"{name}: is needed and pip gave no version of it; add it to pyproject.toml")
    return pins


def resolve(lines: list[str], constraints: list[str]) -> list[dict[str, Any]]:
    """What pip would install: the `install` list of its report.

    Args:
        lines: requirements.
        constraints: versions that stay.

    Raises:
        ConfigError: pip finds no solution or no index, or a version that was withdrawn.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, held, report = (Path(folder) / name for name in ("wanted.txt", "held.txt", "report.json"))
        wanted.write_text("\n".join(lines))
        held.write_text("\n".join(constraints))
        words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        words += ["--constraint", str(held), "--requirement", str(wanted)]
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
            raise ConfigError(f"pip found no set of versions ({said[0]}); make lock UPGRADE=NAME lets a pin go")
        if withdrawn := YANKED.search(done.stderr):
            raise ConfigError(
                f"{withdrawn[1]} {withdrawn[2]}: its publisher has withdrawn it; make lock UPGRADE={withdrawn[1]}, or"
                " mend the bound"
            )
        found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return found


def make(pyproject: Path, lock: Path, upgrade: list[str]) -> str:
    """Text of a new lock.

    Args:
        pyproject: the bounds.
        lock: the pins of now; may be missing.
        upgrade: names of packages that may change, or `all`.

    Raises:
        ConfigError: see `resolve` and `read_lock`, or the running Python is not the lowest that is supported.
    """
    pythons, roots = python_versions(pyproject), bounds(pyproject)
    if (running := "{}.{}".format(*sys.version_info)) != pythons[0]:
        raise ConfigError(
            f"Python {running}: the lock is made on the lowest one, whose versions all others take; use {pythons[0]}"
        )
    free = {canonicalize_name(name) for name in upgrade}
    held = [] if "all" in free or not lock.exists() else [pin for pin in read_lock(lock) if pin.key not in free]
    more: list[str] = []
    while True:
        found = resolve([*map(str, roots), *more], [f"{pin.name}=={pin.version}" for pin in held])
        about = {canonicalize_name(each["metadata"]["name"]): each["metadata"] for each in found}
        requires = {name: [Requirement(line) for line in each.get("requires_dist", ())] for name, each in about.items()}
        # pip answers for the Python that runs it: what only newer ones need is asked for by name
        needed = set().union(*(closure(roots, requires, Environment(python, LINUX)) for python in pythons))
        if needed <= set(about):
            break
        asking = [each for lines in (roots, *requires.values()) for each in lines]
        absent = needed - set(about)
        more += sorted({f"{e.name}{e.specifier}" for e in asking if canonicalize_name(e.name) in absent})
    versions = {name: (each["name"], each["version"]) for name, each in about.items()}
    pins = pins_of(roots, requires, versions, pythons)
    return HEADER.format(first=pythons[0], last=pythons[-1]) + "".join(f"{pin}\n" for pin in pins)


def faults(pyproject: Path, lock: Path, versions: dict[str, str], requires: Requires) -> list[str]:
    """What is wrong with a lock, a line each.

    Args:
        pyproject: the bounds.
        lock: the pins.
        versions: what is installed, by normalised name.
        requires: what that needs.

    Raises:
        ConfigError: a line of the lock is no pin.
    """
    pins, roots, pythons = read_lock(lock), bounds(pyproject), python_versions(pyproject)
    by_name = {pin.key: pin for pin in pins}
    found = [f"{pin.name}: pinned twice" for pin in pins if by_name[pin.key] is not pin]
    if [pin.key for pin in pins] != sorted(pin.key for pin in pins):
        found.append("the pins are not in alphabetical order")
    for root in roots:
        pin = by_name.get(canonicalize_name(root.name))
        if pin and not root.specifier.contains(pin.version, prereleases=True):
            found.append(f"{pin.name}: {pin.version} is outside {root.specifier} of {pyproject.name}")
    for name, pin in by_name.items():
        if versions.get(name, pin.version) != pin.version:
            found.append(f"{pin.name}: {versions[name]} is installed, {pin.version} is pinned")
    everywhere = [closure(roots, requires, Environment(python, LINUX)) for python in pythons]
    needed = set().union(*everywhere)
    found += [f"{name}: is needed and not pinned" for name in sorted(needed - set(by_name))]
    found += [f"{name}: is pinned and nothing needs it" for name in sorted(set(by_name) - needed)]
    return found


def main(argv: list[str]) -> int:
    """Write or check; 1 where the lock has faults."""
    parser = argparse.ArgumentParser("python -m tests.supply.lock", description=__doc__)
    parser.add_argument("--write", action="store_true", help="work the pins out and write them")
    parser.add_argument("--upgrade", nargs="+", default=[], metavar="NAME", help="packages that may change; all")
    options = parser.parse_args(argv)
    if options.upgrade and not options.write:
        parser.error("--upgrade has no meaning without --write")
    try:
        if options.write:
            print("asking the package index for versions, minutes where many may change", flush=True)
            write_text(LOCK, make(PYPROJECT, LOCK, options.upgrade))
            print(f"{LOCK.name}: {len(read_lock())} pins; `make setup` installs them")
            return 0
        found = faults(PYPROJECT, LOCK, *installed())
    except FrugalsegError as error:
        print(error, file=sys.stderr)
        return 2
    for line in found:
        print(f"{LOCK.name}: {line}")
    print(
        f"{LOCK.name}: {len(read_lock())} pins, {len(found)} faults"
        + ("; `make lock` and `make setup` mend them" if found else "")
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
