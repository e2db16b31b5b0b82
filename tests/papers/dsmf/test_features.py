"""Frozen features that are kept: they change nothing, are never another image's, and outlive what made them."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from frugalseg.nn.dilated import Stages
from frugalseg.papers.dsmf import DSMF, PrototypeBaseline
from frugalseg.papers.dsmf.features import FeatureCache, digest, digest_of_net, shared_features
from tests.papers.dsmf.test_model import TINY
from tests.papers.dsmf.test_task import QUIET, double, loader, task, undecided

ROOM = 1 << 30


@pytest.fixture(autouse=True)
def _forget():
    """What other tests of this process have kept."""
    shared_features.cache_clear()


class Noted(DSMF):
    """Notes the loss and the gradients of each step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses_seen = [*getattr(self, "losses_seen", []), loss.detach().clone()]
        return loss

    def on_after_backward(self):
        found = {name: p.grad.clone() for name, p in self.net.named_parameters() if p.grad is not None}
        self.gradients = [*getattr(self, "gradients", []), found]


def noted(**settings):
    torch.manual_seed(0)
    made = Noted(num_classes=6, weights=None, **{**TINY, **settings})
    for module in made.net.graphs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)
    return made


def fitted(made, epochs=2, shots=2, precision="64-true"):
    torch.manual_seed(5)  # dropout
    Trainer(max_epochs=epochs, precision=precision, **QUIET).fit(made, loader(batch=3, shots=shots))
    return made


def lookups(shots, epochs):
    """What an epoch of twelve episodes asks for, and what of it is new: images, and images with a mask."""
    queries = [n % 7 for n in range(12)]
    pairs = [((n + 2 + k) % 7, 1 + n % 3) for n in range(12) for k in range(shots)]
    asked = epochs * (len(queries) + 2 * len(pairs))
    return asked, len({*queries, *(image for image, _ in pairs)}), len(set(pairs))


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"use_prior": False}, {"graph_stages": (2, 4), "fusion": "fem"}])
def test_training_is_what_it_is_without(settings, shots):
    plain, kept = (fitted(noted(feature_bytes=room, **settings), shots=shots) for room in (0, ROOM))
    assert plain.features is None
    assert len(plain.losses_seen) == len(plain.gradients) == 8
    torch.testing.assert_close(kept.losses_seen, plain.losses_seen, rtol=0, atol=1e-10)
    for one, other in zip(kept.gradients, plain.gradients, strict=True):
        assert one.keys() == other.keys() and len(one) > 10
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    asked, images, pairs = lookups(shots, epochs=2)
    if not settings.get("use_prior", True):  # nothing depends on image and mask then
        asked, pairs = asked - 2 * 12 * shots, 0
    found = kept.features.kept
    assert (found.images, found.pairs, found.misses) == (images, pairs, images + pairs)
    assert found.hits == asked - found.misses
    assert 0 < found.bytes <= ROOM


@pytest.mark.parametrize("kept", [0, ROOM])
def test_a_fit_leaves_the_backbone_as_it_was(kept):
    made = noted(feature_bytes=kept)
    before = {name: value.clone() for name, value in made.net.backbone.state_dict().items()}
    assert any("running_mean" in name for name in before)
    fitted(made, epochs=1, precision="32-true")
    assert all(torch.equal(value, before[name]) for name, value in made.net.backbone.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"use_prior": False}])
def test_no_more_memory_is_held_than_was_counted(settings):
    """A kept view would hold the batch that it was cut from."""
    found = fitted(noted(feature_bytes=ROOM, **settings), epochs=1).features
    parts = [part for entry in (*found._stages.values(), *found._last.values()) for part in entry]
    held = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    assert len(parts) > 20 and sum(held.values()) == found.kept.bytes


def test_beyond_the_limit_all_goes_on_without():
    plain = fitted(noted())
    one = fitted(noted(feature_bytes=ROOM), epochs=1).features.kept.bytes
    tight = fitted(noted(feature_bytes=one // 2))
    found = tight.features.kept
    assert 0 < found.images < 7 and found.bytes <= one // 2 and found.hits and found.misses > found.images + found.pairs
    torch.testing.assert_close(tight.losses_seen, plain.losses_seen, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- never another image's


def expected_of(made, batch):
    return made.net(batch["query_image"], batch["support_images"], batch["support_masks"])


def change_of(what, batch):
    """Another content under the same names."""
    made = {**batch}
    if what.endswith("mask"):
        made["support_masks"] = batch["support_masks"].roll(9, dims=-1)
    else:
        made[what] = batch[what].clone()
        made[what][..., 3, :] += 1.0
    return made


@pytest.mark.parametrize("what", ["query_image", "support_images", "support_mask"])
@pytest.mark.parametrize("how", ["_episode", "answer"])
def test_another_content_under_the_same_name_is_no_hit(what, how):
    made = task(cache_bytes=0).double().eval()
    made.features = FeatureCache(ROOM)
    batch = double(next(iter(loader(batch=4))))
    changed = change_of(what, batch)
    with torch.no_grad():
        for asked in (batch, changed, batch):
            torch.testing.assert_close(
                getattr(made, how)(asked).logits, expected_of(made, asked).logits, rtol=0, atol=1e-10
            )
        # the comparison could fail: what was changed matters
        assert not torch.allclose(expected_of(made, batch).logits, expected_of(made, changed).logits, atol=1e-6)
    assert made.features.kept.hits


def test_names_of_contents():
    image = torch.arange(24.0).reshape(2, 3, 4)
    assert digest(image) == digest(image.clone())
    # laid out otherwise in memory, the same content
    assert digest(image) == digest(image.permute(2, 0, 1).contiguous().permute(1, 2, 0))
    assert (
        len(
            {
                digest(i)
                for i in (
                    image,
                    -image,
                    image.reshape(3, 2, 4),
                    image.double(),
                    image.int(),
                    image.permute(2, 1, 0).contiguous(),
                )
            }
        )
        == 6
    )
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_what_is_handed_out_may_be_written_to():
    cache = FeatureCache(ROOM)
    images = torch.rand(1, 3, 8, 8)

    def make(image):
        return Stages(*(image + number for number in range(4)))

    def last(number):
        return images[number : number + 1] * 2, images[number : number + 1, 0]

    for _ in range(3):
        found = cache.stages(images, make)
        assert torch.equal(found.c4, images + 3)
        pair = cache.last(images, images[:, 0], last)
        assert torch.equal(pair[0], images * 2)
        for part in (*found, *pair):
            part.zero_()


def test_an_equal_image_within_a_batch_is_worked_out_once():
    cache, seen = FeatureCache(ROOM), []

    def make(image):
        seen.append(image)
        return Stages(*(image * number for number in range(1, 5)))

    one, other = torch.rand(2, 3, 4, 4)
    found = cache.stages(torch.stack([one, other, one]), make)
    assert len(seen) == 2 and torch.equal(found.c2, torch.stack([one, other, one]) * 2)
    assert cache.kept == (2, 0, 2 * 4 * 48 * 4, 1, 2)


def test_the_limit_is_exact():
    images = torch.rand(5, 3, 4, 4)
    size = 4 * 48 * 4  # four stages of 48 numbers of four bytes
    for limit, kept in ((0, 0), (size - 1, 0), (size, 1), (3 * size + 7, 3), (9 * size, 5)):
        cache = FeatureCache(limit)
        for _ in range(2):
            assert torch.equal(cache.stages(images, lambda image: Stages(*(image,) * 4)).c1, images)
        assert cache.kept == (kept, 0, kept * size, kept, 10 - kept)


# ---------------------------------------------------------------------- from stage to stage


def test_what_an_evaluation_has_kept_serves_a_fit():
    """Evaluations run in inference mode, whose tensors no graph may hold."""
    plain = fitted(noted(), epochs=1)
    made = noted(feature_bytes=ROOM).double()
    Trainer(precision="64-true", **QUIET).test(made, loader(), verbose=False)
    before = made.features.kept
    assert before.images == 7
    entries = [*made.features._stages.values(), *made.features._last.values()]
    assert len(entries) > 20 and not any(part.is_inference() for entry in entries for part in entry)
    fitted(made, epochs=1)
    assert made.features.kept.images == 7 and made.features.kept.hits > before.hits
    assert made.features.kept.misses == before.misses  # the fit asks for nothing new
    torch.testing.assert_close(made.losses_seen, plain.losses_seen, rtol=0, atol=1e-10)
    torch.testing.assert_close(made.gradients, plain.gradients, rtol=0, atol=1e-10)


def test_images_that_an_evaluation_made():
    """A batch that was itself made in inference mode."""
    made = noted(feature_bytes=ROOM).double()
    made.features = FeatureCache(ROOM)
    batch = next(iter(loader(batch=2)))
    with torch.inference_mode():
        inside = double({k: v + 0 if torch.is_tensor(v) else v for k, v in batch.items()})
        made.eval()._episode(inside)
    torch.manual_seed(0)
    target = batch["query_mask"]
    made.train().losses(made._episode(double(batch)), target).total.backward()
    assert made.features.kept.misses == made.features.kept.images + made.features.kept.pairs
    assert any(p.grad is not None and p.grad.any() for p in made.net.parameters())


def test_tasks_with_the_same_backbone_share():
    one, two = noted(feature_bytes=ROOM), noted(feature_bytes=ROOM, dim=6, nodes=3, fusion="fem")
    two.net.backbone.load_state_dict(one.net.backbone.state_dict())
    fitted(one, epochs=1)
    before = one.features.kept
    fitted(two, epochs=1)
    assert two.features is one.features and two.features.kept.misses == before.misses
    options = {key: TINY[key] for key in ("backbone", "backbone_options")}
    third = PrototypeBaseline(6, weights=None, feature_bytes=ROOM, **options)
    third.backbone.load_state_dict(one.net.backbone.state_dict())
    Trainer(max_epochs=1, precision="64-true", **QUIET).fit(third, loader(batch=3))
    assert third.features is one.features and third.features.kept.misses == before.misses


def test_a_task_without_prior_leaves_nothing_that_one_with_a_prior_would_take():
    without = fitted(noted(feature_bytes=ROOM, use_prior=False), epochs=1)
    assert without.features.kept.images and not without.features.kept.pairs
    kept, plain = (fitted(noted(feature_bytes=room), epochs=1) for room in (ROOM, 0))
    assert kept.features is without.features
    torch.testing.assert_close(kept.losses_seen, plain.losses_seen, rtol=0, atol=1e-10)


def test_the_same_weights_in_another_net_share_nothing():
    """Dilation and stride are no weights, but change every feature."""
    options = TINY["backbone_options"]
    one = noted(feature_bytes=ROOM)
    for change in ({"dilations": (1, 1)}, {"strides": (2, 1, 2)}):
        two = noted(feature_bytes=ROOM, backbone_options={**options, **change})
        two.net.backbone.load_state_dict(one.net.backbone.state_dict())
        assert digest_of_net(two.net.backbone) != digest_of_net(one.net.backbone)


@pytest.mark.parametrize("tensor", ["conv1.weight", "bn1.running_mean"])
def test_another_backbone_shares_nothing(tensor):
    """Not even one that differs in a single number, of a weight or of a statistic."""
    one, two = (noted(feature_bytes=ROOM) for _ in range(2))
    assert digest_of_net(one.net.backbone) == digest_of_net(two.net.backbone)
    two.net.backbone.state_dict()[tensor].view(-1)[0] += 0.5
    assert digest_of_net(one.net.backbone) != digest_of_net(two.net.backbone)
    fitted(one, epochs=1)
    fitted(two, epochs=1)
    assert two.features is not one.features and two.features.kept.misses == one.features.kept.misses


def test_weights_that_a_checkpoint_brings_are_noticed(tmp_path):
    """The same task, tested with its own and then with another net's weights."""
    made, other = noted(feature_bytes=ROOM), noted(feature_bytes=ROOM)
    torch.manual_seed(9)
    for part in other.net.backbone.parameters():
        torch.nn.init.normal_(part, std=0.1)
    undecided(other), undecided(made)

    def score(net, **words):
        tester = Trainer(precision="64-true", **QUIET)
        tester.test(net, loader(), verbose=False, **words)
        return net.episode_counts()["sums"]

    expected = score(other)
    other.trainer.save_checkpoint(tmp_path / "other.ckpt")
    own = score(made)
    first = made.features
    found = score(made, ckpt_path=tmp_path / "other.ckpt", weights_only=True)
    assert made.features is not first
    assert (found == expected).all() and (own != expected).any()


@pytest.mark.parametrize("place", [("64-true", "cpu", ROOM), ("32-true", "cuda:0", ROOM), ("32-true", "cpu", 7)])
def test_precision_device_and_limit_belong_to_the_name(place):
    assert shared_features("net", "32-true", "cpu", ROOM) is shared_features("net", "32-true", "cpu", ROOM)
    assert shared_features("net", *place) is not shared_features("net", "32-true", "cpu", ROOM)


def test_a_task_without_a_limit_keeps_nothing():
    made = task(feature_bytes=0)
    made._trainer = SimpleNamespace(precision="32-true")
    made.forget()
    assert made.features is None
