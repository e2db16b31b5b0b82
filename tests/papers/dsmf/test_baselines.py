"""What needs no few-shot training: maps against loops in NumPy, the threshold against trying all, everything foreground."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from frugalseg.errors import ConfigError
from frugalseg.ops.prototypes import foreground
from frugalseg.papers.dsmf import ForegroundBaseline, PrototypeBaseline
from frugalseg.papers.dsmf.features import FeatureCache
from tests.papers.dsmf.test_model import TINY
from tests.papers.dsmf.test_task import QUIET, double, loader

BACKBONE = {key: TINY[key] for key in ("backbone", "backbone_options")}
DOUBLE = {**QUIET, "precision": "64-true"}


def baseline(**settings):
    torch.manual_seed(0)
    return PrototypeBaseline(8, weights=None, **{**BACKBONE, "steps": 8, **settings})


def batch_of(shots, size=4):
    return double(next(iter(loader(batch=size, shots=shots))))


# ---------------------------------------------------------------------- oracles


def resized(values, size):
    """Bilinear with corners aligned: place i of n lies at i (N - 1) / (n - 1) of N."""
    (high, wide), (height, width) = values.shape, size
    found = np.zeros(size)
    for y in range(height):
        for x in range(width):
            v = y * (high - 1) / (height - 1) if height > 1 else 0.0
            u = x * (wide - 1) / (width - 1) if width > 1 else 0.0
            top, left = min(int(v), high - 1), min(int(u), wide - 1)
            below, right = min(top + 1, high - 1), min(left + 1, wide - 1)
            a, b = v - top, u - left
            found[y, x] = (
                (1 - a) * ((1 - b) * values[top, left] + b * values[top, right])
                + a * ((1 - b) * values[below, left] + b * values[below, right])
            )  # fmt: skip
    return found


def map_oracle(query, supports, masks):
    """dsmf.md 4.3 and 4.7 with frozen features in place of the graph's.

    Args:
        query: (D, h, w).
        supports: (K, D, h, w).
        masks: (K, H, W) of 0, 1 and 255. Soft masks are float32 in every net: taken from `foreground`, once they are found
            to be what bilinear weights are, so that the rest can be compared to the last digits.
    """
    depth, high, wide = query.shape
    prototype = np.zeros(depth)
    for support, mask in zip(supports, masks, strict=True):
        soft = foreground(torch.from_numpy(mask)[None, None], (high, wide))[0, 0].double().numpy()
        np.testing.assert_allclose(soft, resized((mask == 1).astype(float), (high, wide)), rtol=0, atol=2e-6)
        total = np.zeros(depth)
        for y in range(high):
            for x in range(wide):
                total += support[:, y, x] * soft[y, x]
        prototype += total / (soft.sum() + 5e-4) / len(supports)
    cosine = np.zeros((high, wide))
    for y in range(high):
        for x in range(wide):
            product = np.sqrt((query[:, y, x] ** 2).sum()) * np.sqrt((prototype**2).sum())
            cosine[y, x] = (query[:, y, x] * prototype).sum() / (product + 1e-7)
    scaled = (cosine - cosine.min()) / (cosine.max() - cosine.min() + 1e-7)
    return resized(scaled, masks.shape[-2:])


def ious_of(maps, truths, classes, threshold):
    """Foreground IoU of each class, summed over its episodes."""
    both, either = defaultdict(int), defaultdict(int)
    for found, truth, c in zip(maps, truths, classes, strict=True):
        said, valid = found > threshold, truth != 255
        both[c] += int((said & (truth == 1) & valid).sum())
        either[c] += int(((said | (truth == 1)) & valid).sum())
    return {c: both[c] / max(either[c], 1) for c in either}


def episodes_and_maps(made, shots, first=1):
    """Every episode of the loader with its map, one at a time."""
    maps, truths, classes = [], [], []
    made = made.double().eval()
    for batch in loader(shots=shots, first=first):
        batch = double(batch)
        with torch.no_grad():
            maps.append(made.maps(batch["query_image"], batch["support_images"], batch["support_masks"])[0, 0].numpy())
        truths.append(batch["query_mask"][0].numpy())
        classes.append(int(batch["class_id"]))
    return maps, truths, classes


# ---------------------------------------------------------------------- the prototype's map


@pytest.mark.parametrize(("stage", "shots"), [(1, 1), (2, 5), (3, 5), (4, 1)])
@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_the_map_is_the_oracles(stage, shots, kept):
    made, batch = baseline(stage=stage).double().eval(), batch_of(shots, size=2)
    if kept:
        made.features = FeatureCache(kept)
    with torch.no_grad():
        found = made.maps(batch["query_image"], batch["support_images"], batch["support_masks"])
        answer = made.answer(batch)
        for number in range(2):
            query = made.backbone(batch["query_image"][number : number + 1])[stage - 1][0].numpy()
            supports = made.backbone(batch["support_images"][number])[stage - 1].numpy()
            expected = map_oracle(query, supports, batch["support_masks"][number].numpy())
            assert expected.max() > 0.9 and np.unique(expected).size > 100
            np.testing.assert_allclose(found[number, 0].numpy(), expected, rtol=0, atol=1e-10)
            np.testing.assert_allclose(answer.prior[number, 0].numpy(), expected, rtol=0, atol=1e-10)


def test_an_empty_support_is_answered():
    made, batch = baseline().double().eval(), batch_of(2)
    batch["support_masks"] = torch.zeros_like(batch["support_masks"])
    made.threshold.fill_(0.5)
    with torch.no_grad():
        found = made.answer(batch)
    # a prototype of zeros resembles nothing: no place is foreground
    assert torch.isfinite(found.logits).all() and not found.logits.argmax(1).any()


# ---------------------------------------------------------------------- the threshold


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize(("stage", "steps"), [(3, 8), (2, 25)])
def test_the_threshold_is_the_best_of_all(stage, steps, shots):
    made = baseline(stage=stage, steps=steps)
    trainer = Trainer(max_epochs=1, **DOUBLE)
    trainer.fit(made, loader(batch=3, shots=shots))
    maps, truths, classes = episodes_and_maps(made, shots)
    tried = {
        step / steps: np.mean([*ious_of(maps, truths, classes, step / steps).values()]) for step in range(1, steps)
    }
    best = max(tried.values())
    assert list(tried.values()).count(best) == 1 and len(set(classes)) == 3
    assert tried[min(tried, key=lambda t: abs(t - float(made.threshold)))] == best
    assert float(trainer.callback_metrics["train/threshold"]) == pytest.approx(float(made.threshold))
    assert float(trainer.callback_metrics["train/miou"]) == pytest.approx(best, abs=1e-7)


def test_of_equal_thresholds_the_lowest(monkeypatch):
    made = baseline(steps=8)

    def flat(self, query, supports, masks):
        """Above 5/8 and below 7/8 nothing changes, and nothing below 4/8."""
        return (masks[:, :1] == 1) * 0.25 + 0.55 + query[:, :1] * 0

    monkeypatch.setattr(PrototypeBaseline, "maps", flat)
    trainer = Trainer(max_epochs=1, **DOUBLE)
    trainer.fit(made, loader(batch=3))
    truths, classes, maps = [], [], []
    for batch in loader():
        maps.append(flat(made, double(batch)["query_image"], None, batch["support_masks"])[0, 0].numpy())
        truths.append(batch["query_mask"][0].numpy())
        classes.append(int(batch["class_id"]))
    tried = [np.mean([*ious_of(maps, truths, classes, step / 8).values()]) for step in range(1, 8)]
    assert len(set(tried)) < len(tried)
    assert float(made.threshold) == (1 + tried.index(max(tried))) / 8


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("threshold", [1, 5, 20, 33])
def test_a_place_at_the_threshold_is_background(monkeypatch, precision, threshold):
    """When it is chosen and when it is used: 1/40 and the like are no binary fractions."""
    made = baseline(steps=40)
    at = torch.tensor(threshold / 40, dtype=torch.float64 if precision == "64-true" else torch.float32)
    monkeypatch.setattr(PrototypeBaseline, "maps", lambda self, q, s, m: at.expand(len(q), 1, *q.shape[-2:]))
    Trainer(max_epochs=1, **{**QUIET, "precision": precision}).fit(made, loader(batch=3, count=3))
    tried = torch.stack(made._tried)  # of each threshold the counts: foreground's union is that of truth or answer
    said = [bool((rows[:, 4] > tried[-1][:, 4]).any()) for rows in tried]
    assert said == [number / 40 < threshold / 40 for number in range(1, 40)]
    made.threshold = torch.tensor(threshold / 40, dtype=at.dtype)
    with torch.no_grad():
        assert not made.answer(next(iter(loader()))).logits.argmax(1).any()


def test_an_interrupted_fit_chooses_nothing():
    made = baseline()
    made._trainer = type("Fake", (), {"world_size": 1, "interrupted": True})()
    made._tried = [torch.ones(6, 5, dtype=torch.int64) for _ in made.thresholds]
    made.on_train_end()
    assert torch.isnan(made.threshold)


@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_a_checkpoint_brings_the_threshold(tmp_path, kept):
    made = baseline(feature_bytes=kept)
    trainer = Trainer(max_epochs=1, **DOUBLE)
    trainer.fit(made, loader(batch=3, shots=2))
    trainer.save_checkpoint(tmp_path / "made.ckpt")
    torch.manual_seed(77)
    other = PrototypeBaseline(8, weights=None, feature_bytes=kept, **{**BACKBONE, "steps": 8})
    assert torch.isnan(other.threshold)
    tester = Trainer(**DOUBLE)
    tester.test(other, loader(shots=2, first=4), ckpt_path=tmp_path / "made.ckpt", weights_only=True, verbose=False)
    assert torch.equal(other.threshold, made.threshold)
    maps, truths, classes = episodes_and_maps(made, 2, first=4)
    expected = ious_of(maps, truths, classes, float(made.threshold))
    found = tester.callback_metrics
    for c, value in expected.items():
        assert float(found[f"test/iou/{c}"]) == pytest.approx(value, abs=1e-7)
    assert float(found["test/miou"]) == pytest.approx(np.mean([*expected.values()]), abs=1e-7)
    assert "model/parameters_trainable" not in found and found["model/flops"] > 0


def test_a_fit_learns_nothing_else():
    made = baseline(feature_bytes=1 << 30)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    Trainer(max_epochs=1, **QUIET).fit(made, loader(batch=3))
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"threshold", "trained"}
    assert made.trained.nonzero().flatten().tolist() == [1, 2, 3]  # so that these are not tested


@pytest.mark.parametrize("what", ["test", "validate", "fit"])
def test_without_a_threshold_there_is_no_score(what):
    """Nor is there a validation inside a fit: comparing with what is not a number would score 0 without a word."""
    loaders = (
        {"train_dataloaders": loader(), "val_dataloaders": loader()} if what == "fit" else {"dataloaders": loader()}
    )
    with pytest.raises(ConfigError, match="there is no threshold yet, which a fit chooses at its end"):
        getattr(Trainer(max_epochs=1, **QUIET), what)(baseline(), **loaders)


def test_several_processes_are_refused_before_anything_is_wired():
    made = baseline()
    made._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ConfigError, match=r"trainer\.devices: PrototypeBaseline is fitted by one process; set it to 1"):
        made.setup("fit")
    made.setup("test")


@pytest.mark.parametrize(("key", "value"), [("stage", 0), ("stage", 5), ("steps", 1)])
def test_settings_that_make_no_sense_are_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=rf"model\.init_args\.{key} is {value}"):
        baseline(**{key: value})


# ---------------------------------------------------------------------- everything foreground


def test_everything_foreground_scores_the_share_of_foreground():
    made = ForegroundBaseline(6)
    trainer = Trainer(**QUIET)
    trainer.test(made, loader(), verbose=False)
    inside, valid = defaultdict(int), defaultdict(int)
    for batch in loader():
        c, truth = int(batch["class_id"]), batch["query_mask"].numpy()
        inside[c] += int((truth == 1).sum())
        valid[c] += int((truth != 255).sum())
    shares = {c: inside[c] / valid[c] for c in valid}
    found = trainer.callback_metrics
    assert len(shares) == 3 and {key for key in found if key.startswith("test/iou/")} == {
        f"test/iou/{c}" for c in shares
    }
    for c, share in shares.items():
        assert 0 < share < 1 and float(found[f"test/iou/{c}"]) == pytest.approx(share, abs=1e-7)
    assert float(found["test/miou"]) == pytest.approx(np.mean([*shares.values()]), abs=1e-7)
    # no background is ever right
    assert float(found["test/fb_iou"]) == pytest.approx(sum(inside.values()) / sum(valid.values()) / 2, abs=1e-7)
    assert found["model/parameters"] == 0 and "model/parameters_trainable" not in found
