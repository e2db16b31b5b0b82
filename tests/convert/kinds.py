"""One released file of every kind, built here: small where the net's size can be told from the file."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from frugalseg.nn.resnet38d import ResNet38
from frugalseg.stages.psa.model import AffinityNet
from tests.conftest import load_golden
from tests.convert.layouts import AuthorsCTI, AuthorsIRN, AuthorsSFC, fill_cti, fill_randomly, fill_sfc


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    `build` makes its content; `net` the authors' net that must load what comes back strictly, None where that is the
    state dict's own net; `ending` and `words` are of the verb; `source` is what it must be taken for.
    """

    source: str
    build: Callable[[], Any]
    net: Callable[[], nn.Module] | None = None
    ending: str = ".safetensors"
    words: tuple[str, ...] = ()


def vit(classes=0):
    return timm.create_model(
        "vit_small_patch16_224", num_classes=classes, embed_dim=64, depth=3, num_heads=2, img_size=64
    )


class Projected(nn.Module):
    """DINO's student and teacher: a backbone, and a head whose last layer keeps its norm apart."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = vit(), nn.Module()
        self.head.mlp = nn.Sequential(nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 8))
        self.head.last_layer = nn.Module()
        self.head.last_layer.weight_g = nn.Parameter(torch.ones(16, 1))
        self.head.last_layer.weight_v = nn.Parameter(torch.zeros(16, 8))


def released_cti():
    """DeiT-S as a training script leaves it, with its command line and the prefixes of DataParallel."""
    state = fill_cti(AuthorsCTI(), torch.float32).state_dict()
    named = {f"module.{name}": tensor for name, tensor in state.items()}
    return {"model": named, "args": argparse.Namespace(lr=5e-4, output_dir="x"), "epoch": 59}


def released_irn():
    """With the vectors' mean shift, in their precision."""
    net = fill_sfc(AuthorsIRN())
    net.mean_shift.double().running_mean.copy_(torch.as_tensor(load_golden("sfc/irn_forward")["mean_shift"]))
    return net.state_dict()


def whole_dino():
    """As its training script saves it: the student comes out of DDP, the teacher does not."""
    student, teacher = (fill_randomly(Projected(), seed).state_dict() for seed in (1, 2))
    return {
        "student": {f"module.{name}": tensor for name, tensor in student.items()},
        "teacher": teacher,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 16)},
    }


def classified38():
    """PSA's classifier on ResNet-38: no counters, since the conversion from MXNet made none."""
    state = fill_randomly(ResNet38(width=0.125)).state_dict()
    plain = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    return {**plain, "fc8.weight": torch.rand(20, 512, 1, 1)}


def affinity38():
    """PSA's AffinityNet, whose backbone and head stand side by side; without counters, as its backbone came."""
    net = fill_randomly(AffinityNet(backbone_options={"width": 0.125}, embedding=(8, 12, 16)))
    named = {n.removeprefix("backbone.").removeprefix("head."): tensor for n, tensor in net.state_dict().items()}
    return {name: tensor for name, tensor in named.items() if not name.endswith("num_batches_tracked")}


KINDS = {
    "sfc": Kind("sfc", lambda: fill_sfc(AuthorsSFC()).state_dict(), AuthorsSFC, ".ckpt"),
    "cti": Kind("cti", released_cti, AuthorsCTI, ".ckpt"),
    "cti-narrow": Kind(
        "cti",
        lambda: {"model": {f"module.{n}": t for n, t in fill_randomly(narrow_cti()).state_dict().items()}},
        lambda: narrow_cti(),
        ".ckpt",
        ("--heads", "3"),
    ),
    "irn": Kind("irn", released_irn, AuthorsIRN, ".ckpt"),
    "torchvision": Kind("torchvision", lambda: fill_randomly(torchvision.models.resnet18()).state_dict(), torchvision.models.resnet18),
    "deit": Kind("deit", lambda: {"model": fill_randomly(vit(10)).state_dict()}, lambda: vit(10)),
    "dino": Kind("dino", lambda: fill_randomly(vit()).state_dict(), vit),
    "dino-whole": Kind("dino", whole_dino, Projected),
    "dino-student": Kind("dino", whole_dino, Projected, words=("--part", "student")),
    "resnet38": Kind("resnet38", classified38),
    "psa": Kind("resnet38", affinity38, ending=".ckpt"),
}  # fmt: skip


def narrow_cti():
    return AuthorsCTI(5, 48, 3, 4, 5)


def inner(content, part="teacher"):
    """The state dict in a file, and the keys that lead to it."""
    for key in ("model", part):
        if key in content:
            return content[key], (key,)
    return content, ()
