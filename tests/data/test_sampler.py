from itertools import pairwise

import numpy as np
import pytest

from frugalseg.data.sampler import ExactSampler, TrainSampler, draw_rng


@pytest.mark.parametrize(("n", "batch", "world"), [(10, 3, 1), (23, 4, 2), (24, 4, 3), (7, 7, 1), (100, 6, 4)])
def test_ranks_put_together_are_one_rank_with_the_whole_batch(n, batch, world):
    for epoch in range(3):
        one = TrainSampler(n, batch * world, seed=3, epoch=epoch)
        ranks = [TrainSampler(n, batch, seed=3, rank=rank, world=world, epoch=epoch) for rank in range(world)]
        assert {len(sampler) for sampler in ranks} == {len(one)} == {n // (batch * world)}
        together = [[draw for part in parts for draw in part] for parts in zip(*ranks, strict=True)]
        assert together == list(one)
        flat = [index for step in together for index, _ in step]
        assert len(set(flat)) == len(flat) == len(one) * batch * world


def test_epochs_and_seeds_differ_and_repeat():
    orders = {(seed, epoch): tuple(TrainSampler(50, 5, seed).permutation(epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert orders[1, 1] == tuple(TrainSampler(50, 9, 1).permutation(1))


def test_draws_number_every_draw_of_the_training_once():
    sampler, draws = TrainSampler(12, 4), []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        draws += [draw for batch in sampler for _, draw in batch]
    assert draws == list(range(36))
    first, second = (draw_rng(5, 7).random(4) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, draw_rng(5, 8).random(4))
    assert not np.array_equal(first, draw_rng(6, 7).random(4))


def test_start_skips_once_and_length_stays():
    whole = list(TrainSampler(20, 3, seed=1, epoch=2))
    sampler = TrainSampler(20, 3, seed=1, epoch=2, start=4)
    assert len(sampler) == 6
    assert list(sampler) == whole[4:]
    assert len(sampler) == 6
    assert list(sampler) == whole


def test_an_epoch_is_fixed_when_it_begins():
    sampler = TrainSampler(20, 3, epoch=1)
    batches = iter(sampler)
    sampler.set_epoch(5)
    assert list(batches) == list(TrainSampler(20, 3, epoch=1))


@pytest.mark.parametrize(("n", "last"), [(20, [2, 2]), (21, [2, 3]), (17, None), (18, [1, 1])])
def test_last_block_is_split_evenly_or_left_out(n, last):
    ranks = [list(TrainSampler(n, 4, rank=rank, world=2, drop_last=False)) for rank in range(2)]
    assert {len(batches) for batches in ranks} == {2 + (last is not None)}
    assert len(TrainSampler(n, 4, world=2, drop_last=False)) == len(ranks[0])
    if last:
        assert [len(batches[-1]) for batches in ranks] == last
        assert sorted(i for batches in ranks for batch in batches for i, _ in batch) == list(range(n))


def test_exact_sampler_neither_pads_nor_repeats():
    for n in range(12):
        for world in (1, 2, 3, 5):
            parts = [ExactSampler(n, rank, world) for rank in range(world)]
            assert sorted(index for part in parts for index in part) == list(range(n))
            assert all(len(part) == len(list(part)) for part in parts)
            assert all(list(part) == list(range(rank, n, world)) for rank, part in enumerate(parts))


def test_exact_sampler_shares_out_by_size():
    """Two ranks differ by the largest sample at most, which a split that is sorted by size would not keep."""
    sizes = [1.0, 1, 9, 1, 7, 1, 5, 1, 3]
    for world in (1, 2, 3):
        parts = [list(ExactSampler(len(sizes), rank, world, sizes)) for rank in range(world)]
        assert sorted(index for part in parts for index in part) == list(range(len(sizes)))
        work = [sum(sizes[index] for index in part) for part in parts]
        assert max(work) - min(work) <= max(sizes)
        assert all(sizes[i] >= sizes[j] for part in parts for i, j in pairwise(part))
    plain = [sum(sizes[index] for index in ExactSampler(len(sizes), rank, 2)) for rank in range(2)]
    assert max(plain) - min(plain) > max(sizes)


def test_a_sampler_keeps_its_own_count_of_epochs():
    fresh, resumed = TrainSampler(7, 2, seed=3), TrainSampler(7, 2, seed=3, epoch=1, start=1, ahead=3)
    fresh.set_epoch(1)
    resumed.set_epoch(4)  # Lightning's number of the same epoch
    assert list(resumed) == list(fresh)[1:]
    fresh.set_epoch(2)
    resumed.set_epoch(5)
    assert list(resumed) == list(fresh)
