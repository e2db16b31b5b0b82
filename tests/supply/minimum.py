"""`python -m tests.supply.minimum --write FILE`: the lowest versions that pyproject.toml allows, as constraints for pip.

`make test-minimum` installs with them. The standard library alone: it runs before anything is installed.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
BOUND = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[\w, -]+\])?\s*(?P<rule>[^;]*)")
LOWEST = re.compile(r"(?:>=|==|~=)\s*([\w.]+)")
EXTRAS = ("dev", "notebooks", "dashboards")
"""What the suite needs."""
HEADER = "# The lowest versions that pyproject.toml allows (python -m tests.supply.minimum).\n"


def lowest(lines: list[str]) -> tuple[list[str], list[str]]:
    """Constraints, and the names that have no lower bound.

    Args:
        lines: requirements, `name[extra]>=1.2,<3`.
    """
    found, without = [], []
    for line in lines:
        parts = BOUND.match(line)
        rule = LOWEST.search(parts["rule"]) if parts else None
        if parts and rule:
            found.append(f"{parts['name']}=={rule[1]}")
        else:
            without.append(parts["name"] if parts else line)
    return sorted(found, key=str.casefold), without


def constraints(pyproject: Path = PYPROJECT) -> tuple[list[str], list[str]]:
    """The same of a pyproject.toml's dependencies and of the extras that the suite needs."""
    table = tomllib.loads(pyproject.read_text())["project"]
    optional = table.get("optional-dependencies", {})
    return lowest([*table["dependencies"], *(line for extra in EXTRAS for line in optional.get(extra, ()))])


def main(argv: list[str]) -> int:
    """Print or write them."""
    parser = argparse.ArgumentParser("python -m tests.supply.minimum", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="a constraints file for pip; default: print them")
    options = parser.parse_args(argv)
    found, without = constraints()
    text = HEADER + "".join(f"{line}\n" for line in found)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    else:
        print(text, end="")
    for name in without:
        print(f"{name}: no lower bound, any version is taken", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
