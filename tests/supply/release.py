"""`python -m tests.supply.release [--out dist]`: the mechanical part of RELEASING.md.

Builds the committed tree twice, sdist and from it the wheel, and compares digests; looks into both; installs the wheel,
without what it needs, into an environment of its own and asks it for its version; and compares the version with
CITATION.cff, CHANGELOG.md and the tag.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from io import BytesIO
from pathlib import Path

from frugalseg.errors import ConfigError, FrugalsegError
from tests.supply.project import REPOSITORY

BACKEND = "import setuptools.build_meta as b, sys; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
NEEDED = ("py.typed", "analysis/published.yaml", "analysis/html/templates/", "data/lists/voc12/")
"""Places of the package that are no Python and must be in the wheel."""
FOREIGN = re.compile(r"(^|/)(tests?|notebooks|runs|shared|experiments)/|\.(pyc|pt|pth|ckpt|pkl)$|(^|/)\.")
"""What has no place in a wheel; an sdist may hold the tests of setuptools' own choosing, which MANIFEST.in takes out."""


def run(words: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Output of a command.

    Raises:
        ConfigError: it failed.
    """
    done = subprocess.run(words, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-1:] or ["no output"]
        raise ConfigError(f"`{' '.join(words)[:120]}` failed: {last[0][:300]}")
    return done.stdout


def export(repository: Path, folder: Path) -> int:
    """Write the committed tree, as a fresh clone has it, and say when it was committed (seconds since 1970).

    Raises:
        ConfigError: there is no commit.
    """
    archive = folder.with_suffix(".tar")
    run(["git", "archive", "--output", str(archive), "HEAD"], repository)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    return int(run(["git", "log", "-1", "--format=%ct"], repository))


def steady(sdist: Path, epoch: int) -> None:
    """Rewrite an sdist so that it depends on its files alone: order, times, owners, permissions, and gzip's own time.

    Args:
        sdist: a .tar.gz.
        epoch: time of every entry.
    """
    with tarfile.open(sdist) as packed:
        entries = sorted((each for each in packed.getmembers() if each.isfile()), key=lambda each: each.name)
        contents = [packed.extractfile(each).read() for each in entries]
    plain = BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for before, content in zip(entries, contents, strict=True):
            entry = tarfile.TarInfo(before.name)
            entry.size, entry.mtime, entry.mode = len(content), epoch, 0o755 if before.mode & 0o100 else 0o644
            packed.addfile(entry, BytesIO(content))
    with sdist.open("wb") as stream, gzip.GzipFile("", "wb", 9, stream, mtime=epoch) as packed:
        packed.write(plain.getvalue())


def build(tree: Path, out: Path, epoch: int, python: Path) -> list[Path]:
    """Build an sdist and, from what is in it, a wheel.

    Args:
        tree: the project.
        out: where both go.
        epoch: time that files get.
        python: an interpreter with the build requirements.

    Returns:
        The sdist and the wheel.

    Raises:
        ConfigError: a build failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    name = run([str(python), "-c", BACKEND, "sdist", str(out)], tree, environment).split()[-1]
    sdist = out / name
    steady(sdist, epoch)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
        (inside,) = Path(folder).iterdir()
        name = run([str(python), "-c", BACKEND, "wheel", str(out)], inside, environment).split()[-1]
    return [sdist, out / name]


def inspect(wheel: Path, version: str) -> list[str]:
    """What is wrong with a wheel, a line each.

    Args:
        wheel: the file.
        version: that it must have.
    """
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = Parser().parsestr(packed.read(about).decode())
    info = about.rpartition("/")[0]
    found = [f"lacks frugalseg/{place}" for place in NEEDED if not any(f"frugalseg/{place}" in name for name in names)]
    found += [
        f"holds {name}" for name in names if FOREIGN.search(name) or name.split("/")[0] not in ("frugalseg", info)
    ]
    if said["Version"] != version:
        found.append(f"says version {said['Version']}, the package {version}")
    if not any(name.startswith(f"{info}/licenses/") for name in names):
        found.append("lacks the licence")
    found += [
        f"its metadata lack {key}" for key in ("Summary", "License-Expression", "Requires-Python") if not said[key]
    ]
    if not said.get_payload():
        found.append("its metadata lack the README")
    return [f"{wheel.name}: {line}" for line in found]


def agreement(tree: Path, version: str, tag: str | None) -> list[str]:
    """Places that give another version than the package, a line each.

    Args:
        tree: the project.
        version: of the package.
        tag: name of the tag that is to be released, `v1.2.3`, or None before there is one.
    """
    found = []
    cited = re.search(r"^version: *(\S+)$", (tree / "CITATION.cff").read_text(), re.M)
    if cited is None or cited[1] != version:
        found.append(f"CITATION.cff: version {cited[1] if cited else 'missing'}, the package is {version}")
    if tag and tag != f"v{version}":
        found.append(f"tag {tag}: the package is {version}; the tag is v{version}")
    if tag and not re.search(rf"^## \[?{re.escape(version)}(?![\w.])", (tree / "CHANGELOG.md").read_text(), re.M):
        found.append(f"CHANGELOG.md: has no heading `## {version}`; give `Unreleased` its version and date")
    return found


def environment(folder: Path, requirements: list[str]) -> Path:
    """A fresh environment, and its interpreter.

    Raises:
        ConfigError: pip could not install something.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if requirements:
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], folder)
    return python


def installed_version(wheel: Path, folder: Path) -> str:
    """What `frugalseg --version` prints where nothing but the wheel is installed.

    Raises:
        ConfigError: it cannot be installed, or needs a library to say its version.
    """
    python = environment(folder, ["--no-deps", str(wheel)])
    clean = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    place = run([str(python), "-c", "import frugalseg; print(frugalseg.__file__)"], folder, clean).strip()
    if not Path(place).resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{place}: imported in place of the wheel; unset PYTHONPATH")
    return run([str(folder / "bin" / "frugalseg"), "--version"], folder, clean).strip()


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(repository: Path, out: Path, tag: str | None) -> list[str]:
    """Build, compare, look, install; findings, a line each. What was built lies in `out`.

    Raises:
        ConfigError: a step could not be done at all.
    """
    with tempfile.TemporaryDirectory(prefix="frugalseg-release-") as name:
        work = Path(name)
        epoch = export(repository, work / "tree")
        version = run(
            [sys.executable, "-c", "from _version import __version__ as v; print(v)"], work / "tree/src/frugalseg"
        ).strip()
        needs = tomllib.loads((work / "tree/pyproject.toml").read_text())["build-system"]["requires"]
        python = environment(work / "builder", needs)
        found = agreement(work / "tree", version, tag)
        once = build(work / "tree", work / "once", epoch, python)
        export(repository, work / "again")
        for first, second in zip(once, build(work / "again", work / "twice", epoch, python), strict=True):
            print(f"{digest(first)}  {first.name}", flush=True)
            if digest(first) != digest(second):
                found.append(f"{first.name}: two builds differ ({digest(second)})")
        found += inspect(once[1], version)
        with tarfile.open(once[0]) as packed:
            found += [
                f"{once[0].name}: holds {each}" for each in packed.getnames() if re.search(r"^[^/]+/tests?/", each)
            ]
        if (said := installed_version(once[1], work / "clean")) != version:
            found.append(f"`frugalseg --version` says {said}, the package is {version}")
        out.mkdir(parents=True, exist_ok=True)
        for path in once:
            shutil.copy(path, out / path.name)
    return found


def main(argv: list[str]) -> int:
    """Print digests and findings; 1 where there are findings."""
    parser = argparse.ArgumentParser("python -m tests.supply.release", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist", help="where sdist and wheel go")
    parser.add_argument("--tag", help="the tag that is to be released")
    options = parser.parse_args(argv)
    try:
        found = check(REPOSITORY, options.out, options.tag)
    except FrugalsegError as error:
        print(error, file=sys.stderr)
        return 2
    for line in found:
        print(line)
    print(f"{options.out}: {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
