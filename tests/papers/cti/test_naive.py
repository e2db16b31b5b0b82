"""The naive CTI against the authors' numbers (golden/cti), at the tolerances of their README."""

import numpy as np
import pytest
import torch

from tests.papers.cti import naive
from tests.papers.cti.naive import NaiveCTI, NaiveMemory, Pass, train_step
from tests.papers.cti.rules import apply_rule, rule_rows

pytestmark = pytest.mark.golden

STEP_TAGS = {
    "voc_full": {},
    "voc_membank_empty": {},
    "coco_full": {"weights": (0.1, 0.1, 0.1), "detach_foreground": True},
    "coco_warmup": {"weights": (0.1, 0.1, 0.1), "detach_foreground": True, "extra": False},
}
"""Arguments of `train_step` by the README's tags; `loss_unit` leaves out `_full`."""


def tensor(array, dtype=torch.float64):
    return torch.as_tensor(np.asarray(array)).to(dtype)


def close(actual, expected, atol, rtol=0.0):
    actual = torch.as_tensor(actual).detach().numpy()
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def tiny(classes=20, dtype=torch.float64):
    net = NaiveCTI(classes + 1, dim=48, heads=3, grid=6).to(dtype)
    apply_rule(net)
    return net


def memory_of(classes, dim, empty, dtype=torch.float64):
    memory = NaiveMemory(classes)
    if not empty:
        memory.lists = [list(rule_rows(c, dim).to(dtype)) for c in range(classes)]
    return memory


def compare(got, g, prefix, atol):
    """Compare every array that the file holds under `prefix`; names are those of the README's first row."""
    made = {
        "cls": got.y,
        "pcls": got.p,
        "cams": got.r,
        "mtatt": got.mt_last,
        "mtatt_as": got.mt_after,
        "fcams": got.r * got.mt_last,
        "fcams_as": got.r * got.mt_after,
        "attn": got.pa,
        "rcams": got.refined,
        "ctk": torch.stack(got.tokens_after_block),
        "attn_headmean_l0_l4_l11": got.attn_headmean[[0, 4, 11]],
        **{f"ctk{block}": tokens for block, tokens in enumerate(got.tokens_after_block)},
    }
    stored = {key.removeprefix(f"{prefix}_") for key in g if key.startswith(f"{prefix}_")}
    assert stored
    for name in stored:
        close(made[name], g[f"{prefix}_{name}"], atol)


def test_forward(golden):
    g = golden("cti/model_tiny_forward")
    net = tiny().requires_grad_(False)
    x1, x2 = tensor(g["x1"]), tensor(g["x2"])
    second = net(x2)
    compare(net(x1), g, "plain1", 1e-9)
    compare(second, g, "plain2", 1e-9)
    compare(net(x1, infused=second.tokens_after_block[3]), g, "intra", 1e-9)
    compare(net(x1, infused=tensor(g["fgtokens_in"])), g, "fgonly", 1e-9)


def test_fusion(golden):
    g = golden("cti/fusion_unit")
    net = NaiveCTI(21, dim=g["x_cls"].shape[2], heads=2, grid=6).double().requires_grad_(False)
    net.head.load_state_dict({"weight": tensor(g["head_weight"]), "bias": tensor(g["head_bias"])})
    attn = tensor(g["attn_headmean"])
    got = net.read_out(tensor(g["x_patch"]), (6, 6), [tensor(g["x_cls"])], attn)
    compare(got, g, "train", 1e-11)
    everything = got.attn_headmean.sum(dim=0)
    fused = got.r * naive.class_to_patch(everything, 21, (6, 6))
    close(naive.refine(everything[:, 21:, 21:], fused), g["infer_rcams"], 1e-11)


def test_max_norm(golden):
    g = golden("cti/max_norm")
    close(naive.max_norm(tensor(g["x"])), g["y"], 1e-12)


@pytest.mark.parametrize("grid", [(14, 14), (23, 31), (28, 28), (7, 9), (20, 14)])
def test_positions(golden, grid):
    g = golden("cti/pos_interp")
    resized = naive.resize_positions(tensor(g["pos_embed_pat"]), (14, 14), grid)
    close(resized, g[f"grid_{grid[0]}x{grid[1]}"], 1e-10)


def test_memory(golden):
    g = golden("cti/memory_bank")
    memory = NaiveMemory(g["labels"].shape[2])
    for step in range(len(g["tokens"])):
        tokens, tags = tensor(g["tokens"][step]), tensor(g["labels"][step])
        memory.add(tokens, tags)
        close(memory.infused(tokens, tags), g["infused"][step], 1e-10)
        assert [len(entries) for entries in memory.lists] == g["bank_len"][step].tolist()
        assert memory.full == bool(g["cross_in_total"][step])
    means = torch.stack([memory.prototype(c, tokens[0, 0]) for c in range(len(memory.lists))])
    close(means, g["bank_mean_final"], 1e-10)


class Script:
    """A network that returns given passes in the order of the calls, and notes what it is to infuse."""

    infusion = 3

    def __init__(self, passes):
        self.passes, self.infused = list(passes), []

    def __call__(self, image, infused=None):
        self.infused.append(infused)
        return self.passes.pop(0)


def scripted(leaf):
    """The four passes of loss_unit. Fields a pass has no part for are NaN: using one would spoil the total."""
    nan = torch.full_like(leaf["cams1"], torch.nan).detach()
    empty = Pass(nan, nan, nan, nan, nan, nan, [nan] * 12, nan, nan)

    def tokens(ctk):
        return [ctk if block == 3 else torch.full_like(ctk, torch.nan).detach() for block in range(12)]

    first = empty._replace(y=leaf["cls1"], p=leaf["pcls1"], r=leaf["cams1"], mt_last=leaf["mtatt1"], pa=leaf["attn1"])
    return [
        first._replace(tokens_after_block=tokens(leaf["ctk1"])),
        empty._replace(y=leaf["cls2"], p=leaf["pcls2"], tokens_after_block=tokens(leaf["ctk2"])),
        empty._replace(r=leaf["cams_intra"]),
        # the leaf is already the product of maps and attention
        empty._replace(r=leaf["fcams_as_cross"], mt_after=torch.ones_like(nan)),
    ]


@pytest.mark.parametrize("step", STEP_TAGS)
def test_losses(golden, step):
    tag = step.removesuffix("_full")
    g = golden("cti/loss_unit")
    leaf = {k.split("_in_")[1]: tensor(v).requires_grad_() for k, v in g.items() if k.startswith(f"{tag}_in_")}
    net = Script(scripted(leaf))
    tags = tensor(g[f"{tag}_label"])
    memory = memory_of(tags.shape[1], leaf["ctk1"].shape[2], empty=tag.endswith("empty"))
    terms = train_step(net, memory, None, None, tags, **STEP_TAGS[step])
    close(terms["total"], g[f"{tag}_total"], 1e-12)
    close(terms["cls"], g[f"{tag}_cls_terms"], 1e-12)
    for name in ("bg", "intra", "cross"):
        close(terms[name], g[f"{tag}_{name}_weighted"], 1e-12)
    if tag != "coco_warmup":
        for call, infused in ((2, net.infused[2]), (3, net.infused[3])):
            close(infused, g[f"{tag}_call{call}_infused_tokens"], 1e-12)
            assert infused.requires_grad == bool(g[f"{tag}_call{call}_requires_grad"])
    terms["total"].backward()
    for name, value in leaf.items():
        expected = g[f"{tag}_grad_{name}"]
        if expected.size:
            close(value.grad, expected, 1e-12)
        else:
            assert value.grad is None, name


@pytest.mark.parametrize(
    ("dtype", "atol", "rtol"), [(torch.float64, 1e-10, 1e-9), (torch.float32, 5e-5, 1e-3)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("tag", STEP_TAGS)
def test_train_step(golden, tag, dtype, atol, rtol):
    images, g = golden("cti/model_tiny_forward"), golden("cti/train_step_tiny")
    tags = tensor(g["label_coco" if tag.startswith("coco") else "label_voc"], dtype)
    net = tiny(tags.shape[1], dtype)
    memory = memory_of(tags.shape[1], 48, tag.endswith("empty"), dtype)
    terms = train_step(net, memory, tensor(images["x1"], dtype), tensor(images["x2"], dtype), tags, **STEP_TAGS[tag])
    close(terms["total"], g[f"{tag}_total"], atol)
    close(terms["cls"], g[f"{tag}_cls_terms"], atol)
    for name in ("bg", "intra", "cross"):
        close(terms[name], g[f"{tag}_{name}_weighted"], atol)
    assert terms["cross_in_total"] == (tag in {"voc_full", "coco_full"})
    terms["total"].backward()
    compare_gradients(net, g, tag, rtol)
    assert [len(entries) for entries in memory.lists] == g[f"{tag}_membank_len"].tolist()
    for key in (key for key in g if key.startswith(f"{tag}_membank_last_c")):
        close(memory.lists[int(key.rsplit("_c", 1)[1])][-1], g[key], atol)


def compare_gradients(net, g, tag, rtol):
    """All norms relative to themselves, whole gradients relative to their largest entry."""
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    norms = dict(zip(g[f"{tag}_param_names"].tolist(), g[f"{tag}_grad_l2"], strict=True))
    assert grads.keys() <= norms.keys()
    for name, norm in norms.items():
        if norm < 0:
            assert grads.get(name) is None, name
        else:
            close(grads[name].norm(), norm, 0, rtol)
    whole = [key for key in g if key.startswith(f"{tag}_grad__")]
    assert whole
    for key in whole:
        close(grads[key.split("_grad__")[1]], g[key], rtol * np.abs(g[key]).max())


def test_seed(golden):
    g = golden("cti/infer_tiny")
    net = tiny().requires_grad_(False)
    x, tags = tensor(g["x"]), tensor(g["label"])
    close(naive.refined_maps(net, x), g["rcams"], 1e-10)
    close(naive.refined_maps(net, x.flip(-1)), g["rcams_flip_input"], 1e-10)
    got = net(x)
    attn = got.attn_headmean.sum(dim=0)
    close(got.r, g["cams"], 1e-10)
    close(naive.class_to_patch(attn, 21, (4, 6)), g["mtatt_12layers"], 1e-10)
    close(attn[:, 21:, 21:], g["patch_attn_12layers"], 1e-10)
    maps = naive.seed(net, x, tags)
    assert {f"out_class{c}" for c in maps} == {key for key in g if key.startswith("out_class")}
    for c, one in maps.items():
        close(one, g[f"out_class{c}"], 1e-10)


def test_deit_s(golden):
    g = golden("cti/model_deit_s")
    net = NaiveCTI(21, dim=384, heads=6).double().requires_grad_(False)
    apply_rule(net)
    # the reference keeps DeiT's position table and final norm, which nothing uses
    unused = (196 + 1) * 384 + 2 * 384
    assert sum(parameter.numel() for parameter in net.parameters()) + unused == g["nparams"]
    x = tensor(g["x"])
    compare(net(x), g, "train224", 2e-6)
    corner = x[..., :160, :208]
    got = net(corner)
    mt = naive.class_to_patch(got.attn_headmean.sum(dim=0), 21, (10, 13))
    for name, value in (("cls", got.y), ("pcls", got.p), ("cams", got.r), ("mtatt", mt)):
        close(value, g[f"eval160x208_{name}"], 2e-6)
    close(naive.refined_maps(net, corner), g["eval160x208_rcams"], 2e-6)
