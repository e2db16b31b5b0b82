"""Counts and scores against loops over pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.confusion import confusion_matrix, iou, mean_iou, pixel_accuracy, precision, recall
from tests.ops import oracles

few = settings(deadline=None, max_examples=30)
IGNORE = 255


@st.composite
def masks(draw):
    """(K, prediction, target); a third of the target is ignored, and predictions there may be anything."""
    classes = draw(st.integers(1, 5))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6))
    target = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, classes - 1)))
    pred = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, classes - 1)))
    ignored = draw(hnp.arrays(bool, shape))
    anything = draw(hnp.arrays(np.int64, shape, elements=st.sampled_from([-1, 0, classes, IGNORE, 10_000])))
    return classes, np.where(ignored, anything, pred), np.where(ignored, IGNORE, target)


@few
@given(masks())
def test_counts_equal_a_loop_and_ignored_pixels_take_any_prediction(case):
    classes, pred, target = case
    counts = confusion_matrix(torch.as_tensor(pred), torch.as_tensor(target), classes)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts, oracles.confusion(pred, target, classes))
    assert int(counts.sum()) == int((target != IGNORE).sum())


@few
@given(masks(), st.sampled_from([torch.uint8, torch.int16, torch.int32]))
def test_counts_do_not_depend_on_the_integer_type(case, dtype):
    classes, pred, target = case
    pred = np.where(target == IGNORE, 0, pred)
    counts = confusion_matrix(torch.as_tensor(pred).to(dtype), torch.as_tensor(target).to(dtype), classes)
    np.testing.assert_array_equal(counts, oracles.confusion(pred, target, classes))


@few
@given(masks(), st.integers(0, 4))
def test_another_ignored_id(case, ignore):
    classes, pred, target = case
    target, pred = np.where(target == IGNORE, 0, target), np.where(target == IGNORE, 0, pred)
    counts = confusion_matrix(torch.as_tensor(pred), torch.as_tensor(target), classes, ignore_index=ignore)
    np.testing.assert_array_equal(counts, oracles.confusion(pred, target, classes, ignore))


@few
@given(masks(), st.integers(0, 300))
def test_counts_of_parts_add_up(case, cut):
    classes, pred, target = case
    pred, target = torch.as_tensor(pred).flatten(), torch.as_tensor(target).flatten()
    cut %= len(pred) + 1
    parts = [confusion_matrix(p, t, classes) for p, t in ((pred[:cut], target[:cut]), (pred[cut:], target[cut:]))]
    np.testing.assert_array_equal(parts[0] + parts[1], confusion_matrix(pred, target, classes))


@pytest.mark.parametrize("wrong", [-1, 3, IGNORE])
def test_a_prediction_out_of_range_is_refused_where_it_counts(wrong):
    target = torch.tensor([0, 1, IGNORE])
    with pytest.raises(ValueError, match=f"prediction.*{wrong}.*3 classes"):
        confusion_matrix(torch.tensor([0, wrong, 0]), target, 3)
    assert int(confusion_matrix(torch.tensor([0, 1, wrong]), target, 3).sum()) == 2


@pytest.mark.parametrize("wrong", [-1, 3, 254])
def test_a_target_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"target holds ids {min(0, wrong)}\.\.{max(0, wrong)},"):
        confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, wrong]), 3)


@pytest.mark.parametrize("ignore", [-1, -256, 256, 257, 300, 1000])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64])
def test_an_ignored_id_that_the_type_cannot_hold_ignores_nothing(ignore, dtype):
    target = torch.tensor([0, 1, 1, 44], dtype=dtype)
    counts = confusion_matrix(torch.tensor([0, 1, 0, 44], dtype=dtype), target, 45, ignore_index=ignore)
    assert int(counts.sum()) == len(target)
    assert counts[1, 1] == counts[1, 0] == counts[44, 44] == 1


def test_an_ignored_id_below_zero_does_not_stand_for_255():
    with pytest.raises(ValueError, match=r"target.*0\.\.255"):
        confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 255], dtype=torch.uint8), 3, ignore_index=-1)
    assert int(confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, -1]), 3, ignore_index=-1).sum()) == 1


def test_float_ids_and_other_shapes_are_refused():
    ids = torch.tensor([0, 1])
    with pytest.raises(TypeError, match="integers"):
        confusion_matrix(ids.float(), ids, 2)
    with pytest.raises(TypeError, match="integers"):
        confusion_matrix(ids, ids.double(), 2)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(ids, ids[None], 2)


@few
@given(hnp.arrays(np.int64, st.integers(1, 5).map(lambda k: (k, k)), elements=st.sampled_from([0, 0, 1, 2, 7])))
def test_scores_equal_loops(counts):
    expected = oracles.iou(counts)
    for form in (counts, torch.as_tensor(counts)):
        scores = iou(form)
        assert [np.isnan(s) for s in scores] == [e is None for e in expected]
        np.testing.assert_allclose(scores[~np.isnan(scores)], [e for e in expected if e is not None], rtol=1e-15)
    seen = [e for e in expected if e is not None]
    np.testing.assert_allclose(mean_iou(counts), sum(seen) / len(seen) if seen else np.nan, rtol=1e-14)
    total = sum(int(v) for v in counts.ravel())
    right = sum(int(counts[k, k]) for k in range(len(counts)))
    for shares, lines in ((precision(counts), counts.T), (recall(torch.as_tensor(counts)), counts)):
        for k, line in enumerate(lines.tolist()):
            assert shares[k] == line[k] / sum(line) if sum(line) else np.isnan(shares[k])
    np.testing.assert_allclose(pixel_accuracy(counts), right / total if total else np.nan, rtol=1e-15)


@few
@given(
    hnp.arrays(np.int64, (5, 5), elements=st.sampled_from([0, 0, 1, 3])),
    st.lists(st.integers(0, 4), unique=True, max_size=5),
)
def test_mean_over_some_classes(counts, classes):
    seen = [score for k, score in enumerate(oracles.iou(counts)) if k in classes and score is not None]
    expected = sum(seen) / len(seen) if seen else np.nan
    np.testing.assert_allclose(mean_iou(counts, np.array(classes, dtype=np.int64)), expected, rtol=1e-14)


def test_a_class_that_is_only_predicted_scores_zero_and_an_absent_one_is_nan():
    scores = iou(confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 0]), 3))
    assert scores[1] == 0
    assert np.isnan(scores[2])


def test_large_counts_do_not_overflow():
    counts = np.diag([2**40, 2**41])
    counts[0, 1] = 2**40
    np.testing.assert_allclose(iou(counts), oracles.iou(counts), rtol=1e-15)
    assert iou(counts.astype(np.uint64)).tolist() == iou(counts).tolist()
