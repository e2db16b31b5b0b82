"""Merging against loops over pixels, and what the CRF leaves out."""

import numpy as np
import pytest
import torch

from frugalseg.ops.crf import Kernels, dense_crf
from frugalseg.stages.deeplab.inference import Inference, merge_passes, refine
from tests.ops import oracles

SIZE = (9, 14)


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def naive(passes, merge, of):
    """Every pass resized pixel by pixel, mirrored ones turned back, then merged."""
    found = []
    for pair in passes:
        for index, logits in enumerate(pair.numpy().astype(np.float64)):
            full = oracles.resized(logits, SIZE)
            full = full[:, :, ::-1] if index == 1 else full
            found.append(softmax(full) if of == "probabilities" else full)
    merged = np.max(found, axis=0) if merge == "max" else np.mean(found, axis=0)
    return softmax(merged) if of == "logits" else merged / merged.sum(axis=0)


@pytest.mark.parametrize("merge", ["mean", "max"])
@pytest.mark.parametrize("of", ["probabilities", "logits"])
@pytest.mark.parametrize("mirror", [True, False])
def test_merging(merge, of, mirror):
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 4), (2, 2), (5, 7), SIZE]
    passes = [3 * torch.randn(1 + mirror, 4, *size, generator=generator) for size in sizes]
    merged = merge_passes(iter(passes), SIZE, merge, of)
    np.testing.assert_allclose(merged.numpy(), naive(passes, merge, of), rtol=0, atol=2e-6)
    np.testing.assert_allclose(merged.sum(dim=0).numpy(), 1, atol=1e-5)


def test_merging_leaves_its_inputs_alone():
    given = torch.randn(2, 4, *SIZE)
    before = given.clone()
    merge_passes([given, given], SIZE, "mean", "logits")
    assert torch.equal(given, before)


def test_half_precision_logits_are_merged_in_float32():
    given = 20 * torch.randn(1, 4, *SIZE)
    assert torch.equal(merge_passes([given.bfloat16()], SIZE), merge_passes([given.bfloat16().float()], SIZE))


def test_nothing_to_merge():
    with pytest.raises(ValueError, match="at least one"):
        merge_passes([], SIZE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"merge": "sum"}, {"of": "labels"}, {"window": 0}, {"overlap": 1.0}, {"overlap": -0.1}, {"max_pixels": 0},
        {"iterations": -1}, {"threshold": 1.0},
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Inference(**wrong)


KERNELS = Kernels(1.0, 3.0, 20.0, 5.0, 4.0)


@pytest.fixture
def scene():
    """A photo-like picture of three blobs, and probabilities of eight classes of which five hardly occur."""
    generator = torch.Generator().manual_seed(3)
    height, width = 40, 52
    labels = torch.zeros(height, width, dtype=torch.long)
    labels[8:30, 5:25] = 3
    labels[15:38, 28:48] = 6
    colours = torch.randint(40, 215, (8, 3), generator=generator)
    pixels = (colours[labels] + 12 * torch.randn(height, width, 3, generator=generator)).clamp(0, 255).to(torch.uint8)
    logits = 1.5 * torch.randn(8, height, width, generator=generator)
    logits.scatter_add_(0, labels[None], torch.full((1, height, width), 2.0))
    probabilities = logits[[0, 3, 6]].softmax(dim=0)
    scores = 0.004 * torch.rand(8, height, width, generator=generator)
    scores[[0, 3, 6]] = 0
    scores[[0, 3, 6]] = probabilities * (1 - scores.sum(dim=0))
    return pixels, scores


def test_classes_below_the_threshold_make_no_difference(scene):
    """A class that is left out stays about as rare through all iterations, so it can neither win nor move the others."""
    pixels, scores = scene
    settings = Inference(kernels=KERNELS, threshold=0.01)
    everything = dense_crf(pixels, scores, KERNELS, 10)
    rare = scores.amax(dim=(1, 2)) <= 0.01
    assert rare.sum() == 5
    assert everything[rare].max() < 1.5 * scores[rare].max()
    kept = dense_crf(pixels, scores[~rare], KERNELS, 10)
    share = everything[rare].sum(dim=0)
    # the share that is left out also speaks through the messages of neighbours, over all iterations
    assert (kept - everything[~rare]).abs().max() < 10 * share.max()
    labels = refine(pixels, scores, settings)
    assert (labels == everything.argmax(dim=0)).float().mean() > 0.999
    assert set(labels.unique().tolist()) == {0, 3, 6}
    exact = refine(pixels, scores, Inference(kernels=KERNELS, threshold=0.0))
    assert torch.equal(exact, everything.argmax(dim=0))


def test_a_threshold_that_no_class_reaches_leaves_the_likeliest(scene):
    """Half of the largest probability then stands for it, or there would be no class at all."""
    pixels, scores = scene
    scores = 0.4 * scores  # the CRF does not need a sum of 1
    largest = scores.amax(dim=(1, 2))
    kept = (largest > largest.max() / 2).nonzero().flatten()
    assert largest.max() < 0.5 and 1 < len(kept) < 8
    expected = kept[dense_crf(pixels, scores[kept], KERNELS, 10).argmax(dim=0)]
    assert torch.equal(refine(pixels, scores, Inference(kernels=KERNELS, threshold=0.5)), expected)


def test_only_classes_that_occur_are_computed(scene, monkeypatch):
    from frugalseg.stages.deeplab import inference

    seen = []
    monkeypatch.setattr(
        inference, "dense_crf", lambda pixels, scores, *rest: seen.append((tuple(scores.shape), rest)) or scores
    )
    pixels, scores = scene
    refine(pixels, scores, Inference(kernels=KERNELS, iterations=7))
    assert seen == [((3, 40, 52), (KERNELS, 7))]


def test_a_single_class_needs_no_crf(scene, monkeypatch):
    from frugalseg.stages.deeplab import inference

    monkeypatch.setattr(inference, "dense_crf", lambda *a: pytest.fail("called"))
    pixels, _ = scene
    scores = torch.zeros(5, 40, 52)
    scores[2] = 1
    assert torch.equal(refine(pixels, scores, Inference(kernels=KERNELS)), torch.full((40, 52), 2))
