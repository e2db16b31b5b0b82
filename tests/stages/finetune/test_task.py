"""Fine-tuning: every head learns four images by heart, everything learns, scores are those of a loop, fits resume."""

import pytest
import torch
import torch.nn.functional as F

from frugalseg.callbacks import RandomState
from frugalseg.errors import ConfigError, WeightsError
from frugalseg.nn.features import Backbone
from frugalseg.ops.cam import resize
from frugalseg.stages.finetune import FineTune, Optimiser, Testing
from tests.ops import oracles
from tests.stages.finetune.nets import TINY_MEVT, TINY_VIT, four_images, stages
from tests.stages.toys import CLASSES, NoDense, loader, own, trainer, world  # noqa: F401 - NoDense comes by its path

FAST = Optimiser(lr=1e-2, weight_decay=0.0, warmup=5)
HEADS = {
    "linear": None,
    "fcn": {"channels": 16, "dropout": 0.0},
    "upernet": {"channels": 16, "dropout": 0.0},
    "semantic-fpn": {"width": 16, "channels": 16, "dropout": 0.0},
}


def task(head="linear", backbone=None, **settings):
    torch.manual_seed(0)
    settings = {"optimiser": FAST, "norm": "group", **settings}
    return FineTune(CLASSES, backbone or stages(), head, HEADS[head], **settings)


@pytest.mark.parametrize(
    ("head", "norm", "steps"),
    [("linear", "batch", 100), ("fcn", "batch", 500), ("upernet", "batch", 200), ("semantic-fpn", "group", 200)],
)
def test_every_head_learns_four_images_by_heart(head, norm, steps):
    joined, singles = four_images()
    model, run = task(head, stages(width=16), norm=norm, auxiliary=0.4 if head == "upernet" else 0.0), trainer(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run.fit(model, loader([joined] * steps), loader(singles))
    metrics = {key: float(value) for key, value in run.callback_metrics.items()}
    assert metrics["val/miou_best"] > 0.9
    assert metrics["protocol/finetune"] == metrics[f"protocol/{head}"] == metrics["protocol/whole"] == 1
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    asleep = {name for name, p in model.named_parameters() if not p.requires_grad}
    unread = {name for name in before if ".decoder." in name} if head in ("upernet", "semantic-fpn") else set()
    assert asleep == unread and "net.backbone.net.stem.weight" in moved and moved.isdisjoint(asleep)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", [TINY_MEVT, TINY_VIT], ids=["mevt", "vit"])
def test_a_gradient_reaches_every_parameter_that_learns(head, backbone):
    model = task(head, backbone)
    model.log = lambda *_, **__: None
    batch = {"image": torch.randn(2, 3, 60, 64), "mask": torch.randint(0, CLASSES, (2, 60, 64)), "id": ["a", "b"]}
    model.training_step(batch, 0).backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in learning.items() if p.grad is None] == []
    first = next(p for p in learning.values() if p.ndim == 4)
    assert first.grad.abs().max() > 0


def test_the_loss_is_that_of_the_pixels_that_count():
    model = task("upernet", auxiliary=0.4).eval()
    model.log = lambda *_, **__: None
    # a size that is padded for the net
    image, mask = torch.randn(2, 3, 40, 36), torch.randint(0, CLASSES, (2, 40, 36))
    mask[:, :5] = 255
    loss = model.training_step({"image": image, "mask": mask, "id": ["a", "b"]}, 0)
    whole, wanted = F.pad(image, (0, 28, 0, 24)), 0.0
    for logits, weight in zip(model.net.both(whole), (1.0, 0.4), strict=True):
        scores = resize(logits, (64, 64))[..., :40, :36].log_softmax(1)
        picked = -scores.gather(1, mask.where(mask < 255, 0)[:, None])[:, 0]
        wanted = wanted + weight * picked[mask < 255].mean()
    torch.testing.assert_close(loss, wanted)
    mask[:] = 255
    assert model.training_step({"image": image, "mask": mask, "id": ["a", "b"]}, 0).item() == 0


def test_the_loss_is_float32_under_mixed_precision():
    model = task("fcn")
    model.log = lambda *_, **__: None
    joined, _ = four_images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.training_step(joined, 0)
        logits = model.net(joined["image"])
    assert logits.dtype == torch.bfloat16 and loss.dtype == torch.float32
    wanted = F.cross_entropy(resize(logits.float(), (32, 32)), joined["mask"], ignore_index=255)
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("testing", [Testing(), Testing(window=32, step=21), Testing(short_side=48)])
def test_the_counts_are_those_of_a_loop(testing):
    model = task("semantic-fpn", testing=testing)
    images = world(3, 5, "noise")
    images = [{**b, "image": b["image"].repeat(1, 1, 2, 1)[..., :50, :27]} for b in images]
    images = [{**b, "mask": b["mask"].repeat(1, 2, 1)[:, :50, :27]} for b in images]
    trainer().validate(model, loader(images), verbose=False)
    model.eval()
    wanted = 0
    for batch in images:
        image = batch["image"]
        if testing.short_side:
            image = F.interpolate(image, size=(89, 48), mode="bilinear", antialias=True)  # 50 * 48 / 27 = 88.9
        height, width = image.shape[-2:]
        total, count = torch.zeros(1, CLASSES, height, width), torch.zeros(height, width)
        for top in [0, 18] if testing.window else [0]:
            part = image[..., top : top + 32, :] if testing.window else image
            padded = F.pad(part, (0, -part.shape[-1] % 32, 0, -part.shape[-2] % 32))
            with torch.no_grad():
                logits = resize(model.net(padded), tuple(padded.shape[-2:]))[..., : part.shape[-2], : part.shape[-1]]
            total[..., top : top + part.shape[-2], :] += logits
            count[top : top + part.shape[-2]] += 1
        logits = resize(total / count, (50, 27))
        wanted = wanted + oracles.confusion(logits.argmax(1)[0].numpy(), batch["mask"][0].numpy(), CLASSES)
    assert (model.confusion_counts()["finetune"] == wanted).all()


def test_a_resumed_fit_goes_on_with_the_same_losses(tmp_path):
    class Noted(FineTune):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            rate = self.optimizers().optimizer.param_groups[0]["lr"]
            self.seen = [*getattr(self, "seen", []), (float(loss.detach()), rate)]
            return loss

    def made():
        torch.manual_seed(0)
        rates = Optimiser(lr=1e-2, warmup=3, layer_decay=0.8, head_lr_factor=2.0)
        return Noted(CLASSES, stages(), "upernet", HEADS["upernet"], norm="batch", auxiliary=0.4, optimiser=rates)

    # one batch again and again: these loaders do not know where they were
    batches = loader(world(4, 1, "noise", 4) * 8)
    whole, first, second = made(), made(), made()
    torch.manual_seed(7)
    trainer(1, callbacks=[RandomState()]).fit(whole, batches)
    run = trainer(1, callbacks=[RandomState()])

    def stop(*_):
        if run.global_step == 4:
            run.save_checkpoint(tmp_path / "half.ckpt")
            run.should_stop = True

    first.on_train_batch_end = stop
    torch.manual_seed(7)
    run.fit(first, batches)
    torch.manual_seed(999)  # a resumed process does not start with the old random state
    trainer(1, callbacks=[RandomState()]).fit(second, batches, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert len(whole.seen) == 8 and len(second.seen) == 4 and whole.seen == first.seen + second.seen


def test_weights_are_read_when_a_fit_begins_and_not_afterwards(tmp_path):
    source = stages().name, {"teacher.net." + k: v for k, v in task().net.backbone.known.state_dict().items()}
    torch.save({"state_dict": source[1]}, tmp_path / "ssl.ckpt")
    backbone = Backbone(source[0], str(tmp_path / "ssl.ckpt"), "teacher.net.")
    torch.manual_seed(1)
    model = FineTune(CLASSES, backbone, optimiser=FAST)
    assert not torch.equal(model.net.backbone.net.stem.weight, source[1]["teacher.net.stem.weight"])
    run = trainer(1, limit_train_batches=0)
    model.on_fit_start = lambda: noted.append(model.net.backbone.net.stem.weight.clone())
    noted = []
    trainer(1).fit(model, loader(world(4, 1, "noise", 4)))
    assert torch.equal(noted[0], source[1]["teacher.net.stem.weight"])
    learned = model.net.backbone.net.stem.weight.clone()
    assert not torch.equal(learned, noted[0])
    run.validate(model, loader(world(2, 1)), verbose=False)
    assert torch.equal(model.net.backbone.net.stem.weight, learned)
    run.save_checkpoint(tmp_path / "tuned.ckpt")
    told = torch.load(tmp_path / "tuned.ckpt", weights_only=True)["hyper_parameters"]
    assert told["features"]["prefix"] == "teacher.net." and told["optimiser"]["lr"] == 1e-2
    wrong = FineTune(CLASSES, Backbone(source[0], str(tmp_path / "ssl.ckpt"), "student."), optimiser=FAST)
    with pytest.raises(WeightsError, match="student"):
        trainer(1).fit(wrong, loader(world(4, 1, "noise", 4)))


def test_the_sanity_check_is_no_best_score():
    model = task()
    trainer(0, num_sanity_val_steps=2).fit(model, loader(world(4, 1, batch=4)), loader(world(2, 2)))
    assert float(model.best) == float("-inf")


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="set it to one of linear, fcn, upernet, semantic-fpn"):
        FineTune(CLASSES, stages(), "deeplab")
    with pytest.raises(ConfigError, match=r"no pyramid\(image\).*choose head linear or fcn"):
        FineTune(CLASSES, own("Pooled"), "upernet")
    with pytest.raises(ConfigError, match="has no dense"):
        FineTune(CLASSES, own("NoDense"), "linear")
    with pytest.raises(ConfigError, match=r"testing\.window is 40.*multiple of 32, such as 64"):
        FineTune(CLASSES, stages(), testing=Testing(window=40, step=20))
    with pytest.raises(ConfigError, match="step is 64 for windows of 32"):
        Testing(window=32, step=64)
    with pytest.raises(ConfigError, match=r"head_options of linear.*channels"):
        FineTune(CLASSES, stages(), "linear", {"channels": 3})
    with pytest.raises(ConfigError, match="auxiliary: head fcn has no pyramid"):
        FineTune(CLASSES, stages(), "fcn", auxiliary=0.4)
    with pytest.raises(ConfigError, match="norm is 'layer'"):
        FineTune(CLASSES, stages(), norm="layer")
    with pytest.raises(ConfigError, match="warmup is -1"):
        Optimiser(warmup=-1)
    with pytest.raises(ConfigError, match="timm cannot build"):
        FineTune(CLASSES, Backbone("no_such_net"), "upernet")
    with pytest.raises(ConfigError, match="does not take an image of 64 x 64"):
        fixed = {**TINY_VIT.options, "dynamic_img_size": False}
        FineTune(CLASSES, Backbone(TINY_VIT.name, options=fixed), "upernet")
    with pytest.raises(ConfigError, match=r"give 2 images, or set model\.norm group"):
        trainer(1).fit(task("upernet", norm="batch"), loader(world(1, 1)))
