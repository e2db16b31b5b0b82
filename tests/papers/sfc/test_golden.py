"""SFC against the authors' numbers (golden/sfc). Tolerances are those of the vectors' README: (float64, float32)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frugalseg.nn.backbone import Stages
from frugalseg.ops.cam import labels_from_maps, merge_scales
from frugalseg.ops.confusion import confusion_matrix, iou, mean_iou
from frugalseg.ops.prototypes import argmax_masks, masked_average_pool
from frugalseg.optim import poly_sgd
from frugalseg.papers.sfc import SFC, losses
from frugalseg.papers.sfc.bank import ImageBank
from frugalseg.papers.sfc.model import SFCHeads, SFCNet, affinity
from tests.conftest import GOLDEN
from tests.papers.sfc.rules import apply_rule, bare, rule_tensor

pytestmark = pytest.mark.golden
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def close(actual, expected, dtype, f64, f32, relative_to_max=False):
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    actual = torch.as_tensor(actual).detach().to(torch.float64).reshape(expected.shape)
    bound = f64 if dtype == torch.float64 else f32
    if relative_to_max:
        bound *= float(expected.abs().max())
    error = float((actual - expected).abs().max())
    assert error <= bound, f"largest error {error:.3g} exceeds {bound:.3g}"


def tensor(array, dtype):
    return torch.as_tensor(np.asarray(array)).to(dtype)


def rates(optimiser):
    return torch.tensor([group["lr"] for group in optimiser.param_groups], dtype=torch.float64)


@pytest.fixture
def head(golden):
    """Heads with the stored weights; returns a function of dtype."""
    g = golden("sfc/head_train")

    def build(dtype):
        channels = [g[f"x{i}"].shape[1] for i in (1, 2, 3, 4)]
        side = [g[f"w_side{i}_weight"].shape[0] for i in (1, 2, 3, 4)]
        heads = SFCHeads(g["w_classifier_weight"].shape[0] + 1, channels, side, g["w_f9_weight"].shape[0])
        heads.load_state_dict(
            {k[2:].replace("_weight", ".weight"): tensor(v, dtype) for k, v in g.items() if k[:2] == "w_"}
        )
        return g, heads.to(dtype)

    return build


def stages_of(g, dtype, requires_grad=False):
    maps = [tensor(g[f"x{i}"], dtype).requires_grad_(requires_grad) for i in (1, 2, 3, 4)]
    return Stages(maps[0].detach(), *maps)


def test_class_weights(golden):
    g = golden("sfc/class_weights")
    weights = losses.class_weights(g["counts"], float(g["bank_bonus"]))
    np.testing.assert_allclose(weights, g["weight_f64"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(weights.astype(np.float32), g["weight_ref_f32"], rtol=0, atol=1e-6)
    demand = np.abs(g["counts"][:, None] - g["counts"][None]).sum(0)
    np.testing.assert_array_equal(demand, g["demand"])


@BOTH
def test_head_train_values(head, dtype):
    g, heads = head(dtype)
    stages = stages_of(g, dtype)
    image, mask = tensor(g["img"], dtype), tensor(g["valid_mask_8x8"], dtype)
    maps = heads(image, stages, mask)
    for name, value in (("score", maps.score), ("cam_pre", maps.m0), ("cam_w", maps.mw), ("cam_p", maps.mp)):
        close(value, g[name], dtype, 1e-10, 1e-5)
    similarity, scale = affinity(heads.embed(image, stages.layer4))
    close(similarity * scale, g["aff"], dtype, 1e-10, 1e-5)
    features = heads.hierarchy(stages)
    close(features, g["hie"], dtype, 1e-10, 1e-5)
    seeds = argmax_masks(maps.mw, heads.background_factor) * mask
    close(seeds, g["seed"], dtype, 0, 0)
    close(masked_average_pool(features, seeds), g["proto"], dtype, 1e-10, 1e-5)


@BOTH
def test_head_train_gradients(head, dtype):
    g, heads = head(dtype)
    stages = stages_of(g, dtype, requires_grad=True)
    maps = heads(tensor(g["img"], dtype), stages, tensor(g["valid_mask_8x8"], dtype))
    probes = ((maps.score, "probe_score"), (maps.mw, "probe_cam_w"), (maps.mp, "probe_cam_p"))
    torch.stack([(value * tensor(g[probe], dtype)).sum() for value, probe in probes]).sum().backward()
    close(stages.layer4.grad, g["g_x4"], dtype, 1e-6, 1e-4, relative_to_max=True)
    for name in ("classifier", "f9", "side1", "side2", "side3", "side4"):
        close(getattr(heads, name).weight.grad, g[f"g_{name}"], dtype, 1e-6, 1e-4, relative_to_max=True)
    assert [s.grad for s in stages[1:4]] == [None, None, None]


def test_prototype_branch_leaves_the_backbone_alone(head):
    g, heads = head(torch.float64)
    stages = stages_of(g, torch.float64, requires_grad=True)
    maps = heads(tensor(g["img"], torch.float64), stages, tensor(g["valid_mask_8x8"], torch.float64))
    (gradient,) = torch.autograd.grad(maps.mp.sum(), stages.layer4, allow_unused=True)
    assert gradient is None


@BOTH
def test_head_infer(head, golden, dtype):
    train, heads = head(dtype)
    g = golden("sfc/head_infer")
    image = tensor(train["img"], dtype)[:1]
    pair = torch.cat([image, image.flip(-1)])
    present = tensor(g["label21"], dtype)
    stages = stages_of(g, dtype)
    maps = heads.infer(pair, stages, present)
    for name, value in (("cam_pre", maps.m0), ("cam_w", maps.mw), ("cam_p", maps.mp)):
        close(value, g[name], dtype, 1e-10, 1e-5)
    hierarchy = heads.hierarchy(stages)
    folded = hierarchy[:1] + hierarchy[1:].flip(-1)
    close(folded, g["hie"], dtype, 1e-10, 1e-5)
    seeds = argmax_masks(maps.mw, heads.background_factor) * present.view(1, -1, 1, 1)
    close(seeds, g["seed"], dtype, 0, 0)
    close(masked_average_pool(folded, seeds), g["proto"], dtype, 1e-10, 1e-5)


@BOTH
def test_msdw_loss(golden, dtype):
    g = golden("sfc/msdw_loss")
    leaves = {k: tensor(g[k], dtype).requires_grad_() for k in ("score1", "score2", "cam_w1", "cam_p1_raw", "cam_w2")}
    tags = tensor(g["label"], dtype)
    weights = losses.with_background_weight(g["weights20"]).to(dtype)
    classification = [losses.classification_loss(leaves[k], tags) for k in ("score1", "score2")]
    prototype = losses.PROTOTYPE_WEIGHT * losses.prototype_loss(leaves["cam_w1"], leaves["cam_p1_raw"], weights)
    scale = losses.SCALE_WEIGHT * losses.scale_loss(leaves["cam_w1"], leaves["cam_w2"], tags, weights)
    total = sum(classification) / 2 + prototype + scale
    total.backward()
    for name, value in (
        ("out_loss_cls1", classification[0]),
        ("out_loss_cls2", classification[1]),
        ("out_lossCLS", sum(classification) / 2),
        ("out_lossGSC", prototype),
        ("out_loss_consistency", scale),
        ("out_losses", total),
    ):
        close(value, g[name], dtype, 1e-12, 1e-6)
    for name, leaf in leaves.items():
        close(leaf.grad, g[f"g_{name}"], dtype, 1e-12, 1e-6)


def test_image_bank(golden):
    g = golden("sfc/image_bank")
    steps, batch, classes = g["labels"].shape
    bank = ImageBank(classes)
    for step in range(steps):
        numbers = torch.arange(batch, dtype=torch.float32) + step * batch + 1
        image = numbers.view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
        tags = tensor(g["labels"][step], torch.float32)
        box = numbers.view(-1, 1).expand(-1, 4).long()
        bank.update(image, tags, box)
        drawn_image, drawn_tags, drawn_box = bank.draw(torch.as_tensor(g["picks"][step]))
        seen = torch.cat([image, drawn_image])[:, 0, 0, 0]
        np.testing.assert_array_equal(seen, g["image_ids_in_batch"][step])
        np.testing.assert_array_equal(torch.cat([box, drawn_box])[:, 0], g["image_ids_in_batch"][step])
        np.testing.assert_array_equal(torch.cat([tags, drawn_tags]), g["labels_in_batch"][step])
        np.testing.assert_array_equal(bank.image[:, 0, 0, 0], g["bank_image_id_after"][step])
    np.testing.assert_array_equal(bank.tags, g["bank_labels_final"])


@BOTH
def test_poly_sgd(golden, dtype):
    g = golden("sfc/poly_sgd")
    p = torch.nn.Parameter(tensor(g["p0"], dtype))
    q = torch.nn.Parameter(tensor(g["q0"], dtype))
    optimiser, schedule = poly_sgd(
        [([p], 0.1), ([q], 1.0)], total_steps=5, weight_decay=1e-4, momentum=float(g["momentum"][0])
    )
    for step in range(len(g["p"])):
        close(rates(optimiser), g["lr"][step], dtype, 1e-12, 1e-6)
        optimiser.zero_grad()
        (0.5 * (p - 1).square().sum() + 0.05 * (q + 0.1).square().sum()).backward()
        optimiser.step()
        schedule.step()
        close(p, g["p"][step], dtype, 1e-12, 1e-6)
        close(q, g["q"][step], dtype, 1e-12, 1e-6)


def test_merge_scales(golden):
    g = golden("sfc/merge_scales")
    keys = torch.cat([torch.zeros(1, dtype=torch.int64), tensor(g["label"], torch.float32).nonzero().flatten() + 1])
    np.testing.assert_array_equal(keys, g["keys"])
    for kind in ("cam_w", "cam_p"):
        scales = [tensor(g[f"{kind}_s{i}"], torch.float32) for i in range(4)]
        merged = merge_scales(scales, tuple(int(s) for s in g["size"]), keys)
        close(merged, g[f"saved_{kind}"], torch.float32, 2e-6, 2e-6)


def test_eval_miou(golden):
    g = golden("sfc/eval_miou")
    classes = len(g["iou"])
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for image in range(sum(key.startswith("gt") for key in g)):
        prediction = labels_from_maps(torch.as_tensor(g[f"cam{image}"]), torch.as_tensor(g[f"keys{image}"]))
        confusion += confusion_matrix(prediction, torch.as_tensor(g[f"gt{image}"]), classes)
    np.testing.assert_array_equal(confusion, g["confusion"])
    np.testing.assert_allclose(iou(confusion), g["iou"], rtol=0, atol=1e-12)
    assert abs(mean_iou(confusion) - float(g["miou"])) <= 1e-12


def test_parameter_names_are_torchvisions():
    """Names, shapes and name digests of param_names.txt, and nothing besides."""
    import zlib

    expected = {}
    for line in (GOLDEN / "sfc" / "param_names.txt").read_text().split("\n"):
        if line.strip():
            name, shape, digest = line.split()
            expected[name] = shape
            assert zlib.crc32(name.encode()) == int(digest)
    ours = {bare(n): "x".join(map(str, t.shape)) for n, t in SFCNet().state_dict().items() if "num_batches" not in n}
    assert ours == expected


@BOTH
def test_full_forward(golden, dtype):
    g = golden("sfc/full_forward")
    net = SFCNet()
    apply_rule(net)
    net = net.to(dtype).train()  # frozen normalisation must hold in training mode too
    with torch.no_grad():
        stages = net.backbone(tensor(g["img"], dtype))
        for index, x in enumerate(stages):
            close(x[:, :8, :4, :4], g[f"x{index}_slice"], dtype, 1e-9, 1e-4)
            summary = torch.stack([x.mean(), x.std(), x.abs().max()])
            close(summary, g["stage_mean_std_max"][index], dtype, 1e-9, 1e-4)
        maps = net(tensor(g["img"], dtype), tensor(g["valid_mask_8x8"], dtype))
        for name, value in (("score", maps.score), ("cam_pre", maps.m0), ("cam_w", maps.mw), ("cam_p", maps.mp)):
            close(value, g[name], dtype, 1e-9, 1e-4)
        image = tensor(g["inf_img"], dtype)
        inferred = net.infer(torch.cat([image, image.flip(-1)]), tensor(g["inf_label21"], dtype))
        for name, value in (("cam_pre", inferred.m0), ("cam_w", inferred.mw), ("cam_p", inferred.mp)):
            close(value, g[f"inf_{name}"], dtype, 1e-9, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_two_full_training_steps(golden, dtype):
    """The task's own losses, optimiser and clipping; class weights from the stored VOC counts."""
    g, forward = golden("sfc/full_train_steps"), golden("sfc/full_forward")
    task = SFC(weights=None, bank_draws=0)
    apply_rule(task.net)
    counts = golden("sfc/class_weights")
    weights = losses.class_weights(counts["counts"], float(counts["bank_bonus"]))
    task = task.to(dtype).train()
    task.class_weight = losses.with_background_weight(weights).to(dtype)
    image, tags = tensor(forward["img"], dtype), tensor(forward["label"], dtype)
    box = torch.tensor(
        [[0, 0, 128, 128], [0, 16, 112, 128]]
    )  # README: image 1 is valid in rows 0..111, columns 16..127
    trained = [[p for p in m.parameters() if p.requires_grad] for m in (task.net.backbone, task.net.heads)]
    optimiser, schedule = poly_sgd([(trained[0], 0.1), (trained[1], 1.0)], 100, weight_decay=1e-4, momentum=1e-4)
    parameters = {bare(name): p for name, p in task.net.named_parameters()}
    for step in range(len(g["losses"])):
        close(rates(optimiser), g["lr"][step], dtype, 1e-10, 1e-6)
        optimiser.zero_grad()
        terms = task.losses(image, tags, box)
        terms.total.backward()
        values = torch.stack([t.detach() for t in terms]).double()
        expected = tensor(g["losses"][step], torch.float64)
        if dtype == torch.float64:
            close(values, expected, dtype, 1e-10, 0)
        else:
            assert torch.all((values - expected).abs() <= 2e-3 * expected.abs())
        for name, norm in zip(g["watch"], g["grad_norm_before_clip"][step], strict=True):
            gradient = parameters[str(name)].grad
            if norm == -1:
                assert gradient is None, f"{name} must not get a gradient"
            elif dtype == torch.float64:
                close(gradient.norm(), norm, dtype, 1e-10 * max(1.0, abs(norm)), 0)
        total = torch.nn.utils.clip_grad_norm_([p for group in trained for p in group], 1.0)
        if dtype == torch.float64:
            close(total, g["grad_norm_total"][step], dtype, 1e-10 * max(1.0, float(g["grad_norm_total"][step])), 0)
        optimiser.step()
        schedule.step()
        for index, name in enumerate(g["watch"]):
            p = parameters[str(name)].detach()
            part = p.reshape(-1)[:24].reshape(4, 6) if p.ndim == 1 else p.flatten(1)[:4, :6]
            if dtype == torch.float64:
                close(part, g["param_slices"][index, step], dtype, 1e-10, 0)
    assert rule_tensor("conv1.weight", (64, 3, 7, 7)).shape == parameters["conv1.weight"].shape
    assert F.mse_loss(parameters["conv1.weight"].detach().float(), rule_tensor("conv1.weight", (64, 3, 7, 7))) == 0
