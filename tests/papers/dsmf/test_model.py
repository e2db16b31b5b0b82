"""DSMF-Net as a whole: the properties of dsmf.md 4.10, sizes, switches, counts of parameters."""

import numpy as np
import pytest
import torch

from frugalseg.nn.dilated import Early, Stages
from frugalseg.ops.prototypes import foreground, scaled_cosine_map, weighted_average_pool
from frugalseg.optim import poly_factor
from frugalseg.papers.dsmf.losses import auxiliary_loss, episode_loss
from frugalseg.papers.dsmf.model import DSMFNet

TINY = {
    "backbone": "resnet18",
    "backbone_options": {"strides": (2, 2, 2), "options": {"layers": [1, 1, 1, 1], "channels": [4, 6, 8, 10]}},
    "dim": 8,
    "nodes": 4,
    "states": 6,
}


def tiny(**settings):
    torch.manual_seed(0)
    net = DSMFNet(**{**TINY, **settings}).double().eval()
    for module in net.graphs.modules():  # the units begin as the identity: woken up
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)
    return net


def episode(shots=2, size=(48, 64), count=2, seed=1):
    random = torch.Generator().manual_seed(seed)
    query, supports = (
        torch.randn(*shape, 3, *size, generator=random, dtype=torch.float64) for shape in ((count,), (count, shots))
    )
    masks = torch.zeros(count, shots, *size, dtype=torch.int64)
    masks[..., 8:32, 10:40] = 1
    masks[..., 30:34, 5:20] = 255
    return query, supports, masks


def run(net, *parts):
    with torch.no_grad():
        return net(*parts)


def test_counts_of_parameters():
    """dsmf.md 4.9, training heads included; the difference is the frozen ResNet-50."""
    net = DSMFNet()
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert (trained, sum(p.numel() for p in net.parameters())) == (6_082_824, 29_590_856)
    assert sum(p.numel() for p in net.graphs.parameters()) == 309_504
    assert sum(p.numel() for p in net.auxiliary.parameters()) == 1_771_014


def test_without_their_scale_the_units_leave_the_grids_cosine():
    """Identity at the start: the map of a stage is the cosine of its reduced features with their masked mean."""
    torch.manual_seed(0)
    net = DSMFNet(**TINY).double().eval()
    query, supports, masks = episode(shots=1)
    found = run(net, query, supports, masks)
    own, theirs = net.backbone(query), net.backbone(supports[:, 0])
    for stage, (reduce, map_) in enumerate(zip(net.reduce, found.graph_maps, strict=True)):
        features, support = reduce(own[stage]), reduce(theirs[stage])
        size = (support.shape[-2], support.shape[-1])
        prototype = weighted_average_pool(support, foreground(masks[:, :1, :, :], size))
        torch.testing.assert_close(map_, scaled_cosine_map(features, prototype), rtol=0, atol=1e-10)


@pytest.mark.parametrize("fusion", ["sff", "fem"])
def test_equal_supports_are_one_support_and_their_order_is_nothing(fusion):
    net = tiny(fusion=fusion)
    query, supports, masks = episode(shots=3)
    once = run(net, query, supports[:, :1], masks[:, :1])
    thrice = run(net, query, supports[:, :1].expand(-1, 3, -1, -1, -1), masks[:, :1].expand(-1, 3, -1, -1))
    torch.testing.assert_close(once.logits, thrice.logits, rtol=0, atol=1e-9)
    turned = run(net, query, supports[:, [2, 0, 1]], masks[:, [2, 0, 1]])
    torch.testing.assert_close(turned.logits, run(net, query, supports, masks).logits, rtol=0, atol=1e-9)


def test_prototypes_are_averaged_over_shots():
    """dsmf.md 4.3, with supports that differ in image and mask: the maps, and what the fusion is given."""
    net = tiny()
    query, supports, masks = episode(shots=2)
    masks[:, 1] = masks[:, 1].roll((10, 15), (1, 2))
    given = []
    net.fusion.register_forward_pre_hook(lambda _, parts: given.append(parts[1]))
    found = run(net, query, supports, masks)
    with torch.no_grad():
        own = [features for features, _ in net.stage_features(net.query_features(query))]
        shots = [
            [features for features, _ in net.stage_features(net.support_features(supports[:, shot]))] for shot in (0, 1)
        ]
        expected, largest = [], []
        for stage, (query_features, *both) in enumerate(zip(own, *shots, strict=True)):
            one, other = (
                weighted_average_pool(f, foreground(masks[:, shot, None], (f.shape[-2], f.shape[-1])))
                for shot, f in enumerate(both)
            )
            expected.append((one + other) / 2)
            largest.append(torch.maximum(one, other))
            map_ = scaled_cosine_map(query_features, expected[-1])
            torch.testing.assert_close(found.graph_maps[stage], map_, rtol=0, atol=1e-9)
            assert float((scaled_cosine_map(query_features, largest[-1]) - map_).abs().max()) > 1e-3
    torch.testing.assert_close(given[0], (expected[0] + expected[1] + expected[2]) / 3, rtol=0, atol=1e-9)


def test_a_prototype_does_not_care_where_its_places_are():
    """Places of the features permuted together with the mask on their grid: the same pooling, the same nodes."""
    net = tiny()
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    mask = (torch.rand(1, 1, 6, 6) < 0.4).double()
    order = torch.randperm(36)

    def turned(part):
        return part.flatten(2)[..., order].reshape(part.shape)

    with torch.no_grad():
        one = weighted_average_pool(net.graphs[0](x), mask)
        other = weighted_average_pool(net.graphs[0](turned(x)), turned(mask))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_support_mask_gives_finite_numbers(value):
    query, supports, masks = episode()
    found = run(tiny(), query, supports, torch.full_like(masks, value))
    assert torch.isfinite(found.logits).all() and not found.prior.any()
    assert all(torch.isfinite(map_).all() for map_ in found.graph_maps)


def test_ignored_pixels_have_no_gradient_and_no_loss():
    logits = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (1, 4, 5))
    target[0, 1:3] = 255
    loss = episode_loss(logits, target)
    loss.backward()
    assert not logits.grad[:, :, 1:3].any() and logits.grad[:, :, 0].any()
    kept = torch.cat([logits[:, :, :1], logits[:, :, 3:]], dim=2)
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(kept, torch.cat([target[:, :1], target[:, 3:]], 1))
    )
    assert float(episode_loss(logits, torch.full_like(target, 255)).detach()) == 0


def test_the_foreground_weight_is_that_of_a_weighted_mean():
    logits, target = torch.randn(2, 2, 3, 3, dtype=torch.float64), torch.randint(0, 2, (2, 3, 3))
    target[0, 0, 0] = 255
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, target, weight, ignore_index=255)
    torch.testing.assert_close(episode_loss(logits, target, 3.0), expected)
    torch.testing.assert_close(auxiliary_loss([logits, logits], target, 3.0), expected)
    assert float(auxiliary_loss([], target)) == 0


def test_the_backbone_neither_learns_nor_counts():
    net = tiny().train()
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    optimiser = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), 0.1)
    query, supports, masks = episode()
    found = net(query, supports, masks)
    target = masks[:, 0]
    (episode_loss(found.logits, target) + auxiliary_loss(found.auxiliary, target)).backward()
    optimiser.step()
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.backbone.state_dict().items())
    missing = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize("size", [(256, 256), (257, 257), (473, 473), (96, 200), (64, 65)])
def test_any_size(size):
    torch.manual_seed(0)
    net = DSMFNet(**TINY).eval()
    query, supports, masks = (part.float() if part.is_floating_point() else part for part in episode(1, size, 1))
    found = run(net, query, supports, masks)
    assert found.logits.shape == (1, 2, *size) and torch.isfinite(found.logits).all()
    assert float(found.prior.min()) >= 0 and float(found.prior.max()) <= 1


SWITCHES = [
    {"use_graph": False}, {"use_maps": False}, {"use_prior": False}, {"fusion": "fem"}, {"sff_merge": False},
    {"sff_levels": 3}, {"graph_stages": (2, 3, 4)}, {"graph_stages": (3,)}, {"nodes": 7}, {"graph_impl": "pyg"},
]  # fmt: skip


@pytest.mark.parametrize("settings", SWITCHES, ids=lambda s: " ".join(f"{k}={v}" for k, v in s.items()))
def test_rows_of_the_ablation_run_and_differ(settings):
    parts = episode()
    default, other = run(tiny(), *parts), run(tiny(**settings), *parts)
    assert other.logits.shape == default.logits.shape
    assert len(other.graph_maps) == len(settings.get("graph_stages", (1, 2, 3)))
    if settings == {"graph_impl": "pyg"}:
        torch.testing.assert_close(other.logits, default.logits, rtol=0, atol=1e-10)
    else:
        assert float((other.logits - default.logits).abs().max()) > 1e-6
    assert other.prior.any() == settings.get("use_prior", True)


@pytest.mark.parametrize("stages", [(), (0, 1), (1, 1), (5,)])
def test_stages_that_are_not_there_are_refused(stages):
    with pytest.raises(ValueError, match="graph_stages must be different stages from 1 to 4"):
        DSMFNet(**TINY, graph_stages=stages)


def test_chunks_of_the_prior_change_nothing():
    parts = episode()
    whole, chunked = run(tiny(), *parts), run(tiny(prior_chunk=7), *parts)
    torch.testing.assert_close(whole.prior, chunked.prior, rtol=0, atol=1e-12)


def test_kept_features_give_what_images_give():
    net = tiny()
    query, supports, masks = episode()
    with torch.no_grad():
        own, theirs = net.backbone(query), net.backbone(supports.flatten(0, 1))
        halves = [Stages(*(part[i : i + 1] for part in own)) for i in range(2)]
        own = Stages(*(torch.cat(parts) for parts in zip(*halves, strict=True)))
        kept = net.from_features(own, theirs, masks, (48, 64))
    torch.testing.assert_close(kept.logits, run(net, query, supports, masks).logits, rtol=0, atol=1e-10)


STAGES_OF_BOTH = [
    ({}, "query 4, support 3, masked"),
    ({"graph_stages": (2, 4)}, "query 4, support 4, masked"),
    ({"use_prior": False}, "query 3, support 3"),
    ({"use_prior": False, "graph_stages": (4,)}, "query 4, support 4"),
]


@pytest.mark.parametrize(("settings", "work"), STAGES_OF_BOTH, ids=[work for _, work in STAGES_OF_BOTH])
def test_only_stages_that_are_needed_are_worked_out(settings, work, monkeypatch):
    """And the answer is that of all stages."""
    net = tiny(**settings)
    query, supports, masks = episode()
    with torch.no_grad():
        own, theirs = net.backbone(query), net.backbone(supports.flatten(0, 1))
        expected = net.from_features(own, theirs, masks, (48, 64))
    images, last = [], net.backbone._last
    monkeypatch.setattr(net.backbone, "_last", lambda c3: images.append(len(c3)) or last(c3))
    assert torch.equal(run(net, query, supports, masks).logits, expected.logits)
    wanted = [2] * ("query 4" in work) + [4] * ("support 4" in work) + [4] * ("masked" in work)
    assert images == wanted


def test_a_kept_masked_stage_gives_what_working_it_out_gives(monkeypatch):
    net = tiny()
    query, supports, masks = episode()
    with torch.no_grad():
        own, theirs = net.query_features(query), net.support_features(supports.flatten(0, 1))
        assert not hasattr(theirs, "c4")
        # by image, as a cache keeps them
        parts = [
            net.masked_last(Early(*(part[i : i + 1] for part in theirs)), masks.flatten(0, 1)[i : i + 1])
            for i in range(4)
        ]
        known = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        expected = run(net, query, supports, masks).logits
        monkeypatch.setattr(net, "masked_last", lambda *_: pytest.fail("worked out anew"))
        found = net.from_features(own, theirs, masks, (48, 64), known)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-10)


def test_a_prior_without_the_querys_last_stage_is_refused():
    net = tiny()
    query, supports, masks = episode()
    early = net.backbone.early(query)
    with pytest.raises(ValueError, match="last stage of the query"):
        net.from_features(early, net.support_features(supports.flatten(0, 1)), masks, (48, 64))


def test_one_episode_can_be_learned_by_heart():
    """A square of one colour in two noisy images, fewer than 200 steps."""
    torch.manual_seed(0)
    net = DSMFNet(**{**TINY, "dim": 16}, query_dropout=0.0).train()
    image = 0.1 * torch.randn(2, 3, 48, 48)
    masks = torch.zeros(2, 48, 48, dtype=torch.int64)
    masks[0, 8:28, 8:28], masks[1, 20:40, 16:36] = 1, 1
    image += masks[:, None] * torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1)
    query, supports, support_masks = image[:1], image[1:, None], masks[1:, None]
    optimiser = torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), 3e-3)
    for _ in range(200):
        found = net(query, supports, support_masks)
        wrong = float((found.logits.argmax(1) != masks[:1]).float().mean())
        if wrong < 0.02:
            break
        optimiser.zero_grad()
        (episode_loss(found.logits, masks[:1]) + auxiliary_loss(found.auxiliary, masks[:1])).backward()
        optimiser.step()
    assert wrong < 0.02


@pytest.mark.golden
def test_poly_lr(golden):
    g = golden("fewshot/poly_lr")
    total, power = int(g["max_iter"]), float(g["power"])
    factors = np.array([poly_factor(int(i), total, power) for i in g["iters"]])
    np.testing.assert_allclose(factors[:, None] * float(g["base"]) * np.array([1.0, 10.0]), g["lr"], rtol=0, atol=1e-12)
