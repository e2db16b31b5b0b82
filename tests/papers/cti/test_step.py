"""The training step against four plain passes, its switches, and what each of them may not touch."""

import pytest
import torch

from frugalseg.errors import CheckpointError, ConfigError, ImageError
from frugalseg.ops.cam import min_max
from frugalseg.papers.cti import CTI, losses
from frugalseg.papers.cti.blocks import AttentionSums, TokenBlock
from frugalseg.papers.cti.embed import resize_positions
from frugalseg.papers.cti.model import CTIViT
from tests.papers.cti import naive, numpy_oracles
from tests.papers.cti.rules import apply_rule

CLASSES, DIM = 5, 12
SMALL = {"dim": DIM, "depth": 5, "heads": 3, "grid": 3, "drop_path": 0.0, "weights": None, "memory_size": 2}
TAGS = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0]], dtype=torch.float64)


def small(**settings):
    torch.manual_seed(0)
    task = CTI(CLASSES + 1, **{**SMALL, **settings}).double().train()
    apply_rule(task.net)
    return task


def twin(task, last=2):
    """The naive net with the same weights."""
    net = naive.NaiveCTI(CLASSES + 1, DIM, 3, depth=5, grid=3, infusion=task.net.infusion, last=last).double()
    net.load_state_dict({k: v for k, v in task.net.state_dict().items() if k != "token_table"})
    return net


def views(side=48, seed=1):
    return torch.randn(2, 2, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(task, size=2):
    """Both memories, full with the same entries."""
    entries = torch.randn(CLASSES, size, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    task.memory.values.copy_(entries)
    task.memory.count.fill_(size)
    lists = naive.NaiveMemory(CLASSES, size)
    lists.lists = [list(rows) for rows in entries]
    return lists


@pytest.mark.parametrize("side", [48, 64, 75])
@pytest.mark.parametrize("infusion", [0, 1, 3])
@pytest.mark.parametrize("fused_blocks", [2, 4])
def test_the_step_equals_four_plain_passes(side, infusion, fused_blocks):
    """Any training size, any place of the infusion, and maps that begin before or behind it."""
    task = small(infusion=infusion, fused_blocks=fused_blocks)
    slow, memory = twin(task, fused_blocks), filled(task)
    view1, view2 = views(side)
    terms = task.losses(view1, view2, TAGS)
    expected = naive.train_step(slow, memory, view1, view2, TAGS)
    for name, key in (("background", "bg"), ("intra", "intra"), ("cross", "cross"), ("total", "total")):
        torch.testing.assert_close(getattr(terms, name), expected[key], rtol=0, atol=1e-12)
    terms.total.backward()
    expected["total"].backward()
    gradients = dict(slow.named_parameters())
    for name, parameter in task.net.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-9, atol=1e-12, msg=name)
    for c, entries in enumerate(memory.lists):
        torch.testing.assert_close(task.memory.entries(c), torch.stack(entries), rtol=0, atol=1e-12)


def test_l_cross_waits_until_every_class_has_its_entries():
    task = small()
    two_images = torch.ones(2, CLASSES, dtype=torch.float64)
    first = task.losses(*views(), torch.tensor([[1, 1, 1, 1, 0]] * 2, dtype=torch.float64))
    assert float(first.cross.detach()) == 0 and not task.memory.is_full()
    first = [value.detach() for value in first]
    assert float(first[4]) == pytest.approx(float(sum(first[:3])), abs=1e-12)
    second = task.losses(*views(), two_images)
    assert float(second.cross.detach()) > 0 and task.memory.is_full()
    second = [value.detach() for value in second]
    assert float(second[4]) == pytest.approx(float(sum(second[:4])), abs=1e-12)


def test_nothing_but_classification_before_the_terms_begin():
    task = small()
    terms = task.losses(*views(), TAGS, extra=False)
    assert [float(terms.background), float(terms.intra), float(terms.cross)] == [0, 0, 0]
    assert float(terms.total) == float(terms.classification)
    assert int(task.memory.count.sum()) == 0


ROWS = {
    "baseline": {"background_token": False, "background_weight": 0.0, "intra_weight": 0.0, "cross_weight": 0.0},
    "token": {"background_weight": 0.0, "intra_weight": 0.0, "cross_weight": 0.0},
    "bg": {"intra_weight": 0.0, "cross_weight": 0.0},
    "intra": {"cross_weight": 0.0},
    "full": {},
    "cross alone, no token": {"background_token": False, "background_weight": 0.0, "intra_weight": 0.0},
}


@pytest.mark.parametrize("row", ROWS)
def test_the_rows_of_the_ablation_are_switches(row):
    """Each term that is on equals the naive one; the passes of those that are off do not run."""
    task = small(**ROWS[row])
    task.memory.count.fill_(2)
    calls = []
    task.net.blocks[-1].register_forward_hook(lambda m, i, out: calls.append(len(out)))
    terms = task.losses(*views(), TAGS)
    on = {name: task.hparams[f"{name}_weight"] > 0 for name in ("background", "intra", "cross")}
    assert {name: float(getattr(terms, name)) > 0 for name in on} == on
    assert calls == [2 * (1 + on["cross"]), 2 * (1 + on["intra"])]  # P1 with PX, P2 with PI
    terms.total.backward()
    assert all(p.grad is not None for p in task.net.parameters() if p.requires_grad)
    if task.net.first:
        memory = filled(task)
        expected = naive.train_step(twin(task), memory, *views(), TAGS)
        for name, key in (("background", "bg"), ("intra", "intra")):
            if on[name]:
                torch.testing.assert_close(getattr(terms, name), expected[key], rtol=0, atol=1e-12)


def test_a_background_loss_needs_a_background_token():
    with pytest.raises(ConfigError, match="background_weight"):
        small(background_token=False)


def test_paired_images_need_no_memory():
    task = small(cross="paired")
    both = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 1, 0]], dtype=torch.float64)
    assert float(task.losses(*views(), both).cross) > 0
    assert int(task.memory.count.sum()) == 0


@pytest.mark.parametrize("rule", ["background", "skip"])
def test_images_without_tags(rule):
    """`background` pushes the background map to 1 everywhere, `skip` lets such an image contribute nothing."""
    torch.manual_seed(0)
    maps, rows = torch.rand(2, CLASSES + 1, 3, 3), torch.rand(2, CLASSES + 1, 3, 3)
    patches, tags = torch.rand(2, 9, 9), torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    whole = losses.background_loss(maps, rows, patches, tags, skip_unlabelled=rule == "skip")
    each = [
        losses.background_loss(maps[i : i + 1], rows[i : i + 1], patches[i : i + 1], tags[i : i + 1]) for i in (0, 1)
    ]
    expected = (each[0] + (0 if rule == "skip" else each[1])) / 2
    torch.testing.assert_close(whole, expected)
    background = min_max((patches[1] @ (rows[1, 0] * maps[1, 0]).flatten()).view(3, 3))
    torch.testing.assert_close(each[1], (1 - background).mean())


@pytest.mark.parametrize("rule", ["background", "skip"])
def test_a_batch_in_which_no_image_has_tags_trains_on(rule):
    task = small(unlabelled=rule)
    task.memory.count.fill_(2)
    terms = task.losses(*views(), torch.zeros_like(TAGS))
    terms.total.backward()
    assert all(torch.isfinite(value) for value in terms)
    assert (float(terms.background) == 0) == (rule == "skip")
    assert all(torch.isfinite(p.grad).all() for p in task.net.parameters())
    assert int(task.memory.count.max()) == 2


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ImageError, match=r"100 x 15 pixels .* smaller than one patch of 16 x 16"):
        CTIViT(3, DIM, 2, 3, infusion=0)(torch.zeros(1, 3, 15, 100))


def test_the_tokens_of_another_number_of_classes_are_refused():
    few, many = CTIViT(4, DIM, 2, 3, infusion=0), CTIViT(6, DIM, 2, 3, infusion=0)
    with pytest.raises(CheckpointError, match="tokens for 5 classes, but there are 3: classes 4 to 5 do not occur"):
        few.load_state_dict(many.state_dict())
    with pytest.raises(CheckpointError, match="tokens for 3 classes, but there are 5: classes 4 to 5 have no token"):
        many.load_state_dict(few.state_dict())
    bare = CTIViT(4, DIM, 2, 3, infusion=0, background_token=False)
    with pytest.raises(
        CheckpointError, match=r"has no background token, .* set model\.init_args\.background_token to false"
    ):
        few.load_state_dict(bare.state_dict())
    with pytest.raises(
        CheckpointError, match=r"has a background token, .* set model\.init_args\.background_token to true"
    ):
        bare.load_state_dict(few.state_dict())


def test_an_infusion_behind_the_last_block_is_refused():
    with pytest.raises(ValueError, match="infusion must be 0 to 3"):
        CTIViT(4, DIM, 5, 3, infusion=4)


def test_folded_tokens_give_the_same_and_survive_a_checkpoint():
    net = small().net.eval()
    image = views()[0]
    with torch.no_grad():
        before, parameters = net(image).scores.maps, sum(p.numel() for p in net.parameters())
        net.fold()
        net.fold()  # a second time changes nothing
        assert torch.equal(net(image).scores.maps, before)
        other = CTIViT(CLASSES + 1, DIM, 5, 3, grid=3, infusion=3).double().eval()
        other.load_state_dict(net.state_dict())
        assert torch.equal(other(image).scores.maps, before)
    tokenizer = DIM * 5 * DIM + 5 * DIM + 5 * DIM * (CLASSES + 1) * DIM + (CLASSES + 1) * DIM
    assert parameters - sum(p.numel() for p in net.parameters()) == tokenizer


@pytest.mark.parametrize("grid", [(3, 3), (5, 2), (1, 7), (6, 6)])
def test_positions_against_the_loop(grid):
    table = torch.randn(1, 9, 4, dtype=torch.float64)
    expected = numpy_oracles.resized_positions(table[0].numpy().reshape(3, 3, 4), (3, 3), grid)
    torch.testing.assert_close(
        resize_positions(table, grid)[0], torch.as_tensor(expected).reshape(-1, 4), rtol=0, atol=1e-12
    )


def test_positions_of_61_patches_have_61():
    """A factor of 61 / 14 would give 60 (trap 8)."""
    assert resize_positions(torch.randn(1, 196, 4), (61, 7)).shape == (1, 61 * 7, 4)


def test_stochastic_depth_draws_for_every_pass_behind_the_trunk():
    """Within the trunk the passes of view 1 share the masks; behind it each has its own."""
    task = small(drop_path=0.5, cross_weight=0.0, fused_blocks=1)
    sizes = []
    for block in task.net.blocks:
        block.register_forward_hook(lambda m, i, out: sizes.append(len(out)))
    torch.manual_seed(0)
    task.losses(*views(), TAGS)
    behind = task.net.depth - task.net.infusion - 1
    assert sizes == [4] * (task.net.infusion + 1) + [2] * behind + [4] * behind
    assert [block.drop_path for block in task.net.blocks] == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])


@pytest.mark.parametrize("rate", [0.3, 0.6, 1 - 1e-6])
@pytest.mark.parametrize("watched", [True, False])
def test_stochastic_depth_equals_its_definition(rate, watched):
    """Branches that are not run for samples that skip them give what running them for all and masking gives."""
    torch.manual_seed(0)
    block = TokenBlock(0, DIM, 3, 2.0, rate).double().train()
    x = torch.randn(5, 7, DIM, dtype=torch.float64, requires_grad=True)
    groups = [AttentionSums(5, 2, rows_from=0, patches_from=0)] if watched else []
    torch.manual_seed(1)
    out = block(x, groups)
    torch.manual_seed(1)
    taken = [(torch.rand(5) >= rate).double().view(-1, 1, 1) / (1 - rate) for _ in range(2)]
    middle = x + taken[0] * block.attn(block.norm1(x))
    expected = middle + taken[1] * block.mlp(block.norm2(middle))
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(expected.square().sum(), [x, *block.parameters()], retain_graph=True)
    found = torch.autograd.grad(out.square().sum(), [x, *block.parameters()])
    for one, two in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)
    if watched:  # maps are those of all samples, whether they skip the branch or not
        sums = AttentionSums(5, 2, rows_from=0, patches_from=0)
        block.eval()(x, [sums])
        torch.testing.assert_close(groups[0].rows, sums.rows)
        torch.testing.assert_close(groups[0].patches, sums.patches)


def test_maps_and_losses_are_float32_under_bf16():
    task = small().float()
    task.memory.count.fill_(2)
    with torch.autocast("cpu", torch.bfloat16):
        view1, view2 = views().float()
        trunk = task.net.trunk(view1, view2)
        found = task.net.branches(trunk, True, torch.zeros(2, CLASSES, DIM))
        terms = task.losses(view1, view2, TAGS.float())
    for value in (found.plain1.maps, found.rows, found.patches, found.cross_rows, found.plain1.token_logits, *terms):
        assert value.dtype == torch.float32
    exact = task.losses(*views().float(), TAGS.float())
    assert abs(float(terms.total) - float(exact.total)) < 0.05 * float(exact.total)
