"""MEVT under timm's conventions."""

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2

from frugalseg.papers.mevt.model import PRESETS, create
from frugalseg.papers.mevt.timm_entry import TimmMEVT

IMAGE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return timm.create_model("mevt_tiny", num_classes=5).eval()


@pytest.fixture(scope="module")
def own(net):
    found = create("mevt_tiny").eval()
    found.load_state_dict({name: t for name, t in net.state_dict().items() if not name.startswith("head.")})
    return found


def test_timm_knows_every_preset_and_says_that_none_has_weights():
    assert set(PRESETS) <= set(timm.list_models("mevt_*"))
    assert not timm.list_models("mevt_*", pretrained=True)
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        timm.create_model("mevt_tiny", pretrained=True)


@pytest.mark.parametrize("name", PRESETS)
def test_without_classes_tensors_have_mevts_names_and_shapes(name):
    theirs, ours = timm.create_model(name).state_dict(), create(name).state_dict()
    assert {key: t.shape for key, t in theirs.items()} == {key: t.shape for key, t in ours.items()}


def test_features_are_mevts(net, own):
    with torch.no_grad():
        dense = own(IMAGE)
        tokens, maps = net.forward_intermediates(IMAGE)
        assert torch.equal(net.dense(IMAGE), dense.features)
        assert torch.equal(tokens, net.forward_features(IMAGE))
        assert all(torch.equal(a, b) for a, b in zip(maps, dense.stages, strict=True))
        assert torch.equal(tokens[:, : net.num_prefix_tokens], dense.token[:, None])
        assert torch.equal(tokens[:, net.num_prefix_tokens :].transpose(1, 2).unflatten(2, (2, 3)), dense.stages[3])
        only = net.forward_intermediates(IMAGE, indices=2, intermediates_only=True)
        early = net.forward_intermediates(IMAGE, indices=[1], stop_early=True)
        assert [f.shape for f in only] == [f.shape for f in dense.stages[2:]]
        assert torch.equal(early[1][0], dense.stages[1]) and early[0].shape == (2, 8 * 12, 64)


def test_forward_is_head_of_features(net):
    with torch.no_grad():
        features = net.forward_features(IMAGE)
        pooled = net.forward_head(features, pre_logits=True)
        assert torch.equal(net(IMAGE), net.forward_head(features))
        assert torch.equal(net(IMAGE), net.get_classifier()(pooled)) and net(IMAGE).shape == (2, 5)
        assert torch.equal(pooled, features[:, 0])
        average = timm.create_model("mevt_tiny", global_pool="avg").eval()
        average.load_state_dict(net.state_dict(), strict=False)
        torch.testing.assert_close(average(IMAGE), features[:, 1:].mean(dim=1))
        assert timm.create_model("mevt_tiny", global_pool="").eval()(IMAGE).shape == features.shape


def test_the_classifier_can_be_replaced_and_removed():
    net = timm.create_model("mevt_tiny", num_classes=5)
    assert net.num_features == net.head_hidden_size == net.get_classifier().in_features
    net.reset_classifier(7, "avg")
    assert net(IMAGE).shape == (2, 7) and net.num_classes == 7
    net.reset_classifier(0)
    assert net(IMAGE).shape == (2, net.num_features) and not list(net.get_classifier().parameters())
    with pytest.raises(ValueError, match="global_pool"):
        net.reset_classifier(0, "max")


@pytest.mark.parametrize("name", PRESETS)
def test_features_only_tells_channels_and_reductions(name):
    net = timm.create_model(name, features_only=True).eval()
    widths = list(PRESETS[name]["widths"])
    assert net.feature_info.channels() == widths and net.feature_info.reduction() == [4, 8, 16, 32]
    for found, width, step in zip(net(IMAGE[:1, :, :32, :32]), widths, net.feature_info.reduction(), strict=True):
        assert found.shape == (1, width, 32 // step, 32 // step)


def test_features_only_drops_what_is_not_asked_for(net):
    part = timm.create_model("mevt_tiny", features_only=True, out_indices=(0, 2)).eval()
    assert part.feature_info.channels() == [32, 96]
    kept = {name for name, _ in part.named_parameters()}
    assert not any("decoder" in name or "stages.3" in name for name in kept) and any("stages.2" in n for n in kept)
    part.model.load_state_dict(net.state_dict(), strict=False)
    with torch.no_grad():
        wanted = net.forward_intermediates(IMAGE, indices=[0, 2], intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(part(IMAGE), wanted, strict=True))


def test_layers_are_those_of_timms_optimisers(net):
    groups = list(group_parameters(net, net.group_matcher()).values())
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
    blocks = sum(PRESETS["mevt_tiny"]["blocks"])
    assert len(groups) == 1 + blocks + 2  # the stem, blocks, the decoder, the head
    assert "encoder.stages.0.embed.weight" in groups[0] and set(groups[-1]) == {"head.weight", "head.bias"}
    assert all(name.startswith("decoder.") for name in groups[-2])
    decayed = create_optimizer_v2(net, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5).param_groups
    spared = next(g for g in decayed if any(p is net.encoder.stages[3].token for p in g["params"]))
    assert spared["weight_decay"] == 0.0


def test_checkpointing_changes_no_gradient(net):
    found = []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        net.zero_grad()
        net(IMAGE).sum().backward()
        found.append(net.encoder.stages[0].embed.weight.grad.clone())
    net.set_grad_checkpointing(False)
    net.zero_grad()
    torch.testing.assert_close(found[0], found[1])


def test_what_is_not_supported_is_refused(net):
    with pytest.raises(ValueError, match="3 channels"):
        timm.create_model("mevt_tiny", in_chans=1)
    with pytest.raises(ValueError, match="global_pool"):
        TimmMEVT(global_pool="max", **PRESETS["mevt_tiny"])
    with pytest.raises(ValueError, match="NCHW"):
        net.forward_intermediates(IMAGE, output_fmt="NLC")
    with pytest.raises(ValueError, match="multiples of 32"):
        net.forward_intermediates(IMAGE[:, :, :50])
