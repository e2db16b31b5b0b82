"""`python -m tests.supply.addresses [--only NAME ...]`: whether every published address still answers, and with what.

Files of data/sources.py, timm's weights of `data get weights`, and the pages that the steps of a login name. Nothing is
fetched: a HEAD, and where a server refuses that, one byte. Exit code 1 where an address is dead or its file another one.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import requests

from frugalseg.data.fetch import BROKEN, PASSING, TIMEOUT, in_units
from frugalseg.data.sources import SOURCES, STEPS, Source
from frugalseg.errors import ConfigError, FrugalsegError

ATTEMPTS, PAUSE = 3, 5.0
"""Tries at a server that is busy or drops the connection, and the seconds between them."""
NO_HEAD = {403, 405, 501}
"""Answers of servers that do not take HEAD."""
ADDRESS = re.compile(r"https?://[^\s,;)]+[^\s,;:.)]")
BY_HEADER = {"x-linked-etag": {32: "md5", 64: "sha256"}, "etag": {32: "md5"}}
"""Headers that may hold a checksum -> digits of it -> its algorithm."""


class Answer(NamedTuple):
    """What a server said of a file.

    Attributes:
        code: of HTTP.
        size: bytes, or None where it does not say.
        digest: `algorithm:hex`, or None.
    """

    code: int
    size: int | None
    digest: str | None


class Verdict(NamedTuple):
    """Of one address: whether it is good, and why."""

    group: str
    url: str
    good: bool
    what: str


def pages() -> dict[str, list[Source]]:
    """What people are sent to: sizes are not published."""
    return {name: [Source(url, url, None, None) for url in ADDRESS.findall(text)] for name, text in STEPS.items()}


def weights() -> list[Source]:
    """Files of the hub that `frugalseg data get weights` fetches."""
    from huggingface_hub import hf_hub_url  # seconds, and only where weights are asked for

    from frugalseg.commands.data_get import MODELS, _repository

    return [Source(hf_hub_url(_repository(name), "model.safetensors"), name, None, None) for name in MODELS]


def groups(only: Sequence[str]) -> dict[str, list[Source]]:
    """Addresses by benchmark; pages of the steps of one belong to it, and `weights` is a group of its own.

    Raises:
        ConfigError: no such group.
    """
    known = sorted({*SOURCES, *STEPS, "weights"})
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(f"--only {unknown[0]}: there are {', '.join(known)}")
    said, found = pages(), {}
    for name in only or known:
        found[name] = weights() if name == "weights" else [*SOURCES.get(name, ()), *said.get(name, ())]
    return found


def _digest(headers: "requests.structures.CaseInsensitiveDict[str]") -> str | None:
    for name, digits in BY_HEADER.items():
        value = headers.get(name, "").strip('"')
        if re.fullmatch("[0-9a-f]+", value) and len(value) in digits:
            return f"{digits[len(value)]}:{value}"
    return None


def _size(response: requests.Response) -> int | None:
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    said = whole[1] if whole else response.headers.get("x-linked-size") or response.headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else None


def ask(session: requests.Session, url: str) -> Answer:
    """Ask for what a file is, without fetching it.

    Raises:
        requests.RequestException: no answer.
    """
    plain = {"Accept-Encoding": "identity"}
    for method, more in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        with session.request(
            method, url, headers=plain | more, timeout=TIMEOUT, stream=True, allow_redirects=True
        ) as got:
            # the hub says the size and the sha256 of a file on the way to where it lies
            first = next((each for each in got.history if "x-linked-etag" in each.headers), got)
            answer = Answer(got.status_code, _size(first), _digest(first.headers))
        if answer.code not in NO_HEAD:
            break
    return answer


def judge(session: requests.Session, group: str, source: Source) -> Verdict:
    """Whether an address holds what was published."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        try:
            answer = ask(session, source.url)
        except BROKEN as error:
            said = f"no answer ({' '.join(str(error).split())[:120]})"
            continue
        except requests.RequestException as error:
            return Verdict(group, source.url, False, f"not an address ({error})")
        if answer.code not in PASSING:
            return Verdict(group, source.url, *_compared(source, answer))
        said = f"HTTP {answer.code}"
    return Verdict(group, source.url, False, f"{said}, {ATTEMPTS} times")


def _compared(source: Source, answer: Answer) -> tuple[bool, str]:
    """Whether an answer agrees with what was published, and what it says."""
    if answer.code >= 400:
        return False, f"HTTP {answer.code}"
    if source.size is not None and answer.size not in (None, source.size):
        return False, f"{answer.size} bytes, {source.size} were published"
    algorithm = (source.digest or "").partition(":")[0]
    # an ETag need not be a checksum, so that only an equal one says anything; the hub's sha256 is one
    comparable = algorithm == "sha256" and (answer.digest or "").startswith("sha256:")
    if comparable and answer.digest != source.digest:
        return False, f"{answer.digest}, {source.digest} was published"
    words = [f"HTTP {answer.code}", "size not said" if answer.size is None else in_units(answer.size)]
    if source.digest and answer.digest == source.digest:
        words.append(f"{algorithm} is right")
    return True, ", ".join(words)


def verdicts(wanted: dict[str, list[Source]]) -> Iterator[Verdict]:
    """One after another, in the order of the groups."""
    with requests.Session() as session:
        for group, sources in wanted.items():
            for source in sources:
                yield judge(session, group, source)


def main(argv: list[str]) -> int:
    """Print a line for each address; 1 where one is dead or wrong."""
    parser = argparse.ArgumentParser("python -m tests.supply.addresses", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="benchmarks, or weights")
    try:
        wanted = groups(parser.parse_args(argv).only)
    except FrugalsegError as error:
        print(error, file=sys.stderr)
        return 2
    asked = bad = 0
    for each in verdicts(wanted):
        asked, bad = asked + 1, bad + (not each.good)
        print(f"{'ok ' if each.good else 'BAD'} {each.group:<11} {each.url}: {each.what}", flush=True)
    print(f"{asked} addresses, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
