"""Losses, centres and schedules against golden/ssl, values and gradients, in float64 and float32."""

import numpy as np
import pytest
import torch

from frugalseg.optim import cosine_schedule, linear_warmup
from frugalseg.papers.mevt import dense_losses, global_loss

pytestmark = pytest.mark.golden
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def close(actual, expected, dtype, f64=1e-9):
    """By the README's tolerance; in float32 a small number that is a sum of larger ones is allowed their rounding."""
    expected = torch.as_tensor(np.asarray(expected)).double()
    actual = torch.as_tensor(actual).detach().double().reshape(expected.shape)
    rounding = 1e-6 * expected.abs().max()
    bound = f64 + f64 * expected.abs() if dtype == torch.float64 else 2e-5 * expected.abs() + rounding
    assert bool(((actual - expected).abs() <= bound).all()), (
        f"largest error {float((actual - expected).abs().max()):.3g}"
    )


def tensor(array, dtype, learns=False):
    return torch.as_tensor(np.asarray(array)).to(dtype).requires_grad_(learns)


def split(rows, batch, tokens):
    """View-major rows (views, then images, then cells) as one (B, T, .) tensor per view."""
    parts = torch.split(rows, [batch * t for t in tokens])
    return [part.reshape(batch, t, -1) for part, t in zip(parts, tokens, strict=True)]


@BOTH
def test_dino(golden, dtype):
    g = golden("ssl/dino_ce")
    views, batch = int(g["n_crops"]), int(g["batch"])
    calls = sorted(int(key.removeprefix("epoch_")) for key in g if key.startswith("epoch_"))
    assert calls
    centre = tensor(g["center_before_0"], dtype)
    for i in calls:
        close(centre, g[f"center_before_{i}"], dtype)
        rows = tensor(g[f"student_{i}"], dtype, learns=True)
        student = rows.reshape(views, batch, -1)
        teacher = tensor(g[f"teacher_{i}"], dtype).reshape(-1, batch, rows.shape[1])
        temperature = float(g["teacher_temp_schedule"][g[f"epoch_{i}"]])
        loss = global_loss.dino_loss(student, teacher, centre, temperature, float(g["student_temp"]))
        assert loss.dtype == dtype
        loss.backward()
        close(loss, g[f"loss_{i}"], dtype)
        close(rows.grad, g[f"grad_student_{i}"], dtype)
        centre = global_loss.update_centre(centre, teacher, float(g["center_momentum"]))
        close(centre, g[f"center_after_{i}"], dtype)


def test_teacher_temperature(golden):
    """Both ends included, then constant; the length of the rise is that of the stored schedule."""
    stored = golden("ssl/dino_ce")["teacher_temp_schedule"]
    length = int(stored.argmax()) + 1
    found = [linear_warmup(epoch, length, stored[0], stored[-1]) for epoch in range(len(stored))]
    np.testing.assert_allclose(found, stored, rtol=0, atol=1e-9)


def test_schedules(golden):
    g = golden("ssl/schedules")
    names = [key.removesuffix("_args") for key in g if key.endswith("_args")]
    assert names
    for name in names:
        base, final, epochs, length, warmup = g[f"{name}_args"].tolist()
        total = int(epochs * length)
        assert total == len(g[name])
        found = [cosine_schedule(step, total, base, final, int(warmup * length)) for step in range(total)]
        np.testing.assert_allclose(found, g[name], rtol=1e-9, atol=1e-9)


@BOTH
def test_esvit(golden, dtype):
    g = golden("ssl/esvit_region")
    batch, leading = int(g["batch"]), len(g["teacher_cls"]) // int(g["batch"])
    tokens = [int(g["tokens_global"])] * leading + [int(g["tokens_local"])] * (int(g["n_crops"]) - leading)
    images, cells = (tensor(g[f"student_{part}"], dtype, learns=True) for part in ("cls", "region"))
    centre, grid_centre = tensor(g["center"], dtype), tensor(g["center_grid"], dtype)
    temperatures = float(g["teacher_temp"]), float(g["student_temp"])
    teacher_images, teacher_cells = (tensor(g[f"teacher_{part}"], dtype) for part in ("cls", "region"))
    whole = global_loss.dino_loss(
        images.reshape(len(tokens), batch, -1), teacher_images.reshape(leading, batch, -1), centre, *temperatures
    )
    region = dense_losses.region_loss(
        split(cells, batch, tokens),
        split(teacher_cells, batch, tokens[:leading]),
        split(tensor(g["student_feat"], dtype), batch, tokens),
        split(tensor(g["teacher_feat"], dtype), batch, tokens[:leading]),
        grid_centre,
        *temperatures,
    )
    loss = 0.5 * whole + 0.5 * region
    loss.backward()
    close(loss, g["loss"], dtype)
    close(images.grad, g["grad_cls"], dtype)
    close(cells.grad, g["grad_region"], dtype)
    close(global_loss.update_centre(centre, teacher_images), g["center_after"], dtype)
    close(global_loss.update_centre(grid_centre, teacher_cells), g["center_grid_after"], dtype)


@BOTH
def test_ibot(golden, dtype):
    g = golden("ssl/ibot")
    views, batch = g["mask"].shape[:2]
    images, cells = (tensor(g[f"student_{part}"], dtype, learns=True) for part in ("cls_global", "patch"))
    every = torch.cat([images, tensor(g["student_cls_local"], dtype)])
    teacher, teacher_cells = tensor(g["teacher_cls"], dtype), tensor(g["teacher_patch"], dtype)
    centre, cell_centre = tensor(g["center"], dtype), tensor(g["center_patch"], dtype)
    cold, warm = float(g["student_temp"]), float(g["teacher_temp"])
    whole = global_loss.dino_loss(
        every.reshape(-1, batch, every.shape[1]), teacher.reshape(views, batch, -1), centre, warm, cold
    )
    grid = (views, batch, *cells.shape[1:])
    mask = torch.from_numpy(g["mask"]).flatten(start_dim=2)
    assert not mask.any(dim=-1).all(), "the case of an image without masked cells is missing"
    masked = global_loss.masked_cell_loss(
        cells.reshape(grid), teacher_cells.reshape(grid), mask, cell_centre, float(g["teacher_temp_patch"]), cold
    )
    (whole + masked).backward()
    for value, name in ((whole, "loss_cls"), (masked, "loss_patch"), (whole + masked, "loss")):
        close(value, g[name], dtype)
    close(images.grad, g["grad_cls"], dtype)
    close(cells.grad, g["grad_patch"], dtype)
    close(global_loss.update_centre(centre, teacher), g["center_after"], dtype)
    close(global_loss.update_centre(cell_centre, teacher_cells), g["center_patch_after"], dtype)


@BOTH
def test_densecl(golden, dtype):
    g = golden("ssl/densecl")
    backbone = [tensor(g[f"backbone_{side}"], dtype).flatten(2).transpose(1, 2) for side in "qk"]
    match = dense_losses.closest(*backbone)
    np.testing.assert_array_equal(match, g["match_index"])
    image, cells = (tensor(g[f"{part}_q"], dtype, learns=True) for part in ("global", "grid"))
    queues = [tensor(g[f"queue_{part}"], dtype) for part in ("global", "dense")]
    tau, lam = float(g["tau"]), float(g["lam"])
    whole = (1 - lam) * dense_losses.queue_contrast(image, tensor(g["global_k"], dtype), queues[0], tau)
    keys = tensor(g["grid_k"], dtype).transpose(1, 2)
    dense = lam * dense_losses.dense_contrast(cells.transpose(1, 2), keys, match, queues[1], tau)
    (whole + dense).backward()
    close(whole, g["loss_global_weighted"], dtype)
    close(dense, g["loss_dense_weighted"], dtype)
    close(whole + dense, g["loss_total"], dtype)
    close(image.grad, g["grad_global_q"], dtype)
    close(cells.grad, g["grad_grid_q"], dtype)


@BOTH
def test_pixpro(golden, dtype):
    g = golden("ssl/pixpro")
    x = tensor(g["proj_q"], dtype, learns=True)
    assert not g["clamp"], "propagation clamps the cosines at 0"
    values = torch.einsum("oc,nchw->nohw", tensor(g["value_W"], dtype), x)
    values = values + tensor(g["value_b"], dtype)[:, None, None]
    spread = dense_losses.propagate(x, values, float(g["power"]))
    close(spread, g["prop"], dtype)
    boxes = [tensor(g[f"coord_{side}"], dtype) for side in "qk"]
    distance = dense_losses.cell_distance(*boxes, x.shape[-2:])
    close(distance, g["distance"], dtype)
    positive = distance < float(g["pos_ratio"])
    np.testing.assert_array_equal(positive, g["pos_mask"])
    assert not positive.any(dim=(1, 2)).all(), "the case of an image without positives is missing"
    loss = dense_losses.pixel_consistency(spread, tensor(g["target_k"], dtype), positive)
    loss.backward()
    close(loss, g["loss"], dtype, f64=1e-7)
    close(x.grad, g["grad_proj_q"], dtype, f64=1e-7)
