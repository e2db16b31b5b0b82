"""What pyproject.toml, requirements.lock and the Makefile say; read by the checks of this folder."""

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from frugalseg.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = REPOSITORY / "pyproject.toml"
LOCK = REPOSITORY / "requirements.lock"
UNLOCKED = frozenset({"fuzz", "reference"})
"""Extras that the lock leaves out: they are of native code for few platforms, or compile C++."""
PIN = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.+!-]+)(?: ; (?P<marker>.+))?")


class Pin(NamedTuple):
    """A line of the lock.

    Attributes:
        name: as its project spells it.
        version: the one version.
        marker: where it is needed; empty for everywhere.
    """

    name: str
    version: str
    marker: str = ""

    @property
    def key(self) -> str:
        """The name as it is compared."""
        return canonicalize_name(self.name)

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")


def project(path: Path = PYPROJECT) -> dict[str, Any]:
    """The table `project` of a pyproject.toml.

    Raises:
        ConfigError: it is not TOML, or has no such table.
    """
    try:
        return tomllib.loads(path.read_text())["project"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be read ({error!r}); mend it") from None


def extras(path: Path = PYPROJECT) -> list[str]:
    """Extras whose packages the lock holds."""
    return sorted(set(project(path).get("optional-dependencies", {})) - UNLOCKED)


def bounds(path: Path = PYPROJECT, chosen: list[str] | None = None) -> list[Requirement]:
    """What is asked of packages: of all users, and of those who take extras.

    Args:
        path: a pyproject.toml.
        chosen: extras; None for those of the lock.

    Raises:
        ConfigError: a line is no requirement, or there is no such extra.
    """
    table = project(path)
    optional = table.get("optional-dependencies", {})
    names = extras(path) if chosen is None else chosen
    if unknown := [name for name in names if name not in optional]:
        raise ConfigError(f"{path}: has no extra {unknown[0]}; there are {', '.join(sorted(optional))}")
    lines = [*table.get("dependencies", []), *(line for name in names for line in optional[name])]
    try:
        return [Requirement(line) for line in lines]
    except InvalidRequirement as error:
        raise ConfigError(f"{path}: a dependency cannot be read ({' '.join(str(error).split())}); mend it") from None


def read_lock(path: Path = LOCK) -> list[Pin]:
    """Pins in the order of the file.

    Raises:
        ConfigError: a line is neither a comment nor `name==version`, such as an address, a range or an option.
    """
    pins = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        found = PIN.fullmatch(line)
        if found is None:
            raise ConfigError(f"{path}:{number}: `{line}` is not name==version; run `make lock`")
        pins.append(Pin(found["name"], found["version"], found["marker"] or ""))
    return pins


def python_versions(path: Path = PYPROJECT) -> list[str]:
    """The versions of Python that the classifiers name, lowest first."""
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in project(path)["classifiers"]]
    return sorted((each[1] for each in found if each), key=lambda version: int(version.split(".")[1]))


def makefiles(repository: Path = REPOSITORY) -> list[Path]:
    """The Makefile and what it includes."""
    text = (repository / "Makefile").read_text()
    included = re.findall(r"^-?include +(.+)$", text, re.MULTILINE)
    return [repository / "Makefile", *(repository / name for line in included for name in line.split())]


def make_targets(files: list[Path]) -> set[str]:
    """Targets that are written out by name."""
    return {name for file in files for name in re.findall(r"^([a-z0-9][a-z0-9-]*):(?!=)", file.read_text(), re.M)}
