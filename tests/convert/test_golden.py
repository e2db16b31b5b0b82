"""Files as the authors save them, filled by the golden vectors' rules, through the verb and into a forward pass.

Expected values and tolerances are those of golden/sfc and golden/cti.
"""

import numpy as np
import pytest
import torch

from frugalseg.cli import main
from frugalseg.papers.cti import CTI
from frugalseg.papers.cti.seeds import map_kinds
from frugalseg.papers.sfc import SFC
from frugalseg.stages.irn import IRN
from tests.convert.layouts import AuthorsCTI, fill_cti

pytestmark = pytest.mark.golden


def tensor(array, dtype=torch.float64):
    return torch.as_tensor(np.asarray(array)).to(dtype)


def close(actual, expected, bound):
    expected = tensor(expected)
    error = float((actual.detach().double().reshape(expected.shape) - expected).abs().max())
    assert error <= bound, f"largest error {error:.3g} exceeds {bound:.3g}"


def in_double(task, path):
    """A task in the vectors' precision; `load_from_checkpoint` would round to float32."""
    content = torch.load(path, weights_only=True)
    net = task(**{key: value for key, value in content["hyper_parameters"].items() if key != "_class_path"}).double()
    net.load_state_dict(content["state_dict"])
    return net.net.eval()


@torch.no_grad()
def test_sfc_full_forward(golden, converted):
    g = golden("sfc/full_forward")
    net = SFC.load_from_checkpoint(converted("sfc").ours, weights_only=True).net.double().eval()
    maps = net(tensor(g["img"]), tensor(g["valid_mask_8x8"]))
    for name, value in (("score", maps.score), ("cam_pre", maps.m0), ("cam_w", maps.mw), ("cam_p", maps.mp)):
        close(value, g[name], 1e-9)
    image = tensor(g["inf_img"])
    found = net.infer(torch.cat([image, image.flip(-1)]), tensor(g["inf_label21"]))
    for name, value in (("cam_pre", found.m0), ("cam_w", found.mw), ("cam_p", found.mp)):
        close(value, g[f"inf_{name}"], 1e-9)


@torch.no_grad()
def test_irn_forward(golden, converted):
    g = golden("sfc/irn_forward")
    net = in_double(IRN, converted("irn").ours)
    image, side = tensor(g["img"]), int(g["crop"])
    maps = net(net.pad(image, side))
    close(maps.edge, g["edge_logit_unflipped"], 1e-9)
    close(maps.displacement, g["disp_unflipped"], 1e-9)
    found = net.infer(torch.cat([image, image.flip(-1)]), side)
    # what is kept of an image is float32
    close(found.edge, g["edge"], 1e-9)
    close(found.displacement, g["disp"], 1e-9)


def passes(net, image):
    """The pass with mt over the last blocks, and the one with mt over those behind the infusion."""
    return [net(image, None, rows, net.infusion + 1) for rows in (net.fused_from, net.infusion + 1)]


@torch.no_grad()
def test_cti_tiny_forward(golden, tmp_path):
    g = golden("cti/model_tiny_forward")
    dim, classes, side = g["fgtokens_in"].shape[-1], g["fgtokens_in"].shape[1], g["x1"].shape[-1]
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.ckpt"
    torch.save({"model": fill_cti(AuthorsCTI(classes, dim, 3, side // 16)).state_dict()}, theirs)
    assert main(["convert", str(theirs), "--out", str(ours), "--heads", "3"]) == 0
    net = in_double(CTI, ours)
    last, after = passes(net, tensor(g["x1"]))
    maps = map_kinds(last, torch.arange(net.tokens), ("r", "mt", "f", "q"))
    found = {
        "cls": last.scores.token_logits, "pcls": last.scores.patch_logits, "cams": maps["r"], "mtatt": maps["mt"],
        "fcams": maps["f"], "rcams": maps["q"], "attn": last.patches, "mtatt_as": after.rows,
    }  # fmt: skip
    for name, value in found.items():
        close(value, g[f"plain1_{name}"], 1e-9)


@torch.no_grad()
def test_cti_deit_s_forward(golden, converted):
    """As a user loads it, in float32."""
    g = golden("cti/model_deit_s")
    theirs = converted("cti").content["model"]
    assert sum(tensor.numel() for tensor in theirs.values()) == int(g["nparams"])
    net = CTI.load_from_checkpoint(converted("cti").ours, weights_only=True).net.eval()
    image = tensor(g["x"], torch.float32)
    last, after = passes(net, image)
    whole = net(image[..., :160, :208], None, 0, 0)
    for prefix, found in (("train224", last), ("eval160x208", whole)):
        maps = map_kinds(found, torch.arange(net.tokens), ("r", "mt", "q"))
        for value, name in (
            (found.scores.token_logits, "cls"), (found.scores.patch_logits, "pcls"),
            (maps["r"], "cams"), (maps["mt"], "mtatt"), (maps["q"], "rcams"),
        ):  # fmt: skip
            close(value, g[f"{prefix}_{name}"], 5e-4)
    close(after.rows, g["train224_mtatt_as"], 5e-4)
