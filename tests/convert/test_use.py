"""Converted files where users give them: `weights:`, `load_from_checkpoint`, `frugalseg.load`, the table."""

import numpy as np
import pytest
import torch
import torchvision

import frugalseg
from frugalseg.cli import main
from frugalseg.convert import SOURCES
from frugalseg.convert.build import build_task
from frugalseg.convert.resnets import resnet_of
from frugalseg.convert.source import Request
from frugalseg.convert.stages import Stages, stages_of
from frugalseg.errors import CheckpointError
from frugalseg.nn.backbone import ResNetStages
from frugalseg.nn.resnet38d import ResNet38
from frugalseg.nn.weights import load_backbone_weights
from frugalseg.papers.cti.model import CTIViT
from frugalseg.papers.cti.weights import load_weights
from frugalseg.stages.psa import PSA
from tests.convert.kinds import KINDS, vit
from tests.convert.layouts import AuthorsIRN, AuthorsSFC

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def test_settings_that_the_command_line_notes_in_every_checkpoint_are_no_obstacle():
    """`novel` comes from the data's few-shot fold, and SFC has no such argument."""
    arguments = {"num_classes": 4, "novel": [], "weights": "/gone.pth", "_class_path": "frugalseg.papers.sfc.SFC"}
    assert build_task("frugalseg.papers.sfc.SFC", arguments).hparams["num_classes"] == 4
    with pytest.raises(CheckpointError, match="colour"):
        build_task("frugalseg.papers.sfc.SFC", {**arguments, "colour": 1})


@torch.no_grad()
def test_torchvisions_backbone_gives_torchvisions_features(converted):
    theirs = torchvision.models.resnet18().eval()
    theirs.load_state_dict(converted("torchvision").content)
    ours = ResNetStages("resnet18", strides=(4, 1, 2, 2, 2)).eval()
    assert load_backbone_weights(ours, str(converted("torchvision").ours)) == 100
    whole = torch.nn.Sequential(*list(theirs.children())[:-2])
    torch.testing.assert_close(ours(IMAGE).layer4, whole(IMAGE), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_the_depth_is_told_by_the_names(name):
    with torch.device("meta"):
        net = getattr(torchvision.models, name)()
    assert resnet_of(net.state_dict()) == name


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "part"), [("deit", None), ("dino", None), ("dino-whole", "teacher"), ("dino-student", "student")]
)
def test_transformers_give_timms_features(converted, name, part):
    content = converted(name).content
    state = content.get("model", content.get(part, content))
    state = {n.removeprefix("module.").removeprefix("backbone."): t for n, t in state.items() if "head." not in n}
    theirs, ours = vit().eval(), vit().eval()
    theirs.load_state_dict(state)
    assert load_backbone_weights(ours, str(converted(name).ours)) == len(state)
    torch.testing.assert_close(ours.forward_features(IMAGE), theirs.forward_features(IMAGE), rtol=0, atol=0)


def test_cti_begins_from_a_converted_deit(converted):
    net = CTIViT(4, 64, 3, 2, grid=4, infusion=1)
    load_weights(net, str(converted("deit").ours))
    state = converted("deit").content["model"]
    torch.testing.assert_close(net.pos_embed_pat.detach(), state["pos_embed"][:, 1:], rtol=0, atol=0)
    weight = net.get_parameter("blocks.2.attn.qkv.weight").detach()
    torch.testing.assert_close(weight, state["blocks.2.attn.qkv.weight"], rtol=0, atol=0)


@torch.no_grad()
def test_resnet38_gives_the_same_features(converted):
    theirs, ours = ResNet38(width=0.125).eval(), ResNet38(width=0.125).eval()
    content = {n: t for n, t in converted("resnet38").content.items() if not n.startswith("fc8")}
    theirs.load_state_dict(content, strict=False)
    assert load_backbone_weights(ours, str(converted("resnet38").ours)) == len(content)
    for one, other in zip(ours(IMAGE), theirs(IMAGE), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert float(one.abs().max()) > 0


@torch.no_grad()
def test_affinity_net_is_a_checkpoint_of_psa(converted):
    task = PSA.load_from_checkpoint(converted("psa").ours, weights_only=True).eval()
    content = converted("psa").content
    torch.testing.assert_close(task.net.head.f9.weight, content["f9.weight"], rtol=0, atol=0)
    assert task.net(IMAGE).shape == (2, 34, 8, 8)


def test_a_backbone_alone_comes_out_of_a_whole_net(converted, tmp_path):
    """SFC's ResNet for `weights:`; without its heads it has no way back but torchvision's."""
    found, out = converted("sfc"), tmp_path / "backbone.safetensors"
    assert main(["convert", str(found.theirs), "--task", "backbone", "--out", str(out)]) == 0
    net = ResNetStages()
    load_backbone_weights(net, str(out))
    torch.testing.assert_close(net.conv1.weight.detach(), found.content["resnet50.conv1.weight"], rtol=0, atol=0)
    assert main(["convert", str(out), "--to", "official", "--out", str(tmp_path / "back.pth")]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert set(back) == {n.removeprefix("resnet50.") for n in found.content if n.startswith("resnet50.")}


def test_loading_for_seeds(converted):
    """`frugalseg.load` on the released CTI: a mask of the classes that the image is said to show."""
    predictor = frugalseg.load(converted("cti").ours)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    mask = predictor(image, tags=[8])
    assert mask.shape == (48, 64) and set(np.unique(mask)) <= {0, 8}


@pytest.mark.parametrize(
    ("source", "build", "stages"),
    [
        # stem and layer1 as one stage, and the list of heads in another order
        ("sfc", lambda: AuthorsSFC(merged=True), Stages(1, merged=True)),
        ("sfc", AuthorsSFC, Stages(0)),
        ("irn", AuthorsIRN, Stages(1)),
    ],
)
def test_the_names_that_are_written_are_exactly_those_of_the_net(source, build, stages):
    """However its stages are numbered, which their numbers tell."""
    with torch.device("meta"):
        theirs = build().state_dict()
    assert stages_of(theirs, Stages(5)) == stages
    plan = SOURCES[source].plan(SOURCES[source].settings(theirs, Request(), None))
    assert {name for names in plan.names.values() for name in names} == set(theirs)
    for ours, names in plan.names.items():
        assert {tuple(theirs[name].shape) for name in names} == {tuple(plan.state[ours].shape)}, ours


@pytest.mark.parametrize("source", ["sfc", "cti", "irn", "torchvision", "deit", "dino", "resnet38"])
def test_the_table_of_a_released_net(source, capsys):
    assert main(["convert", "--table", "--from", source]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["theirs", "ours", "shape", "state"] and all(len(row) == 4 for row in rows)
    assert (
        len(rows) > 100 and len({row[1] for row in rows if row[1] != "-"}) == sum(row[1] != "-" for row in rows[1:]) + 1
    )


def test_the_table_of_a_file_says_what_became_of_every_tensor(converted, capsys):
    path = str(converted("dino-whole").theirs)
    capsys.readouterr()  # what converting it has said, where this test is the first that wants it
    assert main(["convert", path, "--table"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    told = {name: row[3] for row in rows for name in row[0].split(" = ")}
    assert set(told) == set(converted("dino-whole").content["teacher"])
    assert told["backbone.cls_token"] == "matched" and "projection" in told["head.last_layer.weight_g"]


def test_every_source_has_a_kind_here():
    assert {kind.source for kind in KINDS.values()} == set(SOURCES)
