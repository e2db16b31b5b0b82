"""The package's CTI against the authors' numbers (golden/cti); tolerances are those of the vectors' README.

Tokens and maps of the narrow net are compared in float64 only: float32 rounding through its twelve blocks alone comes to
the README's bounds and beyond (tokens 2.1e-4 of 2e-4, R and Q 1.6e-4 of 1e-4, with fused and explicit attention alike).
Its attention, seeds and training step, and all of DeiT-S, hold in float32 too.
"""

import numpy as np
import pytest
import torch
from torch import nn

from frugalseg.ops.cam import min_max
from frugalseg.optim import decayed_groups, warmup_cosine
from frugalseg.papers.cti import CTI, losses
from frugalseg.papers.cti.embed import resize_positions
from frugalseg.papers.cti.memory import ClassMemory
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.passes import Pass, Scores
from frugalseg.papers.cti.seeds import Fitted, map_kinds, merge, unmirrored_sum
from tests.conftest import load_golden
from tests.papers.cti.rules import apply_rule, rule_rows

pytestmark = pytest.mark.golden
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
UNUSED = {"pos_embed", "norm.weight", "norm.bias"}
"""Tensors that the authors' net holds and never uses."""


def tensor(array, dtype=torch.float64):
    return torch.as_tensor(np.asarray(array)).to(dtype)


def close(actual, expected, dtype, f64, f32):
    expected = tensor(expected)
    actual = torch.as_tensor(actual).detach().double()
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    bound = f64 if dtype == torch.float64 else f32
    assert error <= bound, f"largest error {error:.3g} exceeds {bound:.3g}"


def tiny(g, dtype, classes=20, side=96, **settings):
    """The README's net `tiny`: 12 blocks of three heads; its width is that of the stored tokens."""
    net = CTIViT(classes + 1, g["fgtokens_in"].shape[-1], heads=3, grid=side // 16, drop_path=0.0, **settings)
    return ruled(net, dtype)


def ruled(net, dtype):
    """Fill by the rule in float64, whatever the precision of the test."""
    apply_rule(net.double())
    return net.to(dtype)


def memory_of(classes, dim, filled, dtype):
    memory = ClassMemory(classes, dim)
    if filled:
        memory.values = torch.stack([rule_rows(c, dim, memory.size) for c in range(classes)])
        memory.count.fill_(memory.size)
    return memory.to(dtype)


def two_passes(net, image, infused=None):
    """The pass with mt over the last blocks, and the one with mt over those behind the infusion."""
    return [net(image, infused, rows, net.infusion + 1) for rows in (net.fused_from, net.infusion + 1)]


def compare(passes, g, prefix, dtype, f64, f32):
    last, after = passes
    everything = torch.arange(g[f"{prefix}_cams"].shape[1])
    maps = map_kinds(last, everything, ("r", "mt", "f", "q"))
    found = {
        "cls": last.scores.token_logits, "pcls": last.scores.patch_logits, "cams": maps["r"], "mtatt": maps["mt"],
        "fcams": maps["f"], "rcams": maps["q"], "attn": last.patches, "mtatt_as": after.rows,
        "fcams_as": map_kinds(after, everything, ("f",))["f"],
    }  # fmt: skip
    compared = [name for name in found if f"{prefix}_{name}" in g]
    for name in compared:
        close(found[name], g[f"{prefix}_{name}"], dtype, f64, f32)
    return compared


def after_blocks(net):
    """Class tokens after each block of the next pass, through hooks."""
    tokens = []
    hooks = [block.register_forward_hook(lambda m, i, out: tokens.append(out[:, : net.tokens])) for block in net.blocks]
    return tokens, hooks


def test_model_tiny_forward(golden, dtype=torch.float64):
    g = golden("cti/model_tiny_forward")
    net = tiny(g, dtype)
    x1, x2 = tensor(g["x1"], dtype), tensor(g["x2"], dtype)
    with torch.no_grad():
        tokens, hooks = after_blocks(net)
        plain = net(x1, None, net.fused_from, net.infusion + 1)
        for hook in hooks:
            hook.remove()
        close(torch.stack(tokens), g["plain1_ctk"], dtype, 1e-9, 2e-4)
        close(plain.tokens, g["plain1_ctk"][net.infusion], dtype, 1e-9, 2e-4)
        assert len(compare(two_passes(net, x1), g, "plain1", dtype, 1e-9, 2e-4)) == 9
        second = two_passes(net, x2)
        close(second[0].tokens, g["plain2_ctk3"], dtype, 1e-9, 2e-4)
        assert len(compare(second, g, "plain2", dtype, 1e-9, 2e-4)) == 3
        for prefix, infused in (("intra", second[0].tokens), ("fgonly", tensor(g["fgtokens_in"], dtype))):
            tokens, hooks = after_blocks(net)
            passes = two_passes(net, x1, infused)
            for hook in hooks:
                hook.remove()
            assert len(compare(passes, g, prefix, dtype, 1e-9, 2e-4)) >= 5
            close(tokens[net.infusion + 1], g[f"{prefix}_ctk4"], dtype, 1e-9, 2e-4)


@BOTH
@pytest.mark.parametrize("place", range(3))
def test_attention_of_single_blocks(golden, place, dtype):
    """Sums that begin one block later differ by that block's head-mean attention."""
    g = golden("cti/model_tiny_forward")
    net = tiny(g, dtype)
    block = (0, 4, net.depth - 1)[place]
    attention = tensor(g["plain1_attn_headmean_l0_l4_l11"][place])
    size = g["plain1_cams"].shape
    with torch.no_grad():
        sums = [net(tensor(g["x1"], dtype), None, start, start) for start in (block, block + 1)]
    rows, patches = (sums[0].rows.flatten(2), sums[0].patches)
    if sums[1].rows is not None:
        rows, patches = rows - sums[1].rows.flatten(2), patches - sums[1].patches
    close(rows, attention[:, : size[1], size[1] :], dtype, 1e-9, 2e-4)
    close(patches, attention[:, size[1] :, size[1] :], dtype, 1e-9, 2e-4)


STEPS = ("voc_full", "voc_membank_empty", "coco_full", "coco_warmup")


@BOTH
@pytest.mark.parametrize("tag", STEPS)
def test_train_step_tiny(golden, tag, dtype):
    """The task's own losses, as training runs them, values and gradients."""
    g, forward = golden("cti/train_step_tiny"), golden("cti/model_tiny_forward")
    data = tag.split("_")[0]
    classes, dim = g[f"label_{data}"].shape[1], forward["fgtokens_in"].shape[-1]
    settings = {"detach_foreground": True, "intra_weight": 0.1, "cross_weight": 0.1} if data == "coco" else {}
    task = CTI(classes + 1, dim, heads=3, grid=6, drop_path=0.0, weights=None, **settings).train()
    ruled(task.net, dtype)
    task.memory = memory_of(classes, dim, "empty" not in tag, dtype)
    views = [tensor(forward[name], dtype) for name in ("x1", "x2")]
    tags = tensor(g[f"label_{data}"], dtype)
    terms = task.losses(*views, tags, extra="warmup" not in tag, show_cross=True)
    terms.total.backward()
    close(terms.total, g[f"{tag}_total"], dtype, 1e-10, 5e-5)
    for name in ("background", "intra", "cross"):
        stored = g[f"{tag}_{ {'background': 'bg'}.get(name, name) }_weighted"]
        close(getattr(terms, name), stored, dtype, 1e-10, 5e-5)
    close(terms.classification, g[f"{tag}_cls_terms"].sum(), dtype, 1e-10, 5e-5)
    compare_gradients(task.net, g, tag, dtype)
    if "warmup" not in tag:
        np.testing.assert_array_equal(task.memory.filled, g[f"{tag}_membank_len"])
        for key in (key for key in g if key.startswith(f"{tag}_membank_last_c")):
            newest = task.memory.entries(int(key.rsplit("_c", 1)[1]))[-1]
            close(newest, g[key], dtype, 1e-9, 2e-4)


def compare_gradients(net, g, tag, dtype):
    parameters, bound = dict(net.named_parameters()), 1e-9 if dtype == torch.float64 else 1e-3
    names = [str(name) for name in g[f"{tag}_param_names"]]
    assert set(names) - set(parameters) == UNUSED and set(parameters) <= set(names)
    for name, norm in zip(names, g[f"{tag}_grad_l2"], strict=True):
        if norm == -1:
            assert name not in parameters or parameters[name].grad is None, name
        else:
            assert abs(float(parameters[name].grad.double().norm()) - norm) <= bound * max(norm, 1e-12), name
    for key in (key for key in g if key.startswith(f"{tag}_grad__")):
        gradient, stored = parameters[key.split("__")[1]].grad, tensor(g[key])
        largest = float(stored.abs().max())
        close(gradient, stored, dtype, bound * largest, bound * largest)


@BOTH
@pytest.mark.parametrize("tag", ["voc", "voc_membank_empty", "coco", "coco_warmup"])
def test_loss_unit(golden, tag, dtype):
    """Losses without a network: values, and gradients to every input."""
    g = golden("cti/loss_unit")
    leaves = {k.split("_in_")[1]: tensor(v, dtype).requires_grad_() for k, v in g.items() if k.startswith(f"{tag}_in_")}
    tags, coco = tensor(g[f"{tag}_label"], dtype), tag.startswith("coco")
    cls = [losses.classification_loss(leaves[name], tags) for name in ("cls1", "pcls1", "cls2", "pcls2")]
    for value, stored in zip(cls, g[f"{tag}_cls_terms"], strict=True):
        close(value, stored, dtype, 1e-12, 1e-5)
    total = torch.stack(cls).sum()
    if "warmup" not in tag:
        maps, own = leaves["cams1"], leaves["ctk1"][:, 1:]
        memory = memory_of(tags.shape[1], own.shape[-1], "empty" not in tag, dtype)
        memory.update(own, tags)
        infused = memory.infusion(own, tags)
        close(infused, g[f"{tag}_call3_infused_tokens"], dtype, 1e-12, 1e-5)
        assert infused.requires_grad == bool(g[f"{tag}_call3_requires_grad"])
        bg = losses.background_loss(maps, leaves["mtatt1"], leaves["attn1"], tags, detach_foreground=coco)
        intra = losses.intra_loss(maps, leaves["cams_intra"])
        # the stored leaf is the product of R and mt already
        fused = leaves["fcams_as_cross"][:, 1:]
        cross = losses.cross_loss(maps[:, 1:], fused, torch.ones_like(fused))
        weights = (0.1, 0.1, 0.1) if coco else (0.1, 1.0, 1.0)
        for name, weight, value in zip(("bg", "intra", "cross"), weights, (bg, intra, cross), strict=True):
            close(weight * value, g[f"{tag}_{name}_weighted"], dtype, 1e-12, 1e-5)
        total = total + weights[0] * bg + weights[1] * intra + (weights[2] * cross if memory.is_full() else 0)
    close(total, g[f"{tag}_total"], dtype, 1e-12, 1e-5)
    total.backward()
    for name, leaf in leaves.items():
        stored = g[f"{tag}_grad_{name}"]
        if not stored.size:
            assert leaf.grad is None, name
        else:
            close(leaf.grad if leaf.grad is not None else torch.zeros_like(leaf), stored, dtype, 1e-12, 1e-5)


@BOTH
def test_min_max(golden, dtype):
    g = golden("cti/max_norm")
    close(min_max(tensor(g["x"], dtype)), g["y"], dtype, 1e-12, 1e-6)


@BOTH
def test_class_memory(golden, dtype):
    g = golden("cti/memory_bank")
    steps, _, tokens, dim = g["tokens"].shape
    memory = ClassMemory(tokens - 1, dim).to(dtype)
    for step in range(steps):
        own, tags = tensor(g["tokens"][step], dtype)[:, 1:], tensor(g["labels"][step])
        memory.update(own, tags)
        close(memory.infusion(own, tags), g["infused"][step], dtype, 1e-10, 1e-5)
        np.testing.assert_array_equal(memory.filled, g["bank_len"][step])
        assert memory.is_full() == bool(g["cross_in_total"][step])
    close(memory.prototypes(), g["bank_mean_final"], dtype, 1e-10, 1e-5)


@BOTH
def test_map_fusion(golden, dtype):
    g = golden("cti/fusion_unit")
    channels, dim = g["head_weight"].shape[:2]
    grid = g["train_cams"].shape[-2:]
    net = CTIViT(channels, dim, heads=2, grid=grid[0]).double()
    net.head.load_state_dict({"weight": tensor(g["head_weight"]), "bias": tensor(g["head_bias"])})
    net.to(dtype)
    x = torch.cat([tensor(g["x_cls"], dtype), tensor(g["x_patch"], dtype)], dim=1)
    attention = tensor(g["attn_headmean"], dtype)

    def made(rows_from, patches_from):
        rows = attention[rows_from:].sum(dim=0)[:, :channels, channels:].reshape(len(x), channels, *grid)
        return Pass(net.scores(x, grid), rows, attention[patches_from:].sum(dim=0)[:, channels:, channels:], x)

    behind = net.infusion + 1
    compared = compare([made(net.fused_from, behind), made(behind, behind)], g, "train", dtype, 1e-11, 1e-5)
    assert len(compared) == 9
    close(map_kinds(made(0, 0), torch.arange(channels), ("q",))["q"], g["infer_rcams"], dtype, 1e-11, 1e-5)


@BOTH
@pytest.mark.parametrize("name", [n for n in load_golden("cti/pos_interp") if n.startswith("grid_")])
def test_positions(golden, name, dtype):
    g = golden("cti/pos_interp")
    grid = tuple(int(side) for side in name.removeprefix("grid_").split("x"))
    close(resize_positions(tensor(g["pos_embed_pat"], dtype), grid), g[name], dtype, 1e-10, 1e-5)


@BOTH
def test_infer_tiny(golden, dtype):
    """Seeds of an odd-sized image through the task, folded tokens and all."""
    g, forward = golden("cti/infer_tiny"), golden("cti/model_tiny_forward")
    image, tags = tensor(g["x"], dtype), tensor(g["label"], dtype)[0]
    size = (image.shape[-2], image.shape[-1])
    task = CTI(len(tags) + 1, forward["fgtokens_in"].shape[-1], heads=3, grid=6, weights=None).eval()
    ruled(task.net, dtype)
    task.net.fold()
    with torch.no_grad():
        pair = torch.cat([image, image.flip(-1)])
        found = task.net(pair, None, 0, 0)
        everything = torch.arange(len(tags) + 1)
        refined = map_kinds(found, everything, ("q",))["q"]
        for value, name in (
            (refined[:1], "rcams"), (refined[1:], "rcams_flip_input"), (found.rows[:1], "mtatt_12layers"),
            (found.patches[:1], "patch_attn_12layers"), (found.scores.maps[:1], "cams"),
        ):  # fmt: skip
            if dtype == torch.float64 or "12layers" in name:
                close(value, g[name], dtype, 1e-10, 1e-4)
        seeds = task.seeds([pair], tags, size)
    assert seeds["keys"].tolist() == [0, *(int(k.removeprefix("out_class")) + 1 for k in g if k.startswith("out_"))]
    for key, map_ in zip(seeds["keys"].tolist()[1:], seeds["cam"][1:], strict=True):
        close(map_, g[f"out_class{key - 1}"], dtype, 1e-10, 1e-4)


@BOTH
def test_model_deit_s(golden, dtype):
    """A full DeiT-S forward, in the training form and at an odd size in the inference form."""
    g = golden("cti/model_deit_s")
    net = CTIViT(g["train224_cams"].shape[1])
    unused = net.pos_embed_pat.numel() + 2 * net.cls_token.numel() + net.cls_token.numel()
    assert sum(p.numel() for p in net.parameters()) + unused == int(g["nparams"])
    net = ruled(net, dtype).eval()
    image = tensor(g["x"], dtype)
    with torch.no_grad():
        last, after = two_passes(net, image)
        whole = net(image[..., :160, :208], None, 0, 0)
    everything = torch.arange(net.tokens)
    for prefix, found in (("train224", last), ("eval160x208", whole)):
        maps = map_kinds(found, everything, ("r", "mt", "q"))
        for value, name in (
            (found.scores.token_logits, "cls"), (found.scores.patch_logits, "pcls"),
            (maps["r"], "cams"), (maps["mt"], "mtatt"), (maps["q"], "rcams"),
        ):  # fmt: skip
            close(value, g[f"{prefix}_{name}"], dtype, 2e-6, 5e-4)
    close(after.rows, g["train224_mtatt_as"], dtype, 2e-6, 5e-4)


def test_multiscale_merge(golden):
    """Maps of three scales, each with its mirror image, refined and merged."""
    g = golden("cti/multiscale_merge")
    target = tensor(g["target"][0], torch.float32)
    present = target.nonzero().flatten()
    size = g[next(k for k in g if k.startswith("out_class"))].shape
    sums, count = [], sum(k.startswith("map") for k in g)
    for first in range(0, count, 2):
        refined = []
        for number in (first, first + 1):
            maps, patches = (tensor(g[f"{name}{number}"], torch.float32) for name in ("map", "aff_sum"))
            logits = torch.zeros(1, maps.shape[1])
            found = Pass(Scores(logits, logits, maps), torch.ones_like(maps), patches, logits)
            refined.append(map_kinds(found, present, ("q",))["q"])
        pair = torch.cat(refined)
        sums.append(unmirrored_sum(pair, Fitted(torch.zeros(2, 3, *size), None), size))
    for row, index in enumerate(present.tolist()):
        close(merge(sums)[row], g[f"out_class{index}"], torch.float32, 5e-6, 5e-6)


def test_schedule(golden):
    g = golden("cti/schedule")
    rates, task = g["lr_per_epoch"], CTI(weights=None)
    h = task.hparams
    ours = [warmup_cosine(e, len(rates), h["warmup"], h["lr"], h["warmup_lr"], h["min_lr"]) for e in range(len(rates))]
    np.testing.assert_allclose(ours, rates, rtol=0, atol=1e-15)


def test_parameter_groups(golden):
    g = golden("cti/schedule")
    net = CTIViT()
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, spared = decayed_groups(net.named_parameters(), 0.05, exempt=("cls_token",))
    assert {names[id(p)] for p in decayed["params"]} == {str(n) for n in g["decay"]} - UNUSED
    assert {names[id(p)] for p in spared["params"]} == {str(n) for n in g["no_decay"]} - UNUSED
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert isinstance(net.head, nn.Conv2d)
