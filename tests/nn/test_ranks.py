"""Means over the pixels of all ranks."""

import pytest
import torch

from frugalseg.nn.ranks import divided


def test_the_mean_over_ranks_is_that_over_all_pixels():
    totals, counts = torch.tensor([12.0, 3.0]), torch.tensor([6, 2])
    shares = [
        divided(total, count, lambda _: counts.double().mean()) for total, count in zip(totals, counts, strict=True)
    ]
    assert torch.stack(shares).mean() == totals.sum() / counts.sum()
    # the plain mean of means is another number
    assert (totals / counts).mean() != totals.sum() / counts.sum()


@pytest.mark.parametrize("count", [torch.tensor(0), torch.tensor(0.0)])
def test_nothing_counts(count):
    total = torch.tensor(0.0, requires_grad=True)
    loss = divided(total, count)
    loss.backward()
    assert loss == 0 and total.grad == 1


def test_one_pixel_of_one_rank_counts_whole():
    assert divided(torch.tensor(3.0), torch.tensor(1), lambda count: count / 2) == 6


def test_the_precision_is_that_of_the_sum():
    assert divided(torch.tensor(1.0), torch.tensor(3), lambda count: count.double()).dtype == torch.float32
    assert divided(torch.tensor(1.0, dtype=torch.float64), torch.tensor(3)).dtype == torch.float64
