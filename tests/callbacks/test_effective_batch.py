"""How many images a step takes: the product, told once; the rate is never changed for it."""

from types import SimpleNamespace

import pytest
import yaml

from frugalseg.callbacks.effective_batch import effective_batch, tell_batch
from tests.integration.conftest import EXPERIMENTS


def fit(batch_size, processes, accumulated):
    data = SimpleNamespace(batch_size=batch_size)
    return SimpleNamespace(datamodule=data, world_size=processes, num_nodes=2, accumulate_grad_batches=accumulated)


@pytest.mark.parametrize(("given", "images"), [((4, 1, 1), 4), ((4, 8, 1), 32), ((4, 8, 3), 96), ((4, 1, 3), 12)])
def test_it_is_the_product(given, images, caplog):
    caplog.set_level("INFO")
    found = tell_batch(fit(*given), {"batch": images})
    assert found == effective_batch(fit(*given)) and found["images"] == images
    assert (found["per_process"], found["processes"], found["accumulated"]) == given and found["nodes"] == 2
    # where a step takes what data.batch_size says there is nothing to tell
    lines = [record.getMessage() for record in caplog.records]
    assert lines == (
        [f"a step takes {images} images: 4 x {given[1]} processes x {given[2]} accumulated batches"]
        if images > 4
        else []
    )


def test_a_rate_that_is_meant_for_another_batch_is_mentioned(caplog):
    tell_batch(fit(4, 8, 1), {"batch": 16})
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "meant for steps of 16 images, this fit's take 32" in record.getMessage()
    assert "the rate is left as it is" in record.getMessage()


def test_data_without_batches_say_nothing(caplog):
    trainer = SimpleNamespace(datamodule=None, world_size=2, num_nodes=1, accumulate_grad_batches=1)
    assert tell_batch(trainer, {"batch": 16}) is None and not caplog.records


def test_every_full_fit_says_for_which_batch_its_rate_is_meant():
    """On one process, but for the pre-training that is meant for eight."""
    stated = {}
    for path in sorted(
        path for paper in ("sfc", "cti", "dsmf", "mevt") for path in (EXPERIMENTS / paper).rglob("*.yaml")
    ):
        read = yaml.safe_load(path.read_text()) or {}
        batch = ((read.get("data") or {}).get("init_args") or {}).get("batch_size")
        task = (read.get("model") or {}).get("class_path", "")
        if batch and task and not task.endswith(("Retrieval", "ForegroundBaseline", "PrototypeBaseline")):
            stated[path.relative_to(EXPERIMENTS).as_posix()] = (read["run"].get("batch"), batch)
    assert stated.pop("mevt/pretrain.yaml") == (1024, 1024 // 8)
    assert len(stated) > 30
    assert [name for name, (meant, one) in stated.items() if meant != one] == []
