"""Parts that go wrong, for the tests of `tests.benchmark.gpu`."""

import time
from collections.abc import Iterator

from tests.benchmark.measure import Measured, Rows, Skip


def hangs(quick: bool) -> Iterator[dict[str, Measured]]:
    yield {"a.first": Measured(1.0)}
    time.sleep(600)


def fails(quick: bool) -> Iterator[dict[str, Measured]]:
    yield {"a.first": Measured(1.0)}
    raise RuntimeError("the card is on fire")


def lacks_one(quick: bool) -> Rows:
    return {"a.first": Skip("out of memory"), "a.second": Measured(2.0)}
