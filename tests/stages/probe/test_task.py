"""Linear probes: ground truth as features is solved, noise is not, and the counts are those of a loop."""

import pytest
import torch
import torch.nn.functional as F

from frugalseg.errors import ConfigError
from frugalseg.nn.features import Backbone
from frugalseg.ops.cam import resize
from frugalseg.stages.probe import LinearProbe
from frugalseg.stages.probe.heads import FCNHead, LinearHead
from tests.ops import oracles
from tests.stages.toys import CLASSES, SIDE, loader, own, trainer, world

SMALL = {"num_classes": CLASSES, "input_size": SIDE, "grid": 16}


def fitted(model, kind="truth", epochs=25, batch=4, images=32, **more):
    torch.manual_seed(0)
    run = trainer(epochs, **more)
    run.fit(model, loader(world(images, 1, kind, batch)), loader(world(16, 2, kind)))
    return {key: float(value) for key, value in run.callback_metrics.items()}


@pytest.mark.parametrize("settings", [{"protocol": "L"}, {"protocol": "M"}, {"protocol": "L", "head": "fcn"}])
def test_ground_truth_as_features_is_solved(settings):
    sizes = {"num_classes": CLASSES} if settings["protocol"] == "M" else SMALL
    lr = {"lr": 0.1} if settings.get("head") == "fcn" else {"lr": 0.05} if settings["protocol"] == "M" else {}
    # protocol L keeps its own rate, so it needs its own number of steps: 25 epochs of VOC are 2 200
    steps = {} if lr else {"batch": 1, "images": 64}
    metrics = fitted(LinearProbe(backbone=own("OneHot"), channels=8, **sizes, **settings, **lr), **steps)
    assert metrics["val/miou"] > 0.95
    assert metrics["val/miou_best"] >= metrics["val/miou"]
    assert metrics[f"protocol/{settings['protocol']}"] == 1 and metrics["protocol/width"] == CLASSES


def test_noise_gets_the_majority_share():
    model = LinearProbe(backbone=own("Pooled"), **SMALL)
    metrics = fitted(model, "noise")
    counts = model.confusion_counts()["probe"]
    share = counts.sum(axis=1).max() / counts.sum()
    assert metrics["val/miou"] == pytest.approx(share / CLASSES, abs=0.02)


def test_the_counts_are_those_of_a_loop():
    model = LinearProbe(backbone=own("Pooled"), num_classes=CLASSES, protocol="M")
    images = world(3, 5, "noise")
    # a size that has to be padded
    images = [{**b, "image": b["image"][..., :30, :27], "mask": b["mask"][:, :30, :27]} for b in images]
    trainer().validate(model, loader(images), verbose=False)
    model.eval()
    wanted = 0
    for batch in images:
        whole = F.pad(batch["image"], (0, 1, 0, 2))
        logits = resize(model.head(model.backbone.dense(whole)), (32, 28))[..., :30, :27]
        wanted = wanted + oracles.confusion(logits.argmax(1)[0].numpy(), batch["mask"][0].numpy(), CLASSES)
    assert (model.confusion_counts()["probe"] == wanted).all()


def test_the_iou_of_each_class_is_kept_and_is_that_of_the_counts():
    """Of one class too many, which is neither there nor predicted, nothing is said."""
    torch.manual_seed(0)
    model = LinearProbe(backbone=own("Pooled"), num_classes=CLASSES + 1, protocol="M")
    torch.nn.init.constant_(model.head.classifier.bias[-1:], -1e3)
    run = trainer()
    run.validate(model, loader(world(3, 5, "noise")), verbose=False)
    counts = model.confusion_counts()["probe"]
    found = {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("val/iou/")}
    assert set(found) == {f"val/iou/{c}" for c in range(CLASSES)}
    for class_id in range(CLASSES):
        hits = counts[class_id, class_id]
        union = counts[class_id].sum() + counts[:, class_id].sum() - hits
        assert found[f"val/iou/{class_id}"] == pytest.approx(hits / union)
    assert float(run.callback_metrics["val/miou"]) == pytest.approx(sum(found.values()) / CLASSES)


def test_a_linear_map_may_come_before_the_resize():
    head, features = LinearHead(7, 5), torch.randn(2, 7, 9, 9)
    assert torch.allclose(resize(head(features), (100, 100)), head(resize(features, (100, 100))), atol=1e-5)


def test_the_convolutional_head_sees_its_input_beside_its_convolutions():
    head = FCNHead(7, 5, channels=6).eval()
    x = torch.randn(1, 7, 8, 8)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "first.weight": (6, 7, 3, 3),
        "second.weight": (6, 6, 3, 3),
        "joined.weight": (6, 13, 3, 3),
        "classifier.weight": (5, 6, 1, 1),
    }
    hidden = head.second(head.first(x).relu()).relu()
    assert torch.equal(head(x), head.classifier(head.joined(torch.cat([x, hidden], 1)).relu()))


def test_the_optimisers_are_the_protocols():
    model = LinearProbe(backbone=own("Pooled"), **SMALL)
    settings = model.configure_optimizers()
    sgd, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    group = sgd.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 1e-4)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.head.parameters()}
    rates = []
    for _ in range(25):
        rates.append(group["lr"])
        sgd.step()
        schedule.step()
    assert rates == pytest.approx([0.01] * 20 + [0.001] * 5)


def test_the_backbone_stays_and_the_best_score_survives_a_checkpoint(tmp_path):
    model = LinearProbe(backbone=own("Pooled"), **SMALL)
    before = model.backbone.digest()
    run = trainer(1)
    run.fit(model, loader(world(8, 1, "noise", 4)), loader(world(4, 2, "noise")))
    run.save_checkpoint(tmp_path / "probe.ckpt")
    assert model.backbone.digest() == before
    state = torch.load(tmp_path / "probe.ckpt", weights_only=True)
    assert state["hyper_parameters"]["protocol"] == "L" and state["hyper_parameters"]["width"] == 6
    again = LinearProbe(backbone=own("Pooled"), **SMALL)
    trainer().validate(again, loader(world(4, 2, "noise")), ckpt_path=tmp_path / "probe.ckpt", verbose=False)
    assert again.backbone.digest() == before and float(again.best) == float(model.best)
    assert (again.confusion_counts()["probe"] == model.confusion_counts()["probe"]).all()


def test_the_sanity_check_is_no_best_score():
    model = LinearProbe(backbone=own("OneHot"), **SMALL)
    fitted(model, epochs=0, num_sanity_val_steps=2)
    assert float(model.best) == float("-inf")


def test_a_batch_without_labels_has_no_loss():
    model = LinearProbe(backbone=own("Pooled"), **SMALL)
    batch = world(2, 1, "noise", 2)[0]
    model.log = lambda *_, **__: None
    batch["mask"] = torch.full_like(batch["mask"], 255)
    assert model.training_step(batch, 0).item() == 0


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="set it to one of L, L-cached, M"):
        LinearProbe(backbone=own("Pooled"), protocol="X")
    with pytest.raises(ConfigError, match=r"input_size is 30.*multiple of 4"):
        LinearProbe(backbone=own("Pooled"), input_size=30)
    with pytest.raises(ConfigError, match="protocol is L-cached, but the data give images"):
        LinearProbe(backbone=own("Pooled"), **SMALL, protocol="L-cached").logits(world(1, 1)[0])


def test_any_net_of_timm_can_be_probed():
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
    model = LinearProbe(backbone=Backbone("vit_tiny_patch16_224", options=small), **SMALL)
    assert 0 <= fitted(model, "noise", epochs=1)["val/miou"] <= 1
