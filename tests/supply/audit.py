"""`python -m tests.supply.audit [--tool PIP_AUDIT] [--require-service]`: pins that must not be installed.

What is known without a network comes first: versions that this project refuses, and licences. Known vulnerabilities come
from pip-audit, whose service answers for every package or it says nothing: where it cannot be asked that is one line.
"""

import argparse
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from frugalseg.errors import ConfigError, FrugalsegError
from tests.supply import licences
from tests.supply.project import LOCK, Pin, read_lock


class Refusal(NamedTuple):
    """Versions that are never installed.

    Attributes:
        what: a requirement that matches them.
        reason: why.
        sample: one of these versions, for the check that no bound of pyproject.toml lets it in.
    """

    what: Requirement
    reason: str
    sample: str


REFUSED = (
    Refusal(Requirement("lightning==2.6.2"), "was compromised where it was published", "2.6.2"),
    Refusal(Requirement("lightning==2.6.3"), "was compromised where it was published", "2.6.3"),
    Refusal(Requirement("lightning<2.6.6"), "a checkpoint could run code on loading", "2.6.5"),
    Refusal(Requirement("torch<2.6"), "`weights_only` could be got round", "2.5.1"),
    Refusal(Requirement("albumentations>2.0.8"), "2.0.8 is the last release under MIT", "2.0.9"),
    Refusal(Requirement("albumentationsx"), "AGPL", "2.0.9"),
)


def refused(pins: list[Pin]) -> list[str]:
    """Lines on pins that the project refuses."""
    by_name = {pin.key: pin for pin in pins}
    found = []
    for each in REFUSED:
        pin = by_name.get(canonicalize_name(each.what.name))
        if pin and each.what.specifier.contains(pin.version, prereleases=True):
            found.append(f"{pin.name} {pin.version}: {each.reason}")
    return found


def objections(pins: list[Pin]) -> list[str]:
    """Lines on pins whose installed package has a licence that is refused."""
    found = []
    for pin in pins:
        try:
            said = licences.objection(pin.key, licences.licence(metadata.metadata(pin.name)))
        except metadata.PackageNotFoundError:
            continue  # of another platform
        if said:
            found.append(f"{pin.name} {pin.version}: {said}")
    return found


def ask(tool: Path, lock: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each pin: its `dependencies`.

    Raises:
        ConfigError: it is not there, or its service cannot be asked.
    """
    words = [str(tool), "-r", str(lock), "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    except OSError as error:
        raise ConfigError(f"{tool}: cannot be run ({error.strerror}); `make audit` installs it") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{tool}: no answer in 15 minutes; run it where there is a network") from None
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        raise ConfigError(
            f"the vulnerability service cannot be asked ({said}); run this where there is a network"
        ) from None
    # a mirror without the service knows no package at all, which pip-audit takes for a clean result
    if all("skip_reason" in each for each in found):
        raise ConfigError(
            "the vulnerability service knows none of the packages, so nothing was looked up; ask where there is one"
        )
    return found


def vulnerable(answers: list[dict[str, Any]]) -> list[str]:
    """Lines on pins with known vulnerabilities."""
    return [
        f"{each['name']} {each['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no release'}"
        for each in answers
        for flaw in each.get("vulns", ())
    ]


def main(argv: list[str]) -> int:
    """Print findings; 1 where there are any, 2 where the service was required and did not answer."""
    parser = argparse.ArgumentParser("python -m tests.supply.audit", description=__doc__)
    parser.add_argument("--tool", type=Path, default=Path("pip-audit"), help="where pip-audit is")
    parser.add_argument("--lock", type=Path, default=LOCK, help="default: the project's")
    parser.add_argument("--require-service", action="store_true", help="not asking it is an error")
    options = parser.parse_args(argv)
    silent = None
    try:
        pins = read_lock(options.lock)
        found = refused(pins) + objections(pins)
        try:
            answers = ask(options.tool, options.lock)
        except ConfigError as error:
            silent = error
        else:
            found += vulnerable(answers)
            skipped = [each["name"] for each in answers if "skip_reason" in each]
            print(f"{len(answers) - len(skipped)} pins looked up" + (f", not {', '.join(skipped)}" if skipped else ""))
    except FrugalsegError as error:
        print(error, file=sys.stderr)
        return 2
    for line in found:
        print(line)
    print(f"{len(pins)} pins: {len(found)} findings" + (" among versions and licences" if silent else ""))
    if silent:
        print(silent, file=sys.stderr)
    return 1 if found else 2 if silent and options.require_service else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
