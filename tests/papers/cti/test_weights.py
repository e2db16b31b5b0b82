"""Weights from DeiT, from an earlier stage, and those that do not fit (cti.md section 2.5)."""

import pytest
import timm
import torch

from frugalseg.errors import CheckpointError, WeightsError
from frugalseg.papers.cti import CTI
from frugalseg.papers.cti.embed import StemEmbed, resize_positions
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.weights import load_weights

SMALL = {"dim": 12, "depth": 3, "heads": 3, "infusion": 1}
STEM = {"backbone": "resnet18", "strides": [2, 1, 2, 1, 1], "options": {"layers": [1] * 4, "channels": [4, 6, 8, 10]}}


@pytest.fixture
def deit():
    torch.manual_seed(1)
    return timm.create_model("deit_small_patch16_224", embed_dim=12, depth=3, num_heads=3, num_classes=5)


@pytest.fixture
def file(tmp_path):
    def write(state):
        path = tmp_path / "weights.pth"
        torch.save(state, path)
        return str(path)

    return write


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}])
def test_deit_becomes_class_tokens(deit, file, wrap):
    """One class token for all, its position in every row; background 0; tokenizer and head as they were."""
    net, source = CTIViT(4, **SMALL), deit.state_dict()
    own = {name: t.clone() for name, t in net.state_dict().items()}
    load_weights(net, file(wrap(source)))
    assert torch.equal(net.cls_token, source["cls_token"]) and not net.bg_token.any()
    for row in net.pos_embed_cls[0]:
        assert torch.equal(row, source["pos_embed"][0, 0])
    assert torch.equal(net.pos_embed_pat, source["pos_embed"][:, 1:])
    for name, tensor in net.state_dict().items():
        if name.startswith(("blocks.", "patch_embed.")):
            assert torch.equal(tensor, source[name]), name
        if name.startswith(("tokenizer.", "head.")):
            assert torch.equal(tensor, own[name]), name


def test_positions_of_another_training_size_are_resized(deit, file):
    net, source = CTIViT(4, grid=28, **SMALL), deit.state_dict()
    load_weights(net, file(source))
    assert torch.equal(net.pos_embed_pat, resize_positions(source["pos_embed"][:, 1:], (28, 28)))


def test_a_pass_of_deit_itself_is_reproduced(deit, file):
    """With a class token that the tokenizer leaves alone, the patches of both nets agree: same blocks, same norms."""
    net = CTIViT(2, **SMALL, background_token=False).eval()
    load_weights(net, file(deit.state_dict()))
    for parameter in net.tokenizer[2].parameters():
        torch.nn.init.zeros_(parameter)
    image = torch.randn(1, 3, 224, 224)
    deit.eval().norm = torch.nn.Identity()
    with torch.no_grad():
        x, _ = net.start(image)
        torch.testing.assert_close(net.run(x, 0, 3), deit.forward_features(image), rtol=1e-4, atol=1e-5)


def test_an_earlier_stage_gives_everything(file):
    torch.manual_seed(2)
    task = CTI(4, **SMALL, weights=None, memory_size=3)
    net = CTIViT(4, **SMALL)
    load_weights(net, file({"state_dict": task.state_dict()}))
    assert all(torch.equal(t, task.net.state_dict()[name]) for name, t in net.state_dict().items())


def test_an_earlier_stage_at_another_size_gets_its_positions_resized(file):
    source, net = CTIViT(4, grid=14, **SMALL), CTIViT(4, grid=6, **SMALL)
    load_weights(net, file(source.state_dict()))
    assert torch.equal(net.pos_embed_pat, resize_positions(source.pos_embed_pat.detach(), (6, 6)))
    assert torch.equal(net.head.weight, source.head.weight)


def test_a_stem_takes_weights_of_its_own(tmp_path, file):
    torch.manual_seed(3)
    source = CTIViT(4, 12, 3, 3, infusion=1, stem=STEM)
    assert isinstance(source.patch_embed, StemEmbed)
    stem = file(source.patch_embed.backbone.state_dict())
    net = CTIViT(4, 12, 3, 3, infusion=1, stem=STEM)
    before = net.cls_token.clone()
    load_weights(net, None, stem)
    state = net.patch_embed.backbone.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in source.patch_embed.backbone.state_dict().items())
    assert torch.equal(net.cls_token, before)
    assert not any(p.requires_grad for p in net.patch_embed.backbone.parameters())
    assert net.patch_embed.patch == 8 and net(torch.randn(1, 3, 64, 48)).scores.maps.shape == (1, 4, 8, 6)


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda s: _without(s, "pos_embed"), WeightsError, "not a ViT with one class token"),
        (lambda s: {**s, "pos_embed": torch.zeros(1, 198, 12)}, WeightsError, "square table"),
        (lambda s: _without(s, "blocks.2.norm1.bias"), WeightsError, r"holds no blocks\.2\.norm1\.bias"),
        (lambda s: {**s, "blocks.0.norm1.bias": torch.zeros(3)}, WeightsError, r"shape \(3,\), not \(12,\)"),
        (
            lambda s: {**s, "blocks.3.norm1.bias": torch.zeros(12)},
            WeightsError,
            r"blocks\.3\.norm1\.bias, which this net has not",
        ),
        (lambda s: {"token_table": torch.zeros(4, 12)}, WeightsError, "folded"),
    ],
)
def test_weights_that_do_not_fit_are_refused(deit, file, spoil, error, message):
    net = CTIViT(4, **SMALL)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(error, match=message):
        load_weights(net, file(spoil(deit.state_dict())))
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_the_weights_of_another_number_of_classes_are_refused(file):
    with pytest.raises(CheckpointError, match="tokens for 5 classes, but there are 3"):
        load_weights(CTIViT(4, **SMALL), file(CTIViT(6, **SMALL).state_dict()))


def test_no_weights_change_nothing():
    net = CTIViT(4, **SMALL)
    before = net.cls_token.clone()
    load_weights(net, None)
    assert torch.equal(net.cls_token, before)
