"""Pretraining on base classes: what is novel teaches nothing, counts are exact, the net takes the backbone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from frugalseg.errors import ConfigError
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.papers.dsmf.losses import weighted_cross_entropy
from frugalseg.papers.dsmf.model import DSMFNet
from frugalseg.papers.dsmf.pretrain import BaseNet, BasePretrain, base_classes
from tests.papers.dsmf.test_model import TINY
from tests.papers.dsmf.test_task import QUIET

K, NOVEL, BASE = 7, (2, 5), (0, 1, 3, 4, 6)
BACKBONE = {key: TINY[key] for key in ("backbone", "backbone_options")}
SIZE = (48, 40)


def background(logits, weight):
    """Weights of all classes: the background's own, 1 for the others."""
    return [weight, *[1.0] * (logits.shape[1] - 1)]


def task(**settings):
    torch.manual_seed(0)
    return BasePretrain(**{"num_classes": K, "novel": NOVEL, **BACKBONE, **settings})


def sample(number):
    random = torch.Generator().manual_seed(number)
    mask = torch.randint(K, (6, 5), generator=random).repeat_interleave(8, 0).repeat_interleave(8, 1)
    mask[:4] = 255
    # each class has a colour, so that there is something to learn
    colours = torch.randn(256, 3, generator=torch.Generator().manual_seed(99))
    image = colours[mask].permute(2, 0, 1) + 0.1 * torch.randn(3, *SIZE, generator=random)
    return {"id": str(number), "image": image, "mask": mask, "box": torch.tensor([0, 0, *SIZE])}


def loader(numbers=range(6), batch=2):
    return DataLoader([sample(number) for number in numbers], batch_size=batch)


def a_batch():
    return next(iter(loader(range(4), batch=4)))


# ---------------------------------------------------------------------- what is learned


def test_outputs_are_those_of_background_and_base_classes():
    made = task()
    assert made.base == BASE
    assert made.net.head.out_channels == len(BASE)
    mask = torch.tensor([[[0, 1, 2, 3, 4, 5, 6, 255]]])
    assert made.target(mask).tolist() == [[[0, 1, 255, 2, 3, 255, 4, 255]]]


@pytest.mark.parametrize("other", [2, 5, 255])
def test_labels_of_novel_pixels_change_neither_loss_nor_gradient(other):
    made, batch = task().double(), a_batch()
    batch["image"] = batch["image"].double()
    novel = torch.isin(batch["mask"], torch.tensor(NOVEL))
    assert novel.any()
    found = []
    for mask in (batch["mask"], torch.where(novel, other, batch["mask"])):
        made.zero_grad()
        loss = made.loss({**batch, "mask": mask})
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in made.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    # the comparison could fail: as background the same pixels change the loss
    assert not torch.equal(made.loss({**batch, "mask": torch.where(novel, 0, batch["mask"])}), found[0][0])


def test_logits_at_novel_pixels_have_no_gradient():
    made, batch = task(), a_batch()
    logits = made.net(batch["image"]).detach().requires_grad_()
    weighted_cross_entropy(logits, made.target(batch["mask"]), background(logits, 0.4)).backward()
    silent = torch.isin(batch["mask"], torch.tensor([*NOVEL, 255]))
    gradient = logits.grad.abs().sum(dim=1)
    assert not gradient[silent].any()
    assert gradient[~silent].all()


def test_a_crop_of_novel_pixels_alone_teaches_nothing():
    made, batch = task(), a_batch()
    loss = made.loss({**batch, "mask": torch.full_like(batch["mask"], NOVEL[0])})
    loss.backward()
    assert loss == 0
    assert not any(p.grad.any() for p in made.parameters())


# ---------------------------------------------------------------------- loss and net


@pytest.mark.parametrize("weight", [0.4, 1.0, 3.0])
def test_the_loss_is_the_weighted_mean(weight):
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 5, 6, 7, generator=random, dtype=torch.float64)
    target = torch.randint(5, (2, 6, 7), generator=random)
    target[:, :2, :3] = 255
    total = counted = 0.0
    for n, y, x in np.ndindex(*target.shape):
        if (label := int(target[n, y, x])) == 255:
            continue
        scores = logits[n, :, y, x].numpy()
        share = weight if label == 0 else 1.0
        total -= share * np.log(np.exp(scores[label]) / np.exp(scores).sum())
        counted += share
    assert float(weighted_cross_entropy(logits, target, background(logits, weight))) == pytest.approx(
        total / counted, rel=1e-12
    )


def test_the_loss_is_float32_whatever_the_precision():
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    target = torch.ones(1, 8, 8).long()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = weighted_cross_entropy(logits, target, background(logits, 0.4))
    assert found.dtype == torch.float32 and torch.equal(
        found, weighted_cross_entropy(logits.float(), target, background(logits, 0.4))
    )


def test_logits_are_a_linear_map_of_c3_and_c4_resized_to_the_image():
    net = task().net.double().eval()
    image = a_batch()["image"].double()
    stages = net.backbone(image)
    weight, bias = net.head.weight[:, :, 0, 0], net.head.bias
    grid = torch.einsum("kd,ndhw->nkhw", weight, torch.cat([stages.c3, stages.c4], 1)) + bias[:, None, None]
    rows, columns = (spread(length, cells) for length, cells in zip(SIZE, grid.shape[-2:], strict=True))
    expected = rows @ grid.detach() @ columns.T
    assert expected.shape == (4, len(BASE), *SIZE)
    torch.testing.assert_close(net(image).detach(), expected, rtol=0, atol=1e-12)


def spread(length, cells):
    """(length, cells) shares of the cells in each pixel, the first and last pixel on the first and last cell."""
    places = np.linspace(0, cells - 1, length)
    return torch.from_numpy(np.stack([np.interp(places, range(cells), row) for row in np.eye(cells)], axis=1))


def test_everything_learns_whatever_the_options_say():
    made = task(backbone_options={**TINY["backbone_options"], "frozen": True}).train()
    for name, parameter in made.named_parameters():
        if name.endswith("bn2.weight"):  # timm begins with blocks that are the identity: woken up
            torch.nn.init.constant_(parameter, 0.5)
    made.loss(a_batch()).backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())
    assert made.net.backbone.bn1.training


def test_a_vgg_has_a_net_too():
    net = BaseNet(3, "vgg11_bn")
    assert net(torch.zeros(2, 3, 32, 48)).shape == (2, 3, 32, 48)


def test_the_loss_falls_on_one_batch():
    made, batch = task(lr=1e-2), a_batch()
    before = made.loss(batch).item()
    Trainer(max_steps=100, limit_val_batches=1, **QUIET).fit(made, loader(range(4), batch=4), loader())
    after = made.train().loss(batch).item()
    # what a net can reach that does not look at the image
    target = made.target(batch["mask"])
    shares = torch.bincount(target[target < 255]).double() * torch.tensor([0.4, 1, 1, 1, 1])
    blind = torch.distributions.Categorical(shares).entropy().item()
    assert after < min(blind, before) / 2


def test_the_rate_follows_a_cosine_over_all_steps():
    rates = []
    made = task(lr=2e-3)
    made.on_train_batch_start = lambda *_: rates.append(made.optimizers().param_groups[0]["lr"])
    Trainer(max_epochs=2, **QUIET).fit(made, loader(), loader())
    expected = [2e-3 * (1 + np.cos(np.pi * step / 6)) / 2 for step in range(6)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


# ---------------------------------------------------------------------- the net takes the backbone


@pytest.mark.parametrize("first", [None, "given"])
def test_dsmf_net_takes_every_tensor_of_a_checkpoint(tmp_path, first):
    file = tmp_path / "first.pth"
    torch.save(task().net.backbone.state_dict(), file)
    made = task(weights=first and str(file))
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(made, loader(), loader())
    assert 0 <= float(trainer.callback_metrics[made.monitor]) <= 1
    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    torch.manual_seed(1)
    net = DSMFNet(**TINY)
    before = {name: t.clone() for name, t in net.backbone.state_dict().items()}
    count = load_backbone_weights(net.backbone, str(checkpoint))
    learned = {n: t for n, t in made.net.backbone.state_dict().items() if not n.endswith("num_batches_tracked")}
    taken = net.backbone.state_dict()
    assert count == len(learned) == sum(not n.endswith("num_batches_tracked") for n in taken)
    assert all(torch.equal(taken[name], tensor) for name, tensor in learned.items())
    statistics = [name for name in learned if "running" in name]
    assert statistics and not any(torch.equal(before[name], taken[name]) for name in statistics)
    image = a_batch()["image"]
    for mine, theirs in zip(net.backbone(image), made.eval().net.backbone(image), strict=True):
        assert torch.equal(mine, theirs)
    assert not any(p.requires_grad for p in net.backbone.parameters())


def test_weights_are_read_when_a_fit_begins_and_not_when_one_goes_on(tmp_path):
    file = tmp_path / "first.pth"
    torch.manual_seed(7)
    given = task().net.backbone
    torch.nn.init.constant_(given.conv1.weight, 0.25)
    torch.save(given.state_dict(), file)
    made = task(weights=str(file))
    for resumed in ("last.ckpt", None):
        made._trainer = SimpleNamespace(ckpt_path=resumed)
        made.on_fit_start()
        assert bool((made.net.backbone.conv1.weight == 0.25).all()) == (resumed is None)


# ---------------------------------------------------------------------- scores


def by_hand(made, numbers):
    """Counts of single pixels."""
    counts = np.zeros((K, K), np.int64)
    made.eval()
    with torch.no_grad():
        for number in numbers:
            item = sample(number)
            guess = made.net(item["image"][None])[0].argmax(0)
            for true, output in zip(item["mask"].flatten().tolist(), guess.flatten().tolist(), strict=True):
                if true not in (*NOVEL, 255):
                    counts[true, BASE[output]] += 1
    return counts


def validated(made, data):
    trainer = Trainer(**QUIET)
    return trainer.validate(made, data, verbose=False)[0]["val/miou"]


def test_counts_are_those_of_single_pixels_whatever_order_and_batches():
    made = task()
    torch.nn.init.normal_(made.net.head.weight)  # so that more than one class is predicted
    counts = by_hand(made, range(6))
    scores = [validated(made, data) for data in (loader(), loader([3, 5, 0, 1, 4, 2], 1), loader(batch=5))]
    assert np.array_equal(made.confusion_counts()["segment"], counts)
    assert scores[0] == scores[1] == scores[2]
    ious = [counts[c, c] / (counts[c].sum() + counts[:, c].sum() - counts[c, c]) for c in BASE]
    assert scores[0] == pytest.approx(np.mean(ious), abs=1e-7)
    assert np.count_nonzero(counts.sum(axis=0)) > 1


def test_counts_of_ranks_are_added():
    made = task()
    counts = torch.zeros(K, K, dtype=torch.int64)
    counts[1, 1], counts[1, 3] = 3, 1
    other = torch.zeros_like(counts)
    other[3, 3], other[0, 0] = 4, 10
    asked, logged = [], {}

    def reduce(tensor, reduce_op):
        asked.append((tensor.dtype, reduce_op))
        return tensor.add_(other)

    made._trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce), sanity_checking=False)
    made.log = lambda name, value, **_: logged.update({name: value})
    made.confusion.copy_(counts)
    made.on_validation_epoch_end()
    assert asked == [(torch.int64, "sum")]
    assert logged["val/miou"] == pytest.approx((1 + 3 / 4 + 4 / 5) / 3)
    assert torch.equal(made.confusion, counts)


def test_a_validation_begins_at_zero_and_leaves_earlier_counts_alone():
    made = task()
    first = validated(made, loader())
    counts = made.confusion_counts()["segment"]
    validated(made, loader([0]))
    assert np.array_equal(counts, by_hand(made, range(6)))
    assert validated(made, loader()) == first
    assert np.array_equal(made.confusion_counts()["segment"], counts)


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("novel", "message"),
    [
        ([3, 7], r": 7 is no class of the benchmark; give ids from 0 to 6"),
        ([-1], r": -1 is no class"),
        ([2, 2], r": \[2, 2\] names a class twice"),
        ([1, 2, 3, 4, 5, 6], r": .* leaves no class to learn"),
    ],
)
def test_novel_classes_that_make_no_sense_are_refused(novel, message):
    with pytest.raises(ConfigError, match=rf"^model\.init_args\.novel{message}") as told:
        task(novel=novel)
    assert "\n" not in str(told.value)


def test_nothing_novel_is_every_class():
    assert base_classes(4, []) == (0, 1, 2, 3)


def test_a_benchmark_without_background_may_test_class_0_and_no_other_takes_the_weight_of_the_background():
    assert base_classes(5, [0, 1]) == (2, 3, 4)
    torch.manual_seed(0)
    made, batch = task(novel=[0, 1], background_weight=0.1).eval(), next(iter(loader()))
    plain = task(novel=[0, 1], background_weight=1.0).eval()
    plain.load_state_dict(made.state_dict())
    assert torch.equal(made.loss(batch), plain.loss(batch)) and made.loss(batch) > 0


@pytest.mark.parametrize("key", ["lr", "background_weight"])
def test_settings_that_make_no_sense_are_refused_by_name(key):
    with pytest.raises(ConfigError, match=rf"model\.init_args\.{key} is 0"):
        task(**{key: 0})


NOTHING = {**sample(0), "mask": torch.full(SIZE, NOVEL[1])}


def test_a_validation_without_base_pixels_is_told():
    with pytest.raises(ConfigError, match=r"no pixel of classes \[0, 1, 3, 4, 6\] was validated"):
        validated(task(), DataLoader([NOTHING], batch_size=1))


def test_the_two_batches_before_a_fit_may_hold_no_base_pixel():
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=2, **QUIET)
    trainer.fit(task(), loader(), DataLoader([NOTHING, NOTHING, sample(1)], batch_size=1))
    assert 0 <= float(trainer.callback_metrics["val/miou"]) <= 1


def test_an_endless_fit_is_told():
    made = task()
    made._trainer = SimpleNamespace(estimated_stepping_batches=float("inf"))
    with pytest.raises(ConfigError, match="the number of steps is not known"):
        made.configure_optimizers()
