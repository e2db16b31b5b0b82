"""Frozen backbones: the same numbers as the net itself, never a gradient, strict files."""

import pytest
import timm
import torch

from frugalseg.errors import ConfigError, WeightsError
from frugalseg.nn.features import Backbone, FrozenBackbone, FrozenFeatures
from frugalseg.papers.mevt.model import create
from tests.stages.toys import own

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}
RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 24]}


def test_a_transformers_prefix_tokens_are_dropped_and_its_norm_applied():
    frozen = FrozenBackbone(Backbone("vit_tiny_patch16_224", options=VIT))
    image = torch.randn(2, 3, 48, 64)
    found = frozen.dense(image)
    tokens = frozen.net.net.forward_features(image)
    assert found.shape == (2, 16, 3, 4) and frozen.width == 16 and frozen.multiple == 16
    for row in range(3):
        for column in range(4):
            assert torch.equal(found[:, :, row, column], tokens[:, 1 + row * 4 + column])


def test_a_convnets_stage_is_chosen():
    frozen = FrozenBackbone(Backbone("resnet18", stages=(2,), options=RESNET))
    net, image = frozen.net.net, torch.randn(1, 3, 64, 64)
    x = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(image))))))
    assert torch.allclose(frozen.dense(image), x, atol=1e-6)
    assert (frozen.width, frozen.multiple) == (x.shape[1], 8)


def test_stages_are_joined_at_the_largest_one():
    frozen = FrozenBackbone(Backbone("resnet18", stages=(2, 4), options=RESNET))
    found = frozen.dense(torch.randn(1, 3, 64, 64))
    assert found.shape == (1, frozen.width, 8, 8) and frozen.multiple == 32


def test_it_never_learns():
    frozen = FrozenBackbone(Backbone("resnet18", options=RESNET))
    before = frozen.digest()
    frozen.train()
    assert not any(module.training for module in frozen.modules())
    out = frozen.dense(torch.randn(4, 3, 64, 64, requires_grad=True))
    assert not out.requires_grad and not any(p.requires_grad for p in frozen.parameters())
    assert frozen.digest() == before
    assert isinstance(frozen, FrozenFeatures)


def test_the_digest_is_that_of_the_function():
    torch.manual_seed(0)
    first, second = FrozenBackbone(own("Pooled")), FrozenBackbone(own("Pooled"))
    assert first.digest() != second.digest()
    second.load_state_dict(first.state_dict())
    assert first.digest() == second.digest()
    assert first.digest() != FrozenBackbone(own("Pooled", width=7)).digest()


def test_a_timm_file_and_a_checkpoint_with_a_prefix(tmp_path):
    net = timm.create_model("resnet18", pretrained=False, num_classes=7, **RESNET)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    torch.save({"state_dict": {f"teacher.net.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "run.ckpt")
    image = torch.randn(1, 3, 64, 64)
    for name, prefix in (("net.pt", ""), ("run.ckpt", "teacher.net.")):
        frozen = FrozenBackbone(Backbone("resnet18", str(tmp_path / name), prefix, options=RESNET))
        frozen.load()
        assert torch.allclose(frozen.dense(image), net.eval().forward_features(image), atol=1e-6)


def test_an_own_nets_checkpoint_is_loaded_strictly(tmp_path):
    wanted = FrozenBackbone(own("Pooled"))
    state = {f"teacher.{name}": tensor for name, tensor in wanted.net.state_dict().items()}
    torch.save({"state_dict": {**state, "student.conv.weight": torch.zeros(1)}}, tmp_path / "run.ckpt")
    settings = own("Pooled").__dict__ | {"weights": str(tmp_path / "run.ckpt")}
    frozen = FrozenBackbone(Backbone(**settings | {"prefix": "teacher."}))
    frozen.load()
    assert frozen.digest() == wanted.digest()
    with pytest.raises(WeightsError, match=r"run\.ckpt: student\.conv\.weight has shape"):
        FrozenBackbone(Backbone(**settings | {"prefix": "student."})).load()
    with pytest.raises(WeightsError, match=r"is not there.*backbone\.prefix"):
        FrozenBackbone(Backbone(**settings)).load()


def test_a_checkpoint_with_code_is_not_run(tmp_path):
    torch.save({"conv.weight": own("Pooled")}, tmp_path / "bad.pt")
    settings = own("Pooled").__dict__ | {"weights": str(tmp_path / "bad.pt")}
    with pytest.raises(WeightsError, match="not a readable weights file"):
        FrozenBackbone(Backbone(**settings)).load()


@pytest.mark.parametrize(
    "settings",
    [
        Backbone("no_such_model"),
        Backbone("resnet18", stages=(9,)),
        Backbone("tests.stages.toys:Nothing"),
        Backbone("no.such.package:Net"),
        own("NoDense"),
        own("Pooled", colour=3),
    ],
)
def test_what_cannot_be_built_is_refused(settings):
    with pytest.raises(ConfigError) as caught:
        FrozenBackbone(settings)
    assert settings.name in str(caught.value) and "\n" not in str(caught.value)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        FrozenBackbone(own("Pooled")).dense(torch.zeros(1, 3, 30, 32))


def test_more_tensors_than_an_own_net_has_are_refused_unless_parts_are_meant_to_be_left_out(tmp_path):
    """Another net's weights would be judged without a part of it, and nothing would tell."""
    prefix = "teacher.module.backbone."
    whole = create("mevt_tiny", mask_token=True)
    file = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in whole.state_dict().items()}}, file)
    name = "frugalseg.papers.mevt.model:create"
    told = {"weights": str(file), "prefix": prefix}
    cut = FrozenBackbone(Backbone(name, options={"preset": "mevt_tiny", "decoder": False}, **told))
    with pytest.raises(WeightsError, match=r"decoder\.\S+ and \d+ more tensors have no place in this net"):
        cut.load()
    FrozenBackbone(Backbone(name, options={"preset": "mevt_tiny"}, **told)).load()
    meant = FrozenBackbone(Backbone(name, options={"preset": "mevt_tiny", "decoder": False}, partial=True, **told))
    meant.load()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(meant.dense(image), whole.eval()(image).stages[2])
