"""Kept features in the order of an epoch, and where a stopped one goes on."""

from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.stages.probe import CachedFeatures, CacheIndex
from frugalseg.stages.probe.order import RowLoader, RowOrder


class Echo(Dataset):
    """Gives back the rows that it is asked for."""

    def __len__(self):
        return 20

    def __getitem__(self, rows):
        return rows


def row_loader(size, world=1, start=0, epoch=0):
    return RowLoader(Echo(), sampler=RowOrder(20, size, 1, 0, world, epoch, start), batch_size=None)


def test_lightnings_number_of_an_epoch_may_be_ahead_of_ours():
    order = RowOrder(20, 4, 1, ahead=2)
    order.set_epoch(5)
    assert list(order) == list(RowOrder(20, 4, 1, epoch=3)) != list(RowOrder(20, 4, 1, epoch=5))


def test_a_split_below_one_block_is_one_smaller_block_of_all_ranks():
    ranks = [list(RowOrder(5, 8, 4, rank, 2)) for rank in (0, 1)]
    assert [[len(rows) for rows in rank] for rank in ranks] == [[2], [2]]
    assert len({row for rank in ranks for row in rank[0]}) == 4


def test_a_position_counts_what_was_left_out_too():
    loader = row_loader(4, start=3, epoch=2)
    batches = iter(loader)
    next(batches)
    assert loader.position == (2, 4)


def test_a_position_inside_an_epoch_is_of_equal_steps_alone():
    saved = row_loader(4).state_dict()
    row_loader(2).load_state_dict(saved)  # at the beginning of an epoch nothing is meant by it
    row_loader(2, world=2, start=1).load_state_dict(saved)  # the same step, dealt out to two ranks
    with pytest.raises(CheckpointError, match="step 4 -> 2"):
        row_loader(2, start=1).load_state_dict(saved)


@pytest.mark.parametrize(
    ("given", "ready", "processed", "saved"),
    [(3, 3, 3, (1, 3)), (3, 3, 2, (1, 2)), (5, 5, 5, (2, 0))],
    ids=["between two steps", "before a step", "at the end of an epoch"],
)
def test_the_saved_position_is_that_of_the_next_step(given, ready, processed, saved):
    current = SimpleNamespace(ready=ready, processed=processed)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=current)))
    trainer = SimpleNamespace(fit_loop=loop, current_epoch=1, num_training_batches=5)
    data = SimpleNamespace(trainer=trainer, _train=SimpleNamespace(position=(1, given)))
    state = CachedFeatures.state_dict(data)
    assert (state["epoch"], state["batch"], state["ahead"]) == (*saved, 0)


def test_masks_of_another_grid_are_refused():
    index = CacheIndex(("train", "a"), ("val", "b"), "VOC", ("x",), "net", 6, 64, 16)
    index.check("net", 6, 64, 16)
    with pytest.raises(ConfigError, match="grid 16, not 32"):
        index.check("net", 6, 64, 32)
