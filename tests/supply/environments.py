"""Where a package is needed: the closure of requirements on every supported Python, and the marker that says so."""

from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
}
"""The lock is made and tested on the first; the second says which packages are the first's alone."""
Requires = Mapping[str, list[Requirement]]


class Environment(NamedTuple):
    """A Python on a platform."""

    python: str
    platform: str

    def variables(self, extra: str) -> dict[str, str]:
        """What markers are evaluated with."""
        return {
            **PLATFORMS[self.platform],
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_version": "",
            "extra": extra,
        }


def closure(roots: Iterable[Requirement], requires: Requires, environment: Environment) -> set[str]:
    """Names of all packages that roots need, directly or not; also of those that `requires` says nothing about.

    Args:
        roots: where to begin.
        requires: normalised name -> its requirements.
        environment: where.
    """
    seen: set[tuple[str, str]] = set()
    todo = [(root, ("",)) for root in roots]
    while todo:
        requirement, of = todo.pop()
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate(environment.variables(extra)) for extra in of):
            continue
        name, wanted = canonicalize_name(requirement.name), ("", *sorted(requirement.extras))
        if fresh := [extra for extra in wanted if (name, extra) not in seen]:
            seen.update((name, extra) for extra in fresh)
            todo.extend((each, tuple(fresh)) for each in requires.get(name, ()))
    return {name for name, _ in seen}


def marker(needed: set[Environment], pythons: list[str]) -> str:
    """The condition under which a package is needed; empty for everywhere, also where no plain condition says it.

    Args:
        needed: of the product of `pythons` and the platforms.
        pythons: lowest first.
    """
    platforms = {each.platform for each in needed}
    versions = [version for version in pythons if any(each.python == version for each in needed)]
    if len(needed) != len(platforms) * len(versions) or not needed:
        return ""
    words = []
    if versions != pythons:
        if versions == pythons[-len(versions) :]:
            words.append(f'python_version >= "{versions[0]}"')
        elif versions == pythons[: len(versions)]:
            words.append(f'python_version < "{pythons[len(versions)]}"')
        else:
            return ""
    if platforms != set(PLATFORMS):
        words.append(f'sys_platform == "{platforms.pop()}"')
    return " and ".join(words)


def installed() -> tuple[dict[str, str], dict[str, list[Requirement]]]:
    """Versions and requirements of what is installed, by normalised name."""
    versions, requires = {}, {}
    for each in metadata.distributions():
        name = canonicalize_name(each.metadata["Name"])
        if name not in versions:  # the first on the path is the one that is imported
            versions[name] = each.version
            requires[name] = [Requirement(line) for line in each.requires or ()]
    return versions, requires
