"""`frugalseg export`: files of torch.export and ONNX answer as the predictors they are of."""

import json
import zipfile

import numpy as np
import pytest
import torch

import frugalseg
from frugalseg.cli import main
from frugalseg.commands.export import SIZES
from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.predictor import export as exporting
from frugalseg.predictor.export import check, facts_of, open_onnx, open_torch, padded_pixels
from frugalseg.predictor.export_nets import graph_of
from tests.checkpoints import pretraining, write_checkpoint
from tests.predictor.nets import CLASSES, MEAN, NAMES, STD, VIT, make, picture, write

SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
OPEN = {"torch": open_torch, "onnx": open_onnx}
LIMIT = {"torch": 1e-5, "onnx": 1e-4}
"""Largest difference over the largest value; batches and padding by the mean colour round otherwise."""
PRETRAINED = {"mevt": ("mevt_tiny", None), "vit": ("vit_tiny_patch16_224", VIT)}


def checkpoint_of(name, folder):
    if name in PRETRAINED:
        return write_checkpoint(folder, pretraining(*PRETRAINED[name]), {"mean": MEAN, "std": STD})
    return write(folder, name, make(name))


def wanted(net, image):
    """What the predictor itself says: (K, h, w)."""
    if net.kind == "features":
        return net.features(image).numpy()
    if net.kind == "seeds":
        maps = net.maps(image, range(1, CLASSES))
        return np.stack([maps[key] for key in range(1, CLASSES)])
    batch = torch.from_numpy(net._normaliser.pair(image)[:1])
    return net.logits(batch)[0].numpy()


def equal_on_five_sizes(name, form, tmp_path, *more):
    """Export by the verb, open the file, and compare with the predictor on images of `SIZES`."""
    source, out = checkpoint_of(name, tmp_path / "run"), tmp_path / f"net{SUFFIX[form]}"
    assert main(["export", str(source), "--format", form, "--out", str(out), *more]) == 0
    net, (answer, facts) = frugalseg.load(source), OPEN[form](out)
    assert len(SIZES) == 5
    for number, size in enumerate(SIZES):
        # mirrored before it is filled up, an image of other sides differs from one that is filled up before
        step = facts["multiple"] if net.kind == "seeds" else 1
        image = picture(*(-(-side // step) * step for side in size), seed=number)
        given = [padded_pixels(image, facts)] + ([np.ones((1, 3), np.float32)] if net.kind == "seeds" else [])
        expected, found = wanted(net, image), answer(*given)[0][0]
        found = found[:, : expected.shape[1], : expected.shape[2]]
        assert np.abs(found - expected).max() <= LIMIT[form] * np.abs(expected).max(), size
        best = np.sort(expected, axis=0)
        clear = best[-1] - best[-2] > 2 * LIMIT[form] * np.abs(expected).max()
        assert (found.argmax(0) == expected.argmax(0))[clear].all()
    # several images at once are each answered as alone
    images = np.concatenate([padded_pixels(picture(*SIZES[1], seed=seed), facts) for seed in (5, 6, 7)])
    tags = [np.eye(3, dtype=np.float32)] if net.kind == "seeds" else []
    together = answer(images, *tags)[0]
    for number in range(3):
        alone = answer(images[number : number + 1], *(each[number : number + 1] for each in tags))[0][0]
        assert np.abs(together[number] - alone).max() <= LIMIT[form] * np.abs(alone).max()
    if tags:
        assert (together[0, 1:] == 0).all() and together[0, 0].max() > 0
    return net, facts


def test_a_segmentation_net_by_torch_export(tmp_path, capsys):
    net, facts = equal_on_five_sizes("largefov", "torch", tmp_path, "--check")
    told = capsys.readouterr().out
    assert "logits of images of any size" in told and told.count("differs by") == 5
    assert facts["class_names"] == list(NAMES) and facts["mean"] == MEAN and facts["std"] == STD
    assert facts["palette"] == net.palette[:CLASSES].tolist() and facts["multiple"] == 1
    assert facts["kind"] == "segmenter" and facts["versions"]["frugalseg"] == frugalseg.__version__
    # the graph is of the net alone: no path of the machine is in the file
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        assert not any(str(tmp_path).encode() in archive.read(name) for name in archive.namelist())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("name", ["largefov", "v2", "v3plus", "finetune", "probe-m", "mevt", "vit", "cti", "cti-stem"])
def test_nets_answer_the_same_on_five_sizes(name, form, tmp_path):
    if (name, form) == ("largefov", "torch"):
        pytest.skip("is tested above")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, facts = equal_on_five_sizes(name, form, tmp_path)
    assert facts["multiple"] == {"finetune": 32, "probe-m": 32, "mevt": 32, "vit": 16, "cti-stem": 8}.get(name, 1)
    assert facts["class_names"] == list(net.class_names)
    assert facts["threshold"] == (0.4 if name.startswith("cti") else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finetune", "finetune-upernet", "finetune-window", "deeplab-vit"])
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_with_fixed_sides_others_are_exported_too(name, form, tmp_path):
    pytest.importorskip("onnxruntime")
    source, out = checkpoint_of(name, tmp_path / "run"), tmp_path / f"net{SUFFIX[form]}"
    assert main(["export", str(source), "--format", form, "--out", str(out), "--size", "70x51"]) == 0
    answer, facts = OPEN[form](out)
    assert facts["size"] == [70, 51] and facts["multiple"] == 1
    net, image = frugalseg.load(source), picture(70, 51)
    expected = wanted(net, image)
    found = answer(padded_pixels(image, facts))[0][0]
    assert np.abs(found - expected).max() <= LIMIT[form] * np.abs(expected).max()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {name: checkpoint_of(name, root / name) for name in ("largefov", "sfc", "dsmf", "mevt", "cti")}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--format", "torch", "--out", "net.onnx"], "such a file ends in .pt2"),
        (["--format", "onnx", "--out", "net.pt2"], "such a file ends in .onnx"),
        (["--format", "torch", "--out", "net.pt2", "--size", "64"], "is no HxW"),
        (["--format", "torch", "--out", "net.pt2", "--size", "0x64"], "is no HxW"),
        (["--format", "onnx", "--out", "net.onnx", "--opset", "7"], "give 18 to 23"),
        (["--format", "torch", "--out", "there.pt2"], "is there already"),
    ],
)
def test_words_that_make_no_sense(checkpoints, tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt2").write_text("mine")
    assert main(["export", str(checkpoints["largefov"]), *words]) == 2
    told = capsys.readouterr().err
    assert reason in told and told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt2"]
    assert (tmp_path / "there.pt2").read_text() == "mine"


@pytest.mark.parametrize("name", ["sfc", "dsmf"])
def test_nets_that_are_not_exported(checkpoints, tmp_path, capsys, name):
    out = tmp_path / "net.pt2"
    assert main(["export", str(checkpoints[name]), "--format", "torch", "--out", str(out)]) == 2
    assert "not exported" in capsys.readouterr().err.splitlines()[-1] and not out.exists()


def test_what_torch_cannot_export_is_told_in_one_line(checkpoints, tmp_path, capsys, monkeypatch):
    def fails(*given, **words):
        raise RuntimeError("Constraints violated\nand\nmuch more")

    monkeypatch.setattr(torch.export, "export", fails)
    for more, mend in (([], "--size HxW"), (["--size", "64x64"], "--opset")):
        words = ["--format", "torch", "--out", str(tmp_path / "net.pt2"), *more]
        assert main(["export", str(checkpoints["largefov"]), *words]) == 2
        told = capsys.readouterr().err
        assert "Constraints violated)" in told and mend in told and told.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_missing_libraries_are_named(checkpoints, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    words = ["export", str(checkpoints["largefov"]), "--format", "onnx", "--out", str(tmp_path / "net.onnx")]
    monkeypatch.setattr(torch.export, "export", lambda *given, **more: None)
    assert main(words) == 2 and "install frugalseg[export]" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="needs onnxruntime"):
        open_onnx(tmp_path / "net.onnx")


def test_a_file_that_answers_otherwise_does_not_pass_its_check(checkpoints, tmp_path, monkeypatch):
    net = frugalseg.load(checkpoints["largefov"])
    graph = graph_of(net)
    facts = facts_of(net, graph, None)

    def opened(shift):
        def answer(image):
            with torch.no_grad():
                return [graph(torch.from_numpy(image)).numpy() + shift]

        return lambda path: (answer, facts)

    monkeypatch.setattr(exporting, "open_torch", opened(0.0))
    assert [each.difference for each in check(tmp_path, "torch", net, [(20, 31)])] == [0.0]
    monkeypatch.setattr(exporting, "open_torch", opened(1.0))
    with pytest.raises(CheckpointError, match="do not use it"):
        check(tmp_path, "torch", net, [(20, 31)])


def test_pixels_are_filled_up_with_the_mean_colour():
    facts = {"multiple": 16, "mean": MEAN}
    image = picture(20, 32)
    canvas = padded_pixels(image, facts)
    assert canvas.shape == (1, 3, 32, 32) and canvas.dtype == np.float32
    assert np.array_equal(canvas[0, :, :20].transpose(1, 2, 0), image.astype(np.float32))
    assert np.allclose(canvas[0, :, 20:], 255 * np.array(MEAN)[:, None, None])
    assert json.loads(json.dumps(facts))["multiple"] == 16
    assert np.array_equal(padded_pixels(image, {"multiple": 1, "mean": MEAN})[0].transpose(1, 2, 0), image)


@pytest.mark.parametrize("name", ["largefov", "mevt", "cti"])
def test_graphs_normalise_to_the_very_bits_of_the_predictor(checkpoints, name):
    net = frugalseg.load(checkpoints[name])
    image = picture(64, 96)
    own = graph_of(net).normalised(torch.from_numpy(padded_pixels(image, {"multiple": 1, "mean": MEAN})))
    assert torch.equal(own[0], torch.from_numpy(net._normaliser.pair(image)[0]))
