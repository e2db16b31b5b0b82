"""DSMF-Net's task: what is kept of supports changes nothing, counts are exact, training goes through Lightning."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset

from frugalseg.errors import ConfigError
from frugalseg.ops.few_shot import class_iou, count_episode, fb_iou, mean_iou, sum_by_class
from frugalseg.papers.dsmf import scoring
from frugalseg.papers.dsmf.cache import SupportCache, joined
from frugalseg.papers.dsmf.model import Episode
from frugalseg.papers.dsmf.task import DSMF
from tests.papers.dsmf.test_model import TINY

QUIET = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "accelerator": "cpu",
}  # fmt: skip


def task(**settings):
    torch.manual_seed(0)
    made = DSMF(num_classes=6, weights=None, **{**TINY, **settings})
    for module in made.net.graphs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)
    return made


def undecided(made):
    """Shift the last bias so that half of the places are the class: an untrained net may call everything background."""
    was, made = made.training, made.double().eval()
    with torch.no_grad():
        found = torch.cat([made.answer(double(batch)).logits for batch in loader()])
        made.net.head.layers[-1].bias[1] -= (found[:, 1] - found[:, 0]).median()
    made.cache.clear()
    return made.train(was)


IMAGES = torch.randn(7, 3, 48, 40, generator=torch.Generator().manual_seed(3))


class Episodes(Dataset):
    """Queries and supports out of seven images of classes 1 to 3; an image's mask depends on it and the class."""

    def __init__(self, shots=2, count=12, first=1):
        self.shots, self.count, self.first = shots, count, first

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        class_id = self.first + number % 3
        query, supports = number % 7, [(number + 2 + shot) % 7 for shot in range(self.shots)]
        return {
            "id": str(query), "query_image": IMAGES[query], "query_mask": self.mask(query, class_id),
            "support_images": IMAGES[supports], "class_id": class_id, "number": number,
            "support_masks": torch.stack([self.mask(image, class_id) for image in supports]),
            "support_id": [str(image) for image in supports],
        }  # fmt: skip

    @staticmethod
    def mask(image, class_id):
        mask = torch.zeros(48, 40, dtype=torch.int64)
        mask[4 * class_id : 4 * class_id + 12, 2 * image : 2 * image + 16] = 1
        mask[40:, :5] = 255
        return mask


def collate(items):
    rest = torch.utils.data.default_collate([{k: v for k, v in i.items() if k != "support_id"} for i in items])
    return {**rest, "support_id": [item["support_id"] for item in items]}


def loader(order=None, batch=1, **settings):
    data = Episodes(**settings)
    return DataLoader(torch.utils.data.Subset(data, order or range(len(data))), batch_size=batch, collate_fn=collate)


def double(batch):
    return {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_answers_from_the_cache_equal_the_net(shots, limit):
    made = task(cache_bytes=limit).double().eval()
    with torch.no_grad():
        for batch in loader(batch=4, shots=shots):
            batch = double(batch)
            found = made.answer(batch)
            expected = made.net(batch["query_image"], batch["support_images"], batch["support_masks"])
            torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-10)
            torch.testing.assert_close(found.prior, expected.prior, rtol=0, atol=1e-10)
    seen = 12 * shots
    assert made.cache.hits + made.cache.misses == seen
    assert made.cache.misses == (seen if limit == 0 else len({(i, c) for n in range(12) for i, c in _pairs(n, shots)}))


def _pairs(number, shots):
    return [((number + 2 + shot) % 7, 1 + number % 3) for shot in range(shots)]


def test_an_empty_support_is_kept_too():
    made = task().double().eval()
    batch = double(next(iter(loader(batch=2))))
    batch["support_masks"] = torch.zeros_like(batch["support_masks"])
    with torch.no_grad():
        found = made.answer(batch)
    assert torch.isfinite(found.logits).all() and not found.prior.any()


def test_the_cache_stops_at_its_limit():
    cache = SupportCache(limit=100)
    made = task().double().eval()
    batch = double(next(iter(loader())))
    with torch.no_grad():
        for _ in range(2):
            cache.get(("a", 1), lambda: made._support(batch, 0, 0))
    assert (cache.hits, cache.misses, cache.used) == (0, 2, 0)


def test_columns_of_different_length_are_filled_up():
    one, two = ((torch.rand(3, 8), torch.rand(10, n)) for n in (4, 7))
    support = joined([[one], [two]])
    assert support.last.shape == (2, 1, 10, 1, 7) and support.prototypes.shape == (2, 1, 3, 8)
    assert torch.equal(support.last[0, 0, :, 0, :4], one[1]) and not support.last[0, 0, :, 0, 4:].any()
    assert support.mask.eq(1).all()


def scores(made, *loaders):
    trainer = Trainer(**QUIET)
    return [trainer.test(made, part, verbose=False)[0] for part in loaders]


def test_scores_are_sums_over_episodes_whatever_their_order_and_batches(tmp_path):
    made = undecided(task())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()

    class Double(DataLoader):
        def __iter__(self):
            return map(double, super().__iter__())

    def loaded(order, batch):
        return Double(torch.utils.data.Subset(Episodes(), order), batch_size=batch, collate_fn=collate)

    straight, turned, large = scores(made, loaded(range(12), 1), loaded(order, 1), loaded(order, 8))
    for found in (straight, turned, large):
        assert found.pop("test/episodes_per_second") > 0  # the clock's, no function of the data
    assert straight == turned == large and straight["test/episodes"] == 12
    made.eval()
    counts, classes = [], []
    with torch.no_grad():
        for batch in loader():
            batch = double(batch)
            logits = made.net(batch["query_image"], batch["support_images"], batch["support_masks"]).logits
            counts.append(count_episode(logits[0].argmax(0), batch["query_mask"][0]))
            classes.append(int(batch["class_id"]))
    sums = sum_by_class(counts, classes, (1, 2, 3))
    assert (sums.intersection > 100).all() and (class_iou(sums) < 0.9).all()  # else equal scores would say little
    assert straight["test/miou"] == pytest.approx(mean_iou(sums), abs=1e-7)
    assert straight["test/fb_iou"] == pytest.approx(fb_iou(sums), abs=1e-7)
    for c, value in zip((1, 2, 3), class_iou(sums), strict=True):
        assert straight[f"test/iou/{c}"] == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_fit_moves_what_learns_and_nothing_else(optimiser):
    made = task(optimiser=optimiser, lr=1e-2, warmup=2)
    before = {name: value.clone() for name, value in made.net.state_dict().items()}
    trainer = Trainer(max_epochs=2, **QUIET)
    trainer.fit(made, loader(batch=3), loader(count=6))
    assert 0 <= float(trainer.callback_metrics["val/miou"]) <= 1
    moved = {name for name, value in made.net.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith("backbone.")}
    assert not moved & frozen
    assert {name for name, p in made.net.named_parameters() if p.requires_grad} <= moved


class Rates(Callback):
    """The learning rate that each step takes."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize(("warmup", "rise"), [(0, [1, 1, 1, 1, 1, 1]), (3, [1 / 3, 2 / 3, 1, 1, 1, 1])])
def test_the_rate_rises_linearly_and_decays_behind(optimiser, warmup, rise):
    """Six steps: (1 - k/6)^power of each, times the share of the rise."""
    made, rates = task(optimiser=optimiser, lr=0.02, power=0.5, warmup=warmup), Rates()
    Trainer(max_epochs=2, callbacks=[rates], limit_val_batches=0, **QUIET).fit(made, loader(batch=4))
    decay = [1, math.sqrt(5 / 6), math.sqrt(4 / 6), math.sqrt(3 / 6), math.sqrt(2 / 6), math.sqrt(1 / 6)]
    expected = [[0.02 * up * down] for up, down in zip(rise, decay, strict=True)]
    np.testing.assert_allclose(rates.seen, expected, rtol=1e-12)


def slow_cross_entropy(logits, target, weight):
    """Weighted mean over the pixels that count, one after another; the background's weight is 1."""
    total = counted = 0.0
    for n, y, x in np.ndindex(target.shape):
        if target[n, y, x] == 255:
            continue
        own = weight if target[n, y, x] == 1 else 1.0
        exponents = np.exp(logits[n, :, y, x])
        total -= own * np.log(exponents[target[n, y, x]] / exponents.sum())
        counted += own
    return total / counted


def test_both_losses_weigh_the_foreground():
    random = np.random.default_rng(2)
    main, *heads = random.normal(size=(3, 2, 2, 4, 5))
    target = random.integers(0, 2, (2, 4, 5))
    target[0, 1] = 255
    made = task(foreground_weight=3.0, auxiliary_weight=0.4)
    episode = Episode(torch.from_numpy(main), [torch.from_numpy(head) for head in heads], [], torch.zeros(2, 1, 1, 1))
    found = made.losses(episode, torch.from_numpy(target))
    auxiliary, plain = (0.4 * np.mean([slow_cross_entropy(head, target, w) for head in heads]) for w in (3.0, 1.0))
    assert abs(auxiliary - plain) > 1e-3  # the weight is worth comparing
    assert float(found.auxiliary) == pytest.approx(auxiliary, abs=1e-12)
    assert float(found.main) == pytest.approx(slow_cross_entropy(main, target, 3.0), abs=1e-12)
    assert float(found.total) == pytest.approx(float(found.main) + auxiliary, abs=1e-12)


def test_nothing_answered_is_told():
    with pytest.raises(ConfigError, match=r"no episode of split test was answered; raise trainer\.limit_test_batches"):
        scoring.scores(torch.zeros(6, scoring.COLUMNS, dtype=torch.int64), "test")


@pytest.mark.parametrize("key", ["lr", "foreground_weight"])
def test_settings_that_make_no_sense_are_refused_by_name(key):
    with pytest.raises(ConfigError, match=rf"model\.init_args\.{key} is 0"):
        task(**{key: 0})
