"""What losses remember: a queue against a plain list, gathering over ranks against concatenation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frugalseg.papers.mevt.memory import Fifo
from frugalseg.papers.mevt.terms import Moment


def rows(count, start, width=2):
    """Rows that tell their number."""
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].repeat(1, width)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(0, 7), max_size=6))
def test_the_oldest_rows_give_way(size, pushes):
    """mevt.md c.4: FIFO; pushes that fit are kept whole, in their order."""
    queue, expected, begin = Fifo(size, 2), [], 0
    for count in (min(push, size) for push in pushes):
        queue.push(rows(count, begin))
        expected = [*expected, *range(begin, begin + count)][-size:]
        begin += count
        assert queue.latest()[:, 0].tolist() == expected
        assert int(queue.filled) == len(expected) and queue.rows.shape == (size, 2)


@pytest.mark.parametrize(("size", "count"), [(4, 5), (4, 100), (1, 3)])
def test_of_too_many_rows_some_of_everywhere_are_kept(size, count):
    """Points come sorted by image: the last ones alone would be those of a few images."""
    queue = Fifo(size, 2)
    queue.push(rows(size, -100))
    queue.push(rows(count, 0))
    kept = queue.latest()[:, 0]
    assert len(kept) == size and kept.min() >= 0
    gaps = kept.diff()
    assert (gaps > 0).all() and (not len(gaps) or gaps.max() - gaps.min() <= 1)
    assert size == 1 or (kept[0] == 0 and kept[-1] == count - 1)


def test_a_full_queue_begins_with_unit_vectors():
    torch.manual_seed(0)
    queue = Fifo(500, 3, full=True)
    np.testing.assert_allclose(queue.latest().norm(dim=1), 1, rtol=1e-6)
    # of no direction in particular: a mean of n unit vectors is about 1 / sqrt(n) long
    assert queue.latest().mean(dim=0).norm() < 4 / 500**0.5
    assert len(queue.latest()) == 500


def test_checkpoints_hold_it():
    queue, other = Fifo(5, 2), Fifo(5, 2)
    queue.push(rows(3, 1))
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.latest(), queue.latest()) and len(other.latest()) == 3


def test_a_full_queue_forgets_that_it_was_when_a_less_full_one_is_loaded():
    queue, other = Fifo(5, 2), Fifo(5, 2, full=True)
    queue.push(rows(3, 1))
    assert len(other.latest()) == 5
    nn.ModuleList([other]).load_state_dict(nn.ModuleList([queue]).state_dict())  # as a part of a task
    assert torch.equal(other.latest(), queue.latest()) and len(other.latest()) == 3


def test_no_gradient_is_kept():
    queue, x = Fifo(2, 2), rows(2, 1).requires_grad_()
    queue.push(x * 2)
    assert not queue.rows.requires_grad


@pytest.mark.parametrize("counts", [(2, 3), (0, 2), (1, 0, 4), (0, 0)])
def test_gathering_is_concatenation_in_the_order_of_ranks(counts):
    """Ranks run one after another: each collective of a rank is answered with the sum of what all hand in."""
    parts = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in counts]
    heard = [[], []]  # what each rank hands to its first and second collective

    def first_pass(rank, totals):
        calls = iter(range(2))

        def reduce(value):
            number = next(calls)
            heard[number].append(value.clone())
            return totals[number] if number < len(totals) else value

        return Moment(0.04, [], reduce, rank, len(counts)).gather(parts[rank])

    for rank in range(len(counts)):
        first_pass(rank, [torch.tensor([float(n) for n in counts])])
    totals = [sum(heard[0]), sum(heard[1])]
    assert totals[0].tolist() == list(counts)
    for rank in range(len(counts)):
        assert torch.equal(first_pass(rank, totals), torch.cat(parts))
    mine = torch.randn(2, 3)
    assert Moment(0.04, []).gather(mine) is mine and Moment(0.04, []).mean_count(mine) is None
