"""IRN against the authors' numbers (golden/sfc). Tolerances are those of the vectors' README: (float64, float32)."""

import numpy as np
import pytest
import torch

from frugalseg.stages.irn.losses import irn_loss
from frugalseg.stages.irn.model import IRNet
from frugalseg.stages.irn.pairs import count_kinds, pair_kinds
from tests.conftest import GOLDEN
from tests.papers.sfc.rules import rule_tensor

pytestmark = pytest.mark.golden
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def close(actual, expected, dtype, f64, f32):
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    actual = torch.as_tensor(actual).detach().to(torch.float64).reshape(expected.shape)
    bound = f64 if dtype == torch.float64 else f32
    error = float((actual - expected).abs().max())
    assert error <= bound, f"largest error {error:.3g} exceeds {bound:.3g}"


def tensor(array, dtype):
    return torch.as_tensor(np.asarray(array)).to(dtype)


def radius_of(g):
    """The radius is not in the file; the number of pairs is."""
    label = tensor(g["label"], torch.uint8)
    (radius,) = (r for r in range(2, 9) if count_kinds(pair_kinds(label, r)).tolist() == [int(g[n]) for n in COUNTS])
    return radius


COUNTS = ("n_bg", "n_fg", "n_neg")
TERMS = {
    "background": "bg_pos_aff_loss",
    "foreground": "fg_pos_aff_loss",
    "across": "neg_aff_loss",
    "displacement_foreground": "dp_fg_loss",
    "displacement_background": "dp_bg_loss",
    "total": "total_loss",
}


@BOTH
@pytest.mark.parametrize("at_once", [None, 2])
def test_losses_and_gradients(golden, dtype, at_once):
    g = golden("sfc/irn_loss")
    edge, displacement = (tensor(g[name], dtype).requires_grad_() for name in ("edge_logit", "disp"))
    radius = radius_of(g)
    kinds = pair_kinds(tensor(g["label"], torch.uint8), radius)
    terms = irn_loss(edge[:, 0], kinds, displacement, radius, at_once=at_once)
    for ours, theirs in TERMS.items():
        close(getattr(terms, ours), g[theirs], dtype, 1e-10, 1e-4)
    close((terms.background + terms.foreground) / 2, g["pos_aff_loss"], dtype, 1e-10, 1e-4)
    terms.total.backward()
    close(edge.grad, g["g_edge"], dtype, 1e-10, 1e-4)
    close(displacement.grad, g["g_disp"], dtype, 1e-10, 1e-4)


def test_edges_do_not_depend_on_displacements(golden):
    g = golden("sfc/irn_loss")
    radius = radius_of(g)
    kinds = pair_kinds(tensor(g["label"], torch.uint8), radius)
    edge = tensor(g["edge_logit"], torch.float64)[:, 0].requires_grad_()
    terms = irn_loss(edge, kinds, None, radius)
    close(terms.across, g["neg_aff_loss"], torch.float64, 1e-10, 0)
    assert terms.displacement_foreground is None and terms.displacement_background is None
    terms.total.backward()
    close(edge.grad, g["g_edge"][:, 0], torch.float64, 1e-10, 0)


def bare(name):
    """The name in the reference: heads have no prefix, the backbone has torchvision's names."""
    return name.split(".", 1)[1]


def rule_net(dtype, mean_shift):
    net = IRNet(displacement=True).to(dtype).eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("mean_shift"):
                value.copy_(tensor(mean_shift, dtype))
            elif not name.endswith("num_batches_tracked"):
                value.copy_(rule_tensor(bare(name), tuple(value.shape)))
    return net


def test_parameter_names_and_shapes():
    net = IRNet(displacement=True)
    shapes = {bare(n): "x".join(map(str, p.shape)) for part in ("edge", "displacement") for n, p in
              getattr(net, part).named_parameters(prefix=part)}  # fmt: skip
    lines = (GOLDEN / "sfc" / "param_names_irn_heads.txt").read_text().split("\n")
    assert shapes == dict(line.split()[:2] for line in lines if line)


@BOTH
@torch.no_grad()
def test_forward_and_inference(golden, dtype):
    g = golden("sfc/irn_forward")
    net = rule_net(dtype, g["mean_shift"])
    image, side = tensor(g["img"], dtype), int(g["crop"])
    maps = net(net.pad(image, side))
    close(maps.edge, g["edge_logit_unflipped"], dtype, 1e-9, 1e-4)
    close(maps.displacement, g["disp_unflipped"], dtype, 1e-9, 1e-4)
    found = net.infer(torch.cat([image, image.flip(-1)]), side)
    close(found.edge, g["edge"], dtype, 1e-9, 1e-4)
    close(found.displacement, g["disp"], dtype, 1e-9, 1e-4)
    assert found.edge.shape == g["edge"].shape[1:]
