"""Clustering: golden scores, oracles of each step, ground truth is found and noise is not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frugalseg.errors import ConfigError
from frugalseg.nn.inputs import middle
from frugalseg.ops.cam import resize
from frugalseg.ops.clustering import cluster_counts
from frugalseg.ops.crf import Kernels, dense_crf
from frugalseg.stages.cluster import Clustering
from frugalseg.stages.cluster.kmeans import closeness, fit_centres, squared_distances
from frugalseg.stages.cluster.points import FeatureStore, fit_reduction
from frugalseg.stages.cluster.protocols import scores_of
from frugalseg.stages.cluster.refine import teller
from tests.conftest import load_golden
from tests.stages.toys import CLASSES, SIDE, loader, own, trainer, world

QUICK = {"num_classes": CLASSES, "input_size": SIDE, "seeds": 2, "init": "++"}


def clustered(batches, backbone="OneHot", **settings):
    model = Clustering(backbone=own(backbone), **{**QUICK, **settings})
    run = trainer()
    run.validate(model, loader(batches), verbose=False)
    return model, {key: float(value) for key, value in run.callback_metrics.items()}


@pytest.mark.golden
@pytest.mark.parametrize("case", ["equal", "over"])
def test_scores_name_their_protocol(case):
    golden = load_golden("ssl/cluster_miou")
    counts = golden[f"confusion_{case}"]
    k1 = "miou_hungarian" if case == "equal" else "miou_many_prec"
    assert scores_of(counts, "K1")["miou"] == pytest.approx(float(golden[f"{k1}_{case}"]), abs=1e-12)
    assert scores_of(counts, "K2")["accuracy"] == pytest.approx(float(golden[f"acc_count_{case}"]), abs=1e-12)


@pytest.mark.parametrize("settings", [{"grid": 16}, {"grid": 16, "clusters": 9, "init": "points"}, {"protocol": "K2"}])
def test_ground_truth_as_features_is_found(settings):
    _, metrics = clustered(world(12, 3), restarts=20, **settings)
    assert metrics["val/miou"] > 0.95 and metrics["val/miou_std"] < 0.02
    assert metrics[f"protocol/{settings.get('protocol', 'K1')}"] == 1
    assert metrics["protocol/clusters"] == settings.get("clusters", CLASSES)


def test_noise_is_not_found():
    model, metrics = clustered(world(12, 3, "noise"), "Pooled", grid=16)
    counts = model.confusion_counts()["cluster_0"]
    assert counts.shape == (CLASSES, CLASSES)
    # one-to-one clusters of equal size share the majority; nothing else is found
    assert metrics["val/miou"] < 2 * counts.sum(axis=1).max() / counts.sum() / CLASSES


def test_k1_counts_are_those_of_a_loop():
    batches = world(4, 3, "noise")
    model, _ = clustered(batches, "Pooled", grid=20, seeds=1, dimensions=3)
    points = torch.cat([model.backbone.dense(b["image"]).half().float()[0].flatten(1).T for b in batches]).numpy()
    standard = (points - points.mean(0)) / points.std(0)
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    projected = torch.from_numpy(standard @ axes[:3].T)
    ours = model._store
    reduced = fit_reduction(ours, "pca", 3)(torch.from_numpy(points))
    assert torch.allclose(reduced.abs(), projected.abs().float(), atol=1e-3)  # an axis may point either way
    centres = fit_centres(reduced, CLASSES, 0, init="++").double().numpy()
    labels = ((reduced.numpy()[:, None] - centres) ** 2).sum(-1).argmin(1).reshape(4, 8, 8)
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for cells, batch in zip(labels, batches, strict=True):
        for y in range(20):
            for x in range(20):
                truth = int(batch["mask"][0, y * 32 // 20, x * 32 // 20])
                if truth != 255:
                    counts[truth, cells[y * 8 // 20, x * 8 // 20]] += 1
    assert (model.confusion_counts()["cluster_0"] == counts).all()


def test_k2_assigns_the_resized_features():
    """Resizing how near the centres are and resizing the features are the same."""
    features, centres = torch.randn(1, 6, 8, 8, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    near = closeness(features[0].flatten(1).T, centres).T.reshape(1, 5, 8, 8)
    wide = resize(features, (32, 32))[0].flatten(1).T
    wanted = ((wide[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert torch.equal(resize(near, (32, 32))[0].argmax(0).flatten(), wanted)
    assert torch.allclose(squared_distances(wide, centres), ((wide[:, None] - centres) ** 2).sum(-1))


def test_k2_averages_mirror_images_and_cuts_the_middle():
    batches = world(2, 3, "noise")
    long = [{**b, "image": b["image"].repeat(1, 1, 1, 2), "mask": b["mask"].repeat(1, 1, 2)} for b in batches]
    model, metrics = clustered(long, "Pooled", protocol="K2", mirror=True)
    assert metrics["protocol/mirror"] == 1
    for kept, batch in zip(model._store.maps, long, strict=True):
        image, _ = middle(batch["image"], batch["mask"], SIDE)
        wanted = (model.backbone.dense(image) + model.backbone.dense(image.flip(-1)).flip(-1)) / 2
        assert torch.equal(kept, wanted[0].half())


def test_the_same_seed_gives_the_same_clusters():
    points = torch.randn(500, 4)
    one, two, other = (fit_centres(points, 7, seed, per_cluster=20) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_more_starts_are_never_worse():
    points = torch.cat([torch.randn(60, 2) * 0.1 + 5 * torch.tensor([x, y]) for x in range(3) for y in range(3)])
    spread = [
        float(squared_distances(points, fit_centres(points, 9, 3, starts)).min(1).values.sum()) for starts in (1, 30)
    ]
    assert spread[1] <= spread[0] and spread[1] < 9 * 60 * 0.03


def test_a_constant_channel_is_no_nan():
    store = FeatureStore(1, 1 << 20)
    store.add(torch.cat([torch.ones(1, 8, 8), torch.randn(3, 8, 8)]))
    assert fit_reduction(store, "pca", 50)(next(store.chunks())).isfinite().all()


def test_the_limit_names_the_size_and_the_setting():
    need = 12 * 6 * 8 * 8 * 2
    with pytest.raises(ConfigError, match=rf"12 images take {need} bytes.*memory_limit = {need - 1};"):
        clustered(world(12, 3, "noise"), "Pooled", memory_limit=need - 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protocol": "K3"}, "set it to K1 or K2"),
        ({"clusters": 3}, "K1 needs at least as many as the 5"),
        ({"clusters": 9, "protocol": "K2"}, "K2 needs as many as the 5"),
        ({"seeds": 0}, "set both to at least 1"),
        ({"input_size": 30}, "multiple of 4"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Clustering(backbone=own("Pooled"), **{**QUICK, **settings})


def test_a_crf_is_for_k2_alone():
    with pytest.raises(ConfigError, match="K1 has no CRF, K2 has"):
        Clustering(backbone=own("Pooled"), crf=True, **QUICK)


def test_the_crf_is_that_of_the_library_on_each_image_and_start():
    """Colours, probabilities, kernels and counts from their definitions, image by image."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    pixels = torch.randint(0, 256, (3, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    normal = ((pixels.float() / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)
    batches = [{**b, "image": normal[i : i + 1]} for i, b in enumerate(world(3, 5))]
    model, metrics = clustered(batches, "Pooled", protocol="K2", crf=True, mean=mean, std=std)
    assert metrics["protocol/crf"] == 1
    points = [F.normalize(m.flatten(1).T.float(), dim=1) for m in model._store.maps]
    kernels = Kernels(1.0, 3.0, 67.0, 3.0, 4.0)
    scores = []
    for seed in range(2):
        centres = fit_centres(torch.cat(points), CLASSES, seed, 5, 50, 256, QUICK["init"])
        counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
        for own_points, picture, batch in zip(points, pixels, batches, strict=True):
            # minus squared distances, up to a constant of the place
            near = -((own_points[:, None] - centres) ** 2).sum(-1) + own_points.square().sum(-1, keepdim=True)
            wide = resize(near.T.reshape(1, CLASSES, 8, 8), (SIDE, SIDE))[0]
            found = dense_crf(picture, wide.softmax(dim=0), kernels, 10).argmax(0)
            counts += cluster_counts(found, batch["mask"][0], CLASSES, CLASSES, 255)
        differing = (model.confusion_counts()[f"cluster_crf_{seed}"] - counts.numpy()).clip(min=0).sum()
        # a tie that float32 breaks the other way
        assert differing <= 2
        scores.append(scores_of(counts.numpy(), "K2")["miou"])
    assert metrics["val/miou_crf"] == pytest.approx(np.mean(scores), abs=2e-3)
    plain = [scores_of(model.confusion_counts()[f"cluster_{seed}"], "K2")["accuracy"] for seed in range(2)]
    assert metrics["val/accuracy"] == pytest.approx(np.mean(plain), abs=1e-6)
    assert metrics["val/accuracy_crf"] != metrics["val/accuracy"]


def test_the_crf_tells_how_far_it_is(caplog):
    tell = teller("images", 4, every=0.0)
    with caplog.at_level("INFO", logger="frugalseg"):
        tell(1)
    assert "images 1/4" in caplog.text
