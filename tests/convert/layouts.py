"""Nets that register their tensors as the authors' nets do, and files as their scripts save them.

Names are those of golden/sfc/param_names*.txt and golden/cti/README.md; the lists and sequences around them are the
assumptions that `frugalseg.convert` states. Nothing here is of the package: a wrong name there shows here.
"""

import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tests.papers.cti.rules import rule_tensor as cti_rule
from tests.papers.sfc.rules import rule_tensor as sfc_rule


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def resnet50():
    net = torchvision.models.resnet50()
    del net.fc, net.avgpool
    return net


def stem(net):
    return net.conv1, net.bn1, net.relu, net.maxpool


class AuthorsSFC(nn.Module):
    def __init__(self, classes=20, merged=False):
        super().__init__()
        self.resnet50 = net = resnet50()
        stages = (
            [nn.Sequential(*stem(net), net.layer1)]
            if merged
            else [nn.Sequential(*stem(net)), nn.Sequential(net.layer1)]
        )
        stages += [nn.Sequential(layer) for layer in (net.layer2, net.layer3, net.layer4)]
        for number, stage in enumerate(stages, start=int(merged)):
            setattr(self, f"stage{number}", stage)
        self.side1, self.side2, self.side3, self.side4 = (
            conv(256, 128),
            conv(512, 128),
            conv(1024, 256),
            conv(2048, 256),
        )
        self.classifier, self.f9 = conv(2048, classes), conv(2051, 2048)
        self.backbone = nn.ModuleList(stages)
        heads = [self.f9, self.classifier] if merged else [self.classifier, self.f9]
        self.newly_added = nn.ModuleList([*heads, self.side1, self.side2, self.side3, self.side4])


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(2))


def block(inputs, outputs, groups, upsample=False):
    more = [nn.Upsample(scale_factor=2)] if upsample else []
    return nn.Sequential(conv(inputs, outputs), nn.GroupNorm(groups, outputs), *more, nn.ReLU())


class AuthorsIRN(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet50 = net = resnet50()
        stages = [
            nn.Sequential(*stem(net)),
            *(nn.Sequential(x) for x in (net.layer1, net.layer2, net.layer3, net.layer4)),
        ]
        for number, stage in enumerate(stages, start=1):
            setattr(self, f"stage{number}", stage)
        self.mean_shift = Shift()
        edges = [block(depth, 32, 4, i > 1) for i, depth in enumerate((64, 256, 512, 1024, 2048))]
        edges.append(nn.Conv2d(160, 1, 1))
        shape = ((64, 64, 8), (256, 128, 16), (512, 256, 16), (1024, 256, 16), (2048, 256, 16), (768, 256, 16))
        shifts = [block(*each) for each in shape]
        shifts.append(nn.Sequential(*block(448, 256, 16), conv(256, 2), self.mean_shift))
        for kind, heads in (("edge", edges), ("dp", shifts)):
            for number, head in enumerate(heads, start=1):
                setattr(self, f"fc_{kind}{number}", head)
        self.backbone = nn.ModuleList(stages)
        self.edge_layers, self.dp_layers = nn.ModuleList(edges), nn.ModuleList(shifts)


class AuthorsCTI(VisionTransformer):
    def __init__(self, classes=20, dim=384, heads=6, grid=14, depth=12):
        super().__init__(img_size=16 * grid, embed_dim=dim, num_heads=heads, depth=depth, num_classes=0)
        self.bg_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed_cls = nn.Parameter(torch.zeros(1, classes + 1, dim))
        self.pos_embed_pat = nn.Parameter(torch.zeros(1, grid * grid, dim))
        self.tokenizer = nn.Sequential(nn.Linear(dim, 5 * dim), nn.ReLU(), nn.Linear(5 * dim, (classes + 1) * dim))
        self.head = nn.Conv2d(dim, classes + 1, 3, padding=1)


def bare(name):
    """The name that enters the rule: without the prefixes of the backbone."""
    return name.removeprefix("resnet50.")


def fill_sfc(net):
    """Fill by golden/sfc's rule, which names every tensor once: as `resnet50.*` or as a head."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            first = name.startswith("resnet50.") or name.split(".")[0].rstrip("1234567") in ("side", "fc_edge", "fc_dp")
            if (
                (first or name in ("classifier.weight", "f9.weight"))
                and "num_batches" not in name
                and "7.4." not in name
            ):
                tensor.copy_(sfc_rule(bare(name), tuple(tensor.shape)))
    return net


def fill_cti(net, dtype=torch.float64):
    """Fill by golden/cti's rule, in its own precision."""
    net = net.to(dtype)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.copy_(cti_rule(name, tuple(tensor.shape)))
    return net


def fill_randomly(net, seed=0):
    """Random numbers everywhere, in buffers and counters too, so that a tensor left behind shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.dtype.is_floating_point:
                low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.1, 0.1)
                tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))
            else:
                tensor.fill_(7)
    return net
