"""Counts and scores of episodes against loops over pixels, and against three published counters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.few_shot import CONVENTIONS, Counts, class_iou, count_episode, fb_iou, mean_iou, sum_by_class
from tests.conftest import load_golden

few = settings(deadline=None, max_examples=30)
conventions = st.sampled_from(list(CONVENTIONS))
FOLD = (6, 7, 8)


@st.composite
def episodes(draw):
    """A list of (prediction, truth, class); sides differ between episodes, as those of genuine images do."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        shape = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        pred = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
        target = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
        found.append((pred, target, draw(st.sampled_from(FOLD))))
    return found


def _naive_counts(pred, target, value, keep_ignored):
    """Intersection and union of one value, pixel by pixel."""
    both = either = 0
    for guess, true in zip(pred.flat, target.flat, strict=True):
        if true == 255 and not keep_ignored:
            continue
        seen, meant = guess == value, (0 if true == 255 else true) == value
        both += int(seen and meant)
        either += int(seen or meant)
    return both, either


def _naive_ratio(both, either, convention):
    epsilon = {"pfe": 1e-10}.get(convention)
    return both / (either + epsilon) if epsilon else both / max(either, 1)


def _sums(found, convention="hs", fold=FOLD):
    counts = [count_episode(torch.as_tensor(p), torch.as_tensor(t), convention=convention) for p, t, _ in found]
    return sum_by_class(counts, [label for _, _, label in found], fold)


@few
@given(episodes(), conventions)
def test_scores_equal_loops(found, convention):
    sums = _sums(found, convention)
    pixels = {
        (label, value): [_naive_counts(p, t, value, convention == "sdm") for p, t, own in found if own == label]
        for label in FOLD
        for value in (0, 1)
    }
    totals = {key: tuple(map(sum, zip((0, 0), *pairs, strict=True))) for key, pairs in pixels.items()}
    assert sums.intersection.dtype == sums.union.dtype == torch.int64
    for row, label in enumerate(FOLD):
        assert int(sums.episodes[row]) == sum(own == label for *_, own in found)
        for value in (0, 1):
            assert (int(sums.intersection[row, value]), int(sums.union[row, value])) == totals[label, value]
    scores = [_naive_ratio(*totals[label, 1], convention) for label in FOLD]
    np.testing.assert_allclose(class_iou(sums, convention), scores, rtol=1e-15, atol=0)
    np.testing.assert_allclose(mean_iou(sums, convention, allow_absent=True), sum(scores) / 3, rtol=1e-14, atol=0)
    pooled = [[sum(totals[label, value][part] for label in FOLD) for part in (0, 1)] for value in (0, 1)]
    expected = sum(_naive_ratio(*pair, convention) for pair in pooled) / 2
    np.testing.assert_allclose(fb_iou(sums, convention), expected, rtol=1e-14, atol=0)


@few
@given(episodes(), st.randoms(use_true_random=False))
def test_order_and_parts_do_not_matter(found, random):
    """What ranks and workers do: any order, and sums of parts."""
    whole = _sums(found)
    shuffled = random.sample(found, len(found))
    cut = random.randrange(len(found) + 1)
    parts = [_sums(shuffled[:cut]), _sums(shuffled[cut:])]
    for name in ("episodes", "intersection", "union"):
        assert torch.equal(getattr(whole, name), getattr(_sums(shuffled), name))
        assert torch.equal(getattr(whole, name), sum(getattr(part, name) for part in parts))


def test_sums_first_and_divide_last():
    """A mean over episodes would be 0.75."""
    ones = torch.ones(1, 10, dtype=torch.uint8)
    half = torch.cat([ones[:, :1], torch.zeros(1, 1, dtype=torch.uint8)], dim=1)
    counts = [count_episode(ones, ones), count_episode(half | 1, half)]
    sums = sum_by_class(counts, [1, 1], [1])
    assert mean_iou(sums) == 11 / 12


def test_ignored_pixels_count_only_where_they_are_background():
    pred, target = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 255, 255, 0]])
    expected = {"hs": ([1, 1], [1, 1]), "pfe": ([1, 1], [1, 1]), "sdm": ([2, 1], [3, 2])}
    assert set(expected) == set(CONVENTIONS)
    for name, (both, either) in expected.items():
        counts = count_episode(pred, target, convention=name)
        assert (counts.intersection.tolist(), counts.union.tolist()) == (both, either)
    other = count_episode(pred, torch.where(target == 255, 7, target), ignore_index=7)
    assert (other.intersection.tolist(), other.union.tolist()) == expected["hs"]


def test_what_is_missing_is_an_error_that_names_it():
    ones = torch.ones(2, 2, dtype=torch.uint8)
    sums = sum_by_class([count_episode(ones, ones)], [7], FOLD)
    with pytest.raises(ValueError, match="no episodes of class 6, 8;"):
        mean_iou(sums)
    assert mean_iou(sums, allow_absent=True) == 1 / 3
    empty = sum_by_class([], [], FOLD)
    with pytest.raises(ValueError, match="no episodes"):
        fb_iou(empty)
    with pytest.raises(ValueError, match="without classes"):
        mean_iou(sum_by_class([], [], []))


def test_a_class_whose_pixels_are_all_ignored_is_not_absent():
    ignored = torch.full((2, 2), 255, dtype=torch.uint8)
    sums = sum_by_class([count_episode(torch.zeros_like(ignored), ignored)], [7], [7])
    assert mean_iou(sums) == 0.0
    assert fb_iou(sums) == 0.0


def test_bad_input_is_refused():
    ones = torch.ones(2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="differ in shape"):
        count_episode(ones, ones[:1])
    with pytest.raises(ValueError, match=r"prediction holds ids 1\.\.2"):
        count_episode(ones + torch.eye(2, dtype=torch.uint8), ones)
    with pytest.raises(ValueError, match=r"target holds ids 3\.\.3"):
        count_episode(ones, ones * 3)
    with pytest.raises(TypeError, match="integers"):
        count_episode(ones, ones.float())
    with pytest.raises(ValueError, match="convention must be one of hs, pfe, sdm, got 'voc'"):
        count_episode(ones, ones, convention="voc")
    counts = count_episode(ones, ones)
    with pytest.raises(ValueError, match=r"class 3, which is not in the fold \(6, 7, 8\)"):
        sum_by_class([counts], [3], FOLD)
    with pytest.raises(ValueError, match="named twice"):
        sum_by_class([counts], [6], [6, 6])
    with pytest.raises(ValueError, match="shorter"):
        sum_by_class([counts, counts], [6], FOLD)


def test_summing_leaves_episodes_alone():
    counts = Counts(torch.tensor([1, 2]), torch.tensor([3, 4]))
    sum_by_class([counts, counts], [6, 6], FOLD)
    assert (counts.intersection.tolist(), counts.union.tolist()) == ([1, 2], [3, 4])


def _golden_sums(golden, convention):
    found = zip(golden["pred"], golden["gt"], golden["cls"].tolist(), strict=True)
    return _sums(list(found), convention, fold=range(golden[f"{convention}_inter"].shape[-1]))


BOTH = pytest.mark.parametrize("name", ["metric_all", "metric_absent"])


@pytest.mark.golden
@BOTH
def test_golden_pfenet(name):
    golden = load_golden(f"fewshot/{name}")
    sums = _golden_sums(golden, "pfe")
    np.testing.assert_array_equal(sums.intersection[:, 1], golden["pfe_inter"])
    np.testing.assert_array_equal(sums.union[:, 1], golden["pfe_union"])
    np.testing.assert_array_equal(sums.intersection.sum(dim=0), golden["pfe_fb_inter"])
    np.testing.assert_array_equal(sums.union.sum(dim=0), golden["pfe_fb_union"])
    np.testing.assert_allclose(class_iou(sums, "pfe"), golden["pfe_iou"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(mean_iou(sums, "pfe", allow_absent=True), golden["pfe_miou"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(fb_iou(sums, "pfe"), golden["pfe_fb_iou"], rtol=0, atol=1e-6)


@pytest.mark.golden
@BOTH
def test_golden_hsnet(name):
    golden = load_golden(f"fewshot/{name}")
    sums = _golden_sums(golden, "hs")
    np.testing.assert_array_equal(sums.intersection.T, golden["hs_inter"])
    np.testing.assert_array_equal(sums.union.T, golden["hs_union"])
    np.testing.assert_allclose(100 * mean_iou(sums, "hs", True), golden["hs_miou_percent"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(100 * fb_iou(sums, "hs"), golden["hs_fb_iou_percent"], rtol=0, atol=1e-4)


@pytest.mark.golden
@BOTH
def test_golden_sdm(name):
    golden = load_golden(f"fewshot/{name}")
    sums = _golden_sums(golden, "sdm")
    np.testing.assert_array_equal(sums.intersection[:, 1], golden["sdm_inter"])
    np.testing.assert_array_equal(sums.union[:, 1], golden["sdm_union"])
    np.testing.assert_allclose(mean_iou(sums, "sdm", allow_absent=True), golden["sdm_miou"], rtol=0, atol=1e-6)


@pytest.mark.golden
def test_golden_absent_class_is_refused_unless_asked_for():
    golden = load_golden("fewshot/metric_absent")
    absent = sorted(set(range(len(golden["pfe_iou"]))) - set(golden["cls"].tolist()))
    with pytest.raises(ValueError, match=f"no episodes of class {absent[0]};"):
        mean_iou(_golden_sums(golden, "pfe"), "pfe")
