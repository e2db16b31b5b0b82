"""Labels of cells and pairs against loops, and against the reference's vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.random_walk import path_offsets
from frugalseg.stages.psa.pairs import pair_masks, pool_labels
from tests.conftest import load_golden
from tests.stages.psa import oracles

few = settings(deadline=None, max_examples=30)
LABELS = st.sampled_from([0, 0, 1, 2, 255])


def listed(radius):
    return [tuple(o) for o in path_offsets(radius).tolist()]


def masks(smallest=1, largest=9):
    shape = hnp.array_shapes(min_dims=3, max_dims=3, min_side=smallest, max_side=largest)
    return hnp.arrays(np.int64, shape.map(lambda s: (min(s[0], 2), *s[1:])), elements=LABELS)


@few
@given(masks(), st.integers(1, 4))
def test_pool_labels(mask, stride):
    label = pool_labels(torch.as_tensor(mask), stride, num_classes=3)
    assert label.dtype == torch.int64
    np.testing.assert_array_equal(label.numpy(), [oracles.pooled(m, stride, 3) for m in mask])


def test_pool_labels_is_average_pooling_of_one_hot_masks():
    """PSA's own operation, where no two labels of a cell are equally common (cells of 9 pixels, two labels)."""
    mask = torch.randint(2, (2, 27, 18), generator=torch.Generator().manual_seed(0)) * 254 + 1  # 1 and 255
    planes = torch.stack([mask == c for c in (0, 1, 2, 255)], dim=1).double()
    winner = torch.nn.functional.avg_pool2d(planes, 3).argmax(dim=1)
    assert {1, 3} == set(winner.unique().tolist())
    assert torch.equal(pool_labels(mask, 3, 3), torch.tensor([0, 1, 2, 255])[winner])


@pytest.mark.parametrize("radius", [2, 3, 5])
@pytest.mark.parametrize("border", [True, False])
@few
@given(label=masks())
def test_pair_masks(radius, border, label):
    pairs = pair_masks(torch.as_tensor(label), radius, border)
    expected = np.stack([oracles.kinds(one, listed(radius), radius, border) for one in label], axis=1)
    for mask, wanted in zip(pairs, expected, strict=True):
        assert mask.dtype == torch.bool
        np.testing.assert_array_equal(mask.numpy(), wanted)
    assert pairs.counts().tolist() == expected.sum(axis=(1, 2, 3, 4)).tolist()


@pytest.mark.golden
def test_pair_masks_are_the_references():
    golden = load_golden("cti/psa_labels_loss")
    pairs = pair_masks(torch.as_tensor(golden["label"].astype(np.int64))[None], radius=5)
    for mask, name in zip(pairs, ("bg_pos", "fg_pos", "neg"), strict=True):
        actual = oracles.as_reference(mask[0].numpy(), listed(5), 5)
        assert mask.sum() == actual.sum()  # nothing outside of what the reference lists
        np.testing.assert_array_equal(actual, golden[name])
