"""Retrieval: oracles of labels and neighbours, ground truth is found and noise is not."""

import numpy as np
import pytest
import torch

from frugalseg.errors import ConfigError
from frugalseg.stages.retrieval import Retrieval
from frugalseg.stages.retrieval.memory import Memory, nearest_labels, soft_labels
from tests.stages.toys import CLASSES, SIDE, loader, own, trainer, world

QUICK = {"num_classes": CLASSES, "input_size": SIDE, "memory_size": 4000}


def asked(kind, backbone, batch=4, **settings):
    torch.manual_seed(0)
    model = Retrieval(backbone=own(backbone), **{**QUICK, **settings})
    run = trainer(num_sanity_val_steps=1)
    run.fit(model, loader(world(16, 1, kind, batch)), loader(world(8, 2, kind)))
    return model, {key: float(value) for key, value in run.callback_metrics.items()}


def test_ground_truth_as_features_is_found():
    _, metrics = asked("truth", "OneHot")
    assert metrics["val/miou"] > 0.95 and metrics["protocol/retrieval"] == 1 and metrics["protocol/neighbours"] == 30


def test_noise_gets_about_the_majority_share():
    model, metrics = asked("noise", "Pooled", neighbours=200, temperature=10.0)
    counts = model.confusion_counts()["retrieval"]
    assert metrics["val/miou"] == pytest.approx(counts.sum(axis=1).max() / counts.sum() / CLASSES, abs=0.03)


def test_soft_labels_are_shares():
    mask = torch.randint(0, CLASSES, (13, 17))
    mask[torch.rand(mask.shape) < 0.3] = 255
    mask[:5, :5] = 255
    wanted = np.zeros((3, 4, CLASSES))
    for y in range(13):
        for x in range(17):
            if mask[y, x] != 255:
                wanted[y * 3 // 13, x * 4 // 17, mask[y, x]] += 1
    wanted /= np.maximum(wanted.sum(-1, keepdims=True), 1)
    found = soft_labels(mask, (3, 4), CLASSES)
    assert np.allclose(found.numpy(), wanted.reshape(12, CLASSES), atol=1e-7) and found[0].sum() == 0


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_neighbours_are_those_of_a_loop(chunk):
    queries, entries = torch.randn(11, 6, dtype=torch.float64), torch.randn(200, 6, dtype=torch.float64)
    entries = torch.nn.functional.normalize(entries, dim=1)
    labels = torch.rand(200, CLASSES)
    found = nearest_labels(queries.float(), entries.float(), labels, 9, 0.1, chunk)
    for query, each in zip(queries.numpy(), found.numpy(), strict=True):
        cosines = [float(query @ entry) / np.linalg.norm(query) for entry in entries.numpy()]
        best = np.argsort(cosines)[::-1][:9]
        weights = np.exp(np.array(cosines)[best] / 0.1)
        wanted = sum(w * labels[i].numpy() for w, i in zip(weights / weights.sum(), best, strict=True))
        assert np.allclose(each, wanted, atol=1e-5)


def test_fewer_entries_than_neighbours_are_all_asked():
    labels = torch.eye(3)
    found = nearest_labels(torch.ones(1, 2), torch.eye(2)[[0, 0, 1]], labels, 30, 0.02, 2)
    assert torch.allclose(found, torch.full((1, 3), 1 / 3))


def test_the_memory_does_not_depend_on_the_order_of_images():
    batches = world(5, 1, "noise")
    tables = []
    for order in (batches, batches[::-1]):
        memory = Memory(10)
        for batch in [*order, order[0]]:
            labels = soft_labels(batch["mask"][0], (8, 8), CLASSES)
            memory.add(batch["id"][0], torch.nn.functional.avg_pool2d(batch["image"][0], 4), labels)
        assert len(memory) == 50
        tables.append(memory.entries())
    assert all(torch.equal(a, b) for a, b in zip(*tables, strict=True))
    assert (tables[0][1].sum(dim=1) > 0).all()


def test_the_memory_keeps_to_its_size():
    for batch in (1, 4):
        model, _ = asked("noise", "Pooled", batch=batch, memory_size=100)
        assert len(model._memory) == 16 * (100 // 16)


def test_bad_settings_are_refused():
    need = 4 * 4000 * (6 + CLASSES)
    with pytest.raises(ConfigError, match=rf"4000 entries take {need} bytes.*memory_limit = {need - 1};"):
        Retrieval(backbone=own("Pooled"), **QUICK, memory_limit=need - 1)
    with pytest.raises(ConfigError, match="multiple of 4"):
        Retrieval(backbone=own("Pooled"), **{**QUICK, "input_size": 30})
    with pytest.raises(ConfigError, match="run `fit`"):
        trainer().validate(Retrieval(backbone=own("Pooled"), **QUICK), loader(world(1, 1)), verbose=False)


def test_a_fit_that_would_go_on_without_its_memory_is_refused():
    model = Retrieval(backbone=own("Pooled"), **QUICK)
    with pytest.raises(ConfigError, match=r"cannot go on inside its epoch.*enable_checkpointing"):
        model.training_step(world(1, 1)[0], 3)
