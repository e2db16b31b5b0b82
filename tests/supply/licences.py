"""`python -m tests.supply.licences [--write]`: the licence of every pinned package, from its own metadata, as DEPENDENCIES.md."""

import argparse
import re
import sys
from importlib import metadata

from packaging.utils import canonicalize_name

from frugalseg.analysis.markdown import put_between
from frugalseg.errors import FrugalsegError
from tests.supply.environments import PLATFORMS, Environment, closure, installed
from tests.supply.project import PYPROJECT, REPOSITORY, bounds, extras, python_versions, read_lock

PAGE = REPOSITORY / "DEPENDENCIES.md"
MARKS = "<!-- licences: begin (make licences) -->", "<!-- licences: end -->"
COPYLEFT = re.compile(r"\b(A?GPL|AGPLv?\d|L?GPLv?\d|LGPL|GNU|SSPL|EUPL|CC-BY-(?:NC|SA)|Commons Clause|BUSL)", re.I)
"""Licences that reach what imports the package, or forbid some of its uses."""
PERMITTED_COPYLEFT: dict[str, str] = {}
"""Normalised name -> why it may stay."""
UNSTATED = {
    "cuda-toolkit": "NVIDIA proprietary; an empty package that names the libraries of CUDA",
}
"""What says nothing in its metadata, and its licence as its own pages give it."""
NAMES = {
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "NVIDIA Proprietary Software": "NVIDIA proprietary",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA proprietary",
}
"""Words of metadata -> as SPDX names them."""


def licence(about: metadata.PackageMetadata) -> str:
    """What metadata say: an SPDX expression, else a short text, else classifiers; empty where they are silent."""
    text = (about.get("License-Expression") or about.get("License") or "").strip()
    if not text or text == "UNKNOWN" or "\n" in text or len(text) > 160:
        classifiers = [
            each.split(" :: ")[-1] for each in about.get_all("Classifier") or () if each.startswith("License")
        ]
        # several of them may be a choice or not: they are taken to hold together
        text = " AND ".join(NAMES.get(each, each) for each in classifiers if each != "OSI Approved")
    return NAMES.get(text, text)


def objection(name: str, text: str) -> str | None:
    """Why a package may not be pinned, or nothing.

    Args:
        name: normalised.
        text: its licence; one of several alternatives is enough.
    """
    if not text and name not in UNSTATED:
        return "its metadata name no licence; look it up and add it to UNSTATED"
    if name not in PERMITTED_COPYLEFT and all(COPYLEFT.search(each) for each in re.split(r"\s+OR\s+", text or "-")):
        return f"{text} reaches what imports it; find another package or give a reason in PERMITTED_COPYLEFT"
    return None


def uses() -> dict[str, str]:
    """Normalised name -> for whom it is: users, or the first extra that brings it."""
    _, requires = installed()
    places = [Environment(python, platform) for python in python_versions() for platform in PLATFORMS]
    found: dict[str, str] = {}
    for what, chosen in [("everyone", []), *((extra, [extra]) for extra in extras())]:
        roots = bounds(PYPROJECT, chosen)
        for name in set().union(*(closure(roots, requires, place) for place in places)):
            found.setdefault(name, what)
    return found


def rows() -> list[tuple[str, str, str]]:
    """(name, licence, for whom) of each pin, in the order of the lock; only of what is installed."""
    needed, found = uses(), []
    for pin in read_lock():
        try:
            text = licence(metadata.metadata(pin.name))
        except metadata.PackageNotFoundError:
            continue
        found.append((pin.name, text or UNSTATED.get(pin.key, ""), needed.get(pin.key, "nobody")))
    return found


def page(found: list[tuple[str, str, str]]) -> str:
    """Markdown table of rows."""
    lines = [
        "| package | licence | for |",
        "|---|---|---|",
        *(f"| {name} | {text} | {use} |" for name, text, use in found),
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Print the table or write it; 1 where a licence is refused."""
    parser = argparse.ArgumentParser("python -m tests.supply.licences", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args(argv)
    try:
        found = rows()
        if options.write:
            put_between(PAGE, *MARKS, page(found))
        else:
            print(page(found))
    except FrugalsegError as error:
        print(error, file=sys.stderr)
        return 2
    refused = [(name, said) for name, text, _ in found if (said := objection(canonicalize_name(name), text))]
    for name, said in refused:
        print(f"{name}: {said}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
