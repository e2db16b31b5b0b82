import os
import time

import pytest

from frugalseg.data.parallel import each
from frugalseg.errors import DatasetError


def square(number):
    return number**2


def slow_square(number):
    time.sleep(0.02 * (5 - number % 5))  # later items finish first
    return number**2, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise DatasetError("item 3 is broken; mend it")
    time.sleep(0.01)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order(workers):
    seen = []
    assert each(square, range(10), workers, lambda *p: seen.append(p)) == [n**2 for n in range(10)]
    assert seen == [(n, 10) for n in range(1, 11)]


def test_several_processes_work():
    results = each(slow_square, range(10), 2)
    assert [value for value, _ in results] == [n**2 for n in range(10)]
    assert os.getpid() not in {pid for _, pid in results}
    assert len({pid for _, pid in results}) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_ends_it(workers):
    with pytest.raises(DatasetError, match="item 3 is broken"):
        each(fail_at_three, range(200), workers)


def test_nothing_to_do():
    assert each(square, []) == []
