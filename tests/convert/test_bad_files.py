"""Files and words that cannot be converted: one line that says what to mend, code 2, nothing written."""

import argparse
import json
import os

import numpy as np
import pytest
import torch

from frugalseg.cli import main
from frugalseg.convert import Request, to_official, to_ours
from frugalseg.errors import CheckpointError
from tests.convert.kinds import KINDS, narrow_cti
from tests.convert.layouts import fill_randomly


@pytest.fixture(scope="module")
def state():
    """A narrow CTI of five classes by the authors' names."""
    return dict(fill_randomly(narrow_cti()).state_dict())


class Refused:
    """Runs the verb, which must refuse in one line; gives the line."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys

    def __call__(self, content, *words, out="ours.ckpt"):
        theirs = self.folder / "theirs.pth"
        if isinstance(content, bytes):
            theirs.write_bytes(content)
        elif content is not None:
            torch.save(content, theirs)
        self.capsys.readouterr()
        assert main(["convert", str(theirs), "--out", str(self.folder / out), *words]) == 2
        captured = self.capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1 and not captured.out
        assert not (self.folder / out).exists()
        return lines[0]


@pytest.fixture
def refused(tmp_path, capsys):
    return Refused(tmp_path, capsys)


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_in_a_file_is_not_run(refused, tmp_path, state):
    line = refused({"model": state, "args": Evil(tmp_path / "ran")})
    assert not (tmp_path / "ran").exists()
    assert "system" in line and "save its state dict alone" in line


def test_objects_of_other_classes_are_named(refused, state):
    assert "numpy" in refused({"model": state, "best": np.float64(69.5)})


def test_a_command_line_is_read_past(tmp_path, state):
    """Scripts keep theirs in a Namespace, which cannot do anything."""
    torch.save(
        {"model": state, "args": argparse.Namespace(lr=1.0, nested=argparse.Namespace(a=[1]))}, tmp_path / "a.pth"
    )
    report = to_ours(tmp_path / "a.pth", tmp_path / "a.ckpt", Request(heads=3))
    assert report.beside == ("args",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "not a readable checkpoint"),
        (b"some text", "not a readable checkpoint"),
        (b"PK\x03\x04 no zip", "not a readable checkpoint"),
        ({"epoch": 3}, "holds no tensors by name"),
        ([torch.zeros(1)], "holds no tensors by name (a list)"),
        ({"model": {"a.weight": torch.zeros(1)}}, "is of no known source (first tensors: a.weight)"),
        ({"hyper_parameters": argparse.Namespace(a=1)}, "holds no tensors by name"),
    ],
)
def test_no_checkpoint(refused, content, words):
    line = refused(content)
    assert words in line and "theirs.pth" in line


def test_no_safetensors(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 64)
    assert main(["convert", str(path), "--out", str(tmp_path / "b.safetensors")]) == 2
    assert "not a readable safetensors file" in capsys.readouterr().err


def test_a_missing_tensor(refused, state):
    less = {name: tensor for name, tensor in state.items() if name != "blocks.3.mlp.fc1.weight"}
    assert "holds no blocks.3.mlp.fc1.weight of the 72 tensors" in refused(less, "--heads", "3")


def test_several_missing_tensors(refused, state):
    less = {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "blocks.4.norm1"))}
    line = refused(less, "--heads", "3")
    assert "and 3 more" in line and "--table" in line


def test_an_essential_tensor_is_missing(refused, state):
    less = {name: tensor for name, tensor in state.items() if name != "pos_embed_pat"}
    assert "holds no pos_embed_pat" in refused(less)


def test_a_wrong_shape(refused, state):
    """Positions of five classes, a head of eighty."""
    line = refused({**state, "head.weight": torch.zeros(81, 48, 3, 3)}, "--heads", "3")
    assert "head.weight has shape (81, 48, 3, 3), not (6, 48, 3, 3)" in line


def test_unequal_duplicates(refused):
    """The same tensor under two names, one number apart; the pair is named."""
    one = torch.rand(32, 256, 1, 1)
    other = one.clone()
    other[3, 5] += 1e-6
    line = refused({"fc_edge1.0.weight": one, "fc_edge2.0.weight": one, "edge_layers.1.0.weight": other})
    assert "fc_edge2.0.weight and edge_layers.1.0.weight should be one tensor, but differ" in line


def test_a_wrong_source(refused, state):
    line = refused(state, "--from", "sfc")
    assert "looks like cti" in line and "not sfc" in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from", "caffe"), "--from caffe: is no source of checkpoints; write one of cti, sfc, irn"),
        (("--task", "irn"), "--task irn: a file of cti becomes one of cti"),
        (("--classes", "81", "--heads", "3"), "holds 6 classes with the background, not 81"),
        ((), "no multiple of 64: say how many attention heads: --heads N"),
        (("--heads", "5"), "--heads 5 does not divide the tokens' width 48"),
        (("--heads", "-1"), "--heads -1 does not divide"),
    ],
)
def test_words_that_do_not_fit_the_file(refused, state, words, told):
    assert told in refused(state, *words)


def test_a_table_of_positions_that_is_not_square(refused, state):
    assert "positions of 15 patches are no square table" in refused(
        {**state, "pos_embed_pat": torch.zeros(1, 15, 48)}, "--heads", "3"
    )


def test_the_wrong_ending(refused, state):
    assert "is written as .ckpt" in refused(state, "--heads", "3", out="ours.safetensors")


def test_a_distilled_deit(refused, converted):
    content = dict(converted("deit").content["model"])
    line = refused({"model": {**content, "dist_token": torch.zeros(1, 1, 64)}}, out="a.safetensors")
    assert "distilled DeiT with two tokens" in line


def test_a_resnet_of_no_known_depth(refused, converted):
    content = {n: t for n, t in converted("torchvision").content.items() if not n.startswith("layer3.1")}
    assert "[2, 2, 1, 2] blocks" in refused(content, out="a.safetensors")


def test_sfc_without_a_head(refused):
    heads = ("side1", "side3", "side4", "classifier", "f9")
    content = {f"{name}.weight": torch.zeros(2, 2, 1, 1) for name in heads}
    assert "holds no side2.weight" in refused(content)


def test_a_head_that_is_no_affinity_nets(refused, converted):
    assert "holds no head of AffinityNet" in refused(converted("resnet38").content, "--task", "psa")


def test_what_is_there_is_not_replaced_unasked(tmp_path, capsys, state):
    theirs, out = tmp_path / "theirs.pth", tmp_path / "ours.ckpt"
    torch.save(state, theirs)
    out.write_text("mine")
    words = ["convert", str(theirs), "--heads", "3", "--out", str(out)]
    assert main(words) == 2
    assert "is there already; give another --out, or --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert torch.load(out, weights_only=True)["hyper_parameters"]["num_classes"] == 6


def test_the_file_that_is_read_is_not_written(tmp_path, capsys, state):
    path = tmp_path / "a.ckpt"
    torch.save(state, path)
    before = path.read_bytes()
    assert main(["convert", str(path), "--heads", "3", "--out", str(path), "--overwrite"]) == 2
    assert "is the file that is read" in capsys.readouterr().err and path.read_bytes() == before


def test_a_small_file_cannot_ask_for_much_memory(refused, state):
    """A row that is repeated by its stride takes four bytes on disk."""
    huge = torch.zeros(1).expand(1, 2**16, 2**16)
    assert "pos_embed_cls claims 16384 MB that the file does not store" in refused({**state, "pos_embed_cls": huge})


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("pos_embed_cls", torch.zeros(()), "pos_embed_cls has shape (), not 3 sides"),
        ("pos_embed_cls", torch.zeros(1, 500, 48), "tokenizer.2.weight has shape (288, 240), but the tokens ask for"),
        ("cls_token", torch.zeros(1, 0, 48), "cls_token has shape (1, 0, 48)"),
        ("patch_embed.proj.weight", torch.zeros(48, 3, 8, 16), "patch_embed.proj.weight has shape (48, 3, 8, 16), not"),
        ("pos_embed_pat", torch.zeros(1, 16, 48).to_sparse(), "holds no pos_embed_pat"),
        ("blocks.900.x", torch.zeros(1), "not known"),
    ],
)
def test_shapes_of_no_net(refused, state, tmp_path, capsys, name, tensor, told):
    content = {**state, name: tensor}
    if told != "not known":
        assert told in refused(content, "--heads", "3")
        return
    # a block of another name makes the net one deeper, and then lacks the rest of it
    assert "holds no blocks.5.norm1.weight and 11 more" in refused(content, "--heads", "3")


def test_too_many_blocks(refused, state):
    more = {f"blocks.{number}.x": torch.zeros(1) for number in range(100)}
    assert "has 100 blocks, not 1 to 64" in refused({**state, **more}, "--heads", "3")


def test_too_many_classes(refused, state):
    many = {"pos_embed_cls": torch.zeros(1, 300, 48), "tokenizer.2.weight": torch.zeros(300 * 48, 240)}
    assert "is of 300 classes with the background, not of 2 to 255" in refused({**state, **many}, "--heads", "3")


@pytest.mark.parametrize("name", ["f8_3.weight", "conv1a.weight"])
def test_a_scalar_where_a_convolution_should_be(refused, converted, name):
    line = refused({**converted("psa").content, name: torch.zeros(())})
    assert "shapes that no such net has" in line or "is no convolution" in line


def test_a_mapping_that_holds_itself(refused):
    content = {"epoch": 1}
    content["model"] = content
    assert "holds no tensors by name" in refused(content)


def test_the_class_to_import_is_not_taken_from_the_file(converted, tmp_path):
    """Of a checkpoint's class path only the last word counts."""
    path = changed(converted, tmp_path, lambda c: c["hyper_parameters"].update(_class_path="nowhere.to.be.found.CTI"))
    to_official(path, tmp_path / "back.pth")
    assert (tmp_path / "back.pth").exists()


@pytest.mark.parametrize("words", [(), ("--table",), ("--out", "x.ckpt")])
def test_too_few_words(words, capsys):
    assert main(["convert", *words]) == 2
    assert "needs FILE" in capsys.readouterr().err


def test_tensors_that_nobody_knows_are_told_and_kept(tmp_path, capsys, state):
    theirs, ours, back = (tmp_path / name for name in ("theirs.pth", "ours.ckpt", "back.pth"))
    torch.save({**state, "extra.weight": torch.ones(3)}, theirs)
    assert main(["convert", str(theirs), "--heads", "3", "--out", str(ours)]) == 0
    assert "not known  1: extra.weight" in capsys.readouterr().out
    assert json.loads((tmp_path / "ours.ckpt.json").read_text())["unknown"] == ["extra.weight"]
    to_official(ours, back)
    assert torch.equal(torch.load(back, weights_only=True)["extra.weight"], torch.ones(3))


def test_ours_is_not_converted_again(converted, tmp_path):
    for name in ("cti-narrow", "deit"):
        with pytest.raises(CheckpointError, match="is ours already"):
            to_ours(converted(name).ours, tmp_path / "x.ckpt")


# ---------------------------------------------------------------------- the way back


def changed(converted, tmp_path, change, name="cti-narrow"):
    """A converted checkpoint with something changed in it."""
    content = torch.load(converted(name).ours, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "ours.ckpt")
    return tmp_path / "ours.ckpt"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["converted"].pop("names"), "record of the conversion is damaged"),
        (lambda c: c["converted"].update(prefix=None), "record of the conversion is damaged"),
        (lambda c: c["converted"].update(source=["cti"]), "record of the conversion is damaged"),
        (lambda c: c["converted"].update(names=[1]), "record of the conversion is damaged"),
        (lambda c: c["converted"].update(carried={"a": 1}), "record of the conversion is damaged"),
        (lambda c: c["converted"]["carried"].pop("norm.bias"), "has nothing for norm.bias of theirs.pth any more"),
        (lambda c: c["state_dict"].pop("net.cls_token"), "has nothing for cls_token"),
        (lambda c: (c.pop("converted"), c["state_dict"].pop("net.cls_token")), "holds no net.cls_token"),
        (lambda c: c["state_dict"].update({"net.new": torch.ones(1)}), "net.new has no place in the authors' net"),
        (lambda c: c["state_dict"].update({"net.token_table": torch.ones(1)}), "tokens were folded for inference"),
        (lambda c: c["hyper_parameters"].update(background_token=False), "has no background token"),
        (lambda c: c["hyper_parameters"].update(stem={"name": "resnet18"}), "has a convolutional stem"),
        (lambda c: c["hyper_parameters"].update(_class_path="frugalseg.papers.mevt.Pretrain"), "no authors here have names"),
        (lambda c: c["hyper_parameters"].update(depth=1), "cannot be built with the file's settings"),
        (lambda c: c["hyper_parameters"].update(strange=1), "cannot be built with the file's settings"),
    ],
)  # fmt: skip
def test_ours_that_cannot_go_back(converted, tmp_path, change, told):
    path = changed(converted, tmp_path, change)
    with pytest.raises(CheckpointError, match=told) as error:
        to_official(path, tmp_path / "back.pth")
    assert str(path) in str(error.value) and not (tmp_path / "back.pth").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from", "sfc", "--out", "{}/b.pth"), "whose names are cti's"),
        (("--out", "{}/b.ckpt"), "files of this kind end with .pth or .pt"),
    ],
)
def test_words_that_do_not_fit_the_way_back(converted, tmp_path, capsys, words, told):
    path = converted("cti-narrow").ours
    assert main(["convert", str(path), "--to", "official", *(word.format(tmp_path) for word in words)]) == 2
    assert told in capsys.readouterr().err


def test_an_official_file_is_official_already(converted, tmp_path, capsys):
    """Of a task; a backbone's tensors have the same names on both sides."""
    words = ["convert", str(converted("cti-narrow").theirs), "--to", "official", "--out", str(tmp_path / "b.pth")]
    assert main(words) == 2
    assert "is not ours" in capsys.readouterr().err


def test_kinds_are_what_they_say():
    assert all(kind.ending in (".ckpt", ".safetensors") for kind in KINDS.values())
