"""`frugalseg evaluate` as a user calls it: any benchmark, maps and masks, figures, and what is said about bad input."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from frugalseg.analysis.maps import read_maps
from frugalseg.analysis.masks import label_panel
from frugalseg.analysis.pictures import map_panel
from frugalseg.analysis.token_pictures import THRESHOLD, stacked, token_panel
from frugalseg.cli import main
from frugalseg.commands.data_settings import build_data
from frugalseg.data import ADE20K, COCO, Segment
from frugalseg.data.coco_masks import make_masks
from frugalseg.data.io import read_mask, write_mask
from frugalseg.data.voc import class_table, index
from frugalseg.errors import ConfigError
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.coco import write_coco_world
from frugalseg.ops.boundary import boundary_counts, boundary_iou
from frugalseg.ops.confusion import confusion_matrix, iou, mean_iou
from frugalseg.ops.palette import voc_palette

UNDECIDED = 4
"""Rows of 255 in masks that are shifted by an odd number."""


def shifted(ids, by):
    moved = np.roll(ids, by, axis=1)
    moved[: UNDECIDED * (by % 2)] = 255
    return moved


def write_masks(folder, samples, num_classes, by=0, run="r"):
    """Label masks: the truth, shifted."""
    for sample in samples:
        ids = read_mask(sample.mask, num_classes, code=sample.code)
        write_mask(folder / f"{sample.id}.png", shifted(ids, by), voc_palette(), run)
    return folder


def write_maps(folder, samples, num_classes, names=("m0", "mw", "mp")):
    """Maps of an image's tags, strong where the class is and noisy everywhere."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for sample in samples:
        truth = read_mask(sample.mask, num_classes, code=sample.code)
        keys = np.array([0, *(tag + 1 for tag in sample.tags)])
        maps = {n: np.stack([(truth == k) + rng.random(truth.shape) for k in keys]).astype(np.float16) for n in names}
        np.savez(folder / f"{sample.id}.npz", keys=keys.astype(np.uint8), **maps)
    return folder


@pytest.fixture(scope="module")
def scene(world, tmp_path_factory):
    """Maps and two folders of masks of the VOC world's training images."""
    root = tmp_path_factory.mktemp("scene")
    samples, classes = index(world, "train"), class_table(world).num_classes
    maps = write_maps(root / "maps", samples, classes)
    return {
        "maps": maps,
        "labels": write_masks(root / "labels", samples, classes, 2),
        "crf": write_masks(root / "crf", samples, classes, 1),
        "samples": samples,
        "classes": classes,
    }


def evaluate(out, *words):
    assert main(["evaluate", "--out", str(out), *map(str, words)]) == 0
    return json.loads((out / "metrics.json").read_text())


def test_masks_of_the_segmenter_and_of_a_stage(scene, world, tmp_path, capsys):
    words = ("--masks", scene["labels"], "--masks", f"crf={scene['crf']}", "--root", world)
    metrics = evaluate(tmp_path / "out", *words, "--pictures", "1")
    names = class_table(world).names
    for name, by in (("", 2), ("crf", 1)):
        counts, near = 0, 0
        for sample in scene["samples"]:
            truth = read_mask(sample.mask, len(names)).astype(np.int64)
            labels = shifted(truth, by)
            tensors = [torch.as_tensor(np.where(labels == 255, 0, labels)), torch.as_tensor(truth)]
            counts = counts + confusion_matrix(*tensors, len(names))
            near = near + boundary_counts(*tensors, len(names))
        end = f"_{name}" if name else ""
        assert metrics[f"train/miou{end}"] == mean_iou(counts)
        assert metrics[f"train/boundary_iou{end}"] == pytest.approx(np.nanmean(boundary_iou(near)), abs=1e-12)
        assert metrics.get(f"train/ignored{end}", 0) == pytest.approx(UNDECIDED / 64 * (by % 2), abs=1e-12)
        for label, score in zip(names, iou(counts), strict=True):
            assert metrics.get(f"train/iou{end}/{label}", np.nan) == pytest.approx(score, nan_ok=True)
        assert {f"train/miou{end}_{group}" for group in ("head", "middle", "tail")} <= set(metrics)
    saved = np.load(tmp_path / "out/confusion.npz")
    assert set(saved) == {"masks", "crf"}
    assert {p.name for p in (tmp_path / "out/figures").iterdir()} == {
        "classes.png", "confusion_masks.png", "confusion_crf.png"
    }  # fmt: skip
    assert len(list((tmp_path / "out/pictures").iterdir())) == 1
    printed = capsys.readouterr()
    assert f"{100 * metrics['train/miou_crf']:.1f}" in printed.out
    assert "scored 24 images" in printed.err and "ms an image" in printed.err


def test_a_sweep_is_a_curve_a_table_and_two_keys(scene, world, tmp_path):
    words = ("--maps", scene["maps"], "--root", world, "--sweep", "mw,sum", "--thresholds", "0.1:0.9:0.1", "--quiet")
    metrics = evaluate(tmp_path / "out", *words, "--masks", f"crf={scene['crf']}", "--pictures", "1")
    with (tmp_path / "out/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["threshold"]) for row in rows] == pytest.approx([*np.arange(1, 10) / 10] * 2)
    for name in ("mw", "sum"):
        curve = {float(row["threshold"]): float(row["miou"]) for row in rows if row["map"] == name}
        assert metrics[f"train/miou_{name}_best"] == max(curve.values()) == curve[metrics[f"train/threshold_{name}"]]
        assert len(set(curve.values())) > 5
    assert {"train/miou_m0", "train/miou_sum", "train/miou_tags", "train/miou_crf", "train/miou_chance"} <= set(metrics)
    figures = {p.name for p in (tmp_path / "out/figures").iterdir()}
    assert figures == {"classes.png", "thresholds.png", "confusion_sum.png", "confusion_crf.png"}
    assert all(Image.open(p).size[0] > 300 for p in (tmp_path / "out/figures").iterdir())


def test_maps_of_cti_alone(scene, world, tmp_path):
    maps = write_maps(tmp_path / "maps", scene["samples"], scene["classes"], names=("cam",))
    metrics = evaluate(tmp_path / "out", "--maps", maps, "--root", world, "--sweep", "cam", "--no-figures", "--quiet")
    assert 0 < metrics["train/miou_cam_best"] < 1 and "train/threshold_cam" in metrics
    assert not any("/miou_m" in key for key in metrics) and not (tmp_path / "out/figures").exists()


TOKENS = ("cam", "r", "mt", "f", "q", "infused")


@pytest.fixture(scope="module")
def tokens(scene, tmp_path_factory):
    """Maps of CTI, from 0 to 1, with all that the seed map is made of; no threshold parts classes from background."""
    folder = write_maps(tmp_path_factory.mktemp("tokens") / "maps", scene["samples"], scene["classes"], TOKENS)
    rng = np.random.default_rng(1)
    for path in folder.iterdir():
        arrays = dict(np.load(path))
        for name in TOKENS:
            noisy = np.clip(arrays[name] - 0.7, 0, 1) + 0.6 * rng.random(arrays[name].shape)
            arrays[name] = (noisy / noisy.max(axis=(1, 2), keepdims=True)).astype(np.float16)
        np.savez(path, **arrays)
    return folder


def test_parts_of_ctis_seed_map_are_swept_drawn_and_shown(scene, tokens, world, tmp_path, capsys):
    words = ("--maps", tokens, "--root", world, "--sweep", "cam,r,f,q", "--masks", f"crf={scene['crf']}")
    metrics = evaluate(tmp_path / "out", *words, "--pictures", "2")
    counts = np.load(tmp_path / "out/confusion.npz")
    assert set(counts) == {"tags", "chance", "crf", *(f"{name}_best" for name in ("cam", "r", "f", "q"))}
    for name in counts:
        row = counts[name][0]
        assert metrics[f"train/miou_{name}"] == mean_iou(counts[name])
        assert metrics[f"train/false_positive_{name}"] == pytest.approx(row[1:].sum() / row.sum(), abs=1e-15)
    assert 0 < metrics["train/false_positive_cam_best"] < metrics["train/false_positive_tags"] == 1
    figures = {p.name for p in (tmp_path / "out/figures").iterdir()}
    assert figures == {"classes.png", "thresholds.png", "confusion_cam_best.png", "confusion_crf.png"}
    printed = capsys.readouterr().out
    assert "false positives" in printed and "Q = pa F, best threshold" in printed
    names, palette = class_table(world).names, voc_palette()
    for sample in [s for s in scene["samples"] if s.mask is not None][:2]:
        panel = token_panel(
            sample, read_maps(tokens / f"{sample.id}.npz"), names, palette, metrics["train/threshold_cam"]
        )
        labels = label_panel(sample, {"crf": scene["crf"]}, names, palette)
        found = np.asarray(Image.open(tmp_path / f"out/pictures/{sample.id}.png"))
        np.testing.assert_array_equal(found, stacked([panel, labels]))


def test_a_map_that_is_not_swept_is_shown_at_the_usual_threshold(scene, tokens, world, tmp_path):
    evaluate(tmp_path / "out", "--maps", tokens, "--root", world, "--sweep", "q", "--pictures", "1", "--quiet")
    assert "confusion_q_best.png" in {p.name for p in (tmp_path / "out/figures").iterdir()}
    (path,) = (tmp_path / "out/pictures").iterdir()
    sample = next(s for s in scene["samples"] if s.id == path.stem)
    panel = token_panel(
        sample, read_maps(tokens / f"{sample.id}.npz"), class_table(world).names, voc_palette(), THRESHOLD
    )
    np.testing.assert_array_equal(np.asarray(Image.open(path)), panel)


def test_panels_of_sfc_stand_beside_those_of_masks(scene, world, tmp_path):
    words = ("--maps", scene["maps"], "--root", world, "--masks", f"crf={scene['crf']}", "--rules", "sum,m0")
    metrics = evaluate(tmp_path / "out", *words, "--pictures", "1", "--quiet")
    figures = {p.name for p in (tmp_path / "out/figures").iterdir()}
    assert figures == {"classes.png", "confusion_sum.png", "confusion_crf.png"}
    (path,) = (tmp_path / "out/pictures").iterdir()
    sample, names, palette = (
        next(s for s in scene["samples"] if s.id == path.stem),
        class_table(world).names,
        voc_palette(),
    )
    panels = [
        map_panel(sample, scene["maps"], names, palette), label_panel(sample, {"crf": scene["crf"]}, names, palette)
    ]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.concatenate(panels, axis=1))
    assert {f"train/false_positive_{name}" for name in ("m0", "sum", "tags", "crf")} <= set(metrics)


def test_maps_of_cti_without_a_sweep_end_in_one_line(tokens, world, tmp_path, capsys):
    assert main(["evaluate", "--out", str(tmp_path / "out"), "--maps", str(tokens), "--root", str(world)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("frugalseg: error: ")
    assert line.endswith("it holds cam, r, mt, f, q, infused; set --sweep cam")


def test_workers_change_nothing_and_new_masks_do(scene, world, tmp_path, capsys):
    labels = write_masks(tmp_path / "labels", scene["samples"], scene["classes"], 2)
    words = ("--masks", labels, "--root", world, "--no-figures", "--quiet")
    one = evaluate(tmp_path / "one", *words, "--workers", "1")
    assert evaluate(tmp_path / "two", *words, "--workers", "2") == one
    capsys.readouterr()
    evaluate(tmp_path / "one", *words, "--workers", "2")
    assert "up to date" in capsys.readouterr().err
    write_masks(labels, scene["samples"], scene["classes"], 0)
    assert evaluate(tmp_path / "one", *words)["train/miou"] > one["train/miou"]
    assert "configuration or inputs changed" in capsys.readouterr().err


# ---------------------------------------------------------------------- other benchmarks


def test_coco_by_data_settings(tmp_path):
    root = write_coco_world(tmp_path / "coco", 6, 2, seed=0)
    for folder in ("train2014", "val2014"):
        make_masks(root, folder, workers=1)
    data = COCO(root, Segment())
    labels = write_masks(tmp_path / "labels", data.index("train"), data.num_classes, 2)
    words = ("--data", "COCO", "--data.init_args.root", root, "--masks", f"seed_labels={labels}", "--quiet")
    metrics = evaluate(tmp_path / "out", *words)
    assert 0 < metrics["train/miou_seed_labels"] < 1
    assert any(key.startswith("train/miou_seed_labels_") for key in metrics)


def test_ade20k_by_a_file_its_masks_decoded_and_without_groups(tmp_path):
    root = write_ade20k_world(tmp_path / "ade", images_train=2, images_val=2, seed=0)
    data = ADE20K(root, Segment())
    config = tmp_path / "data.yaml"
    config.write_text(yaml.safe_dump({"data": {"class_path": "ADE20K", "init_args": {"root": str(root)}}}))
    samples = data.index("val")
    for sample in samples:
        ids = read_mask(sample.mask, data.num_classes, code=sample.code)
        right = np.where(ids == 255, 5, ids).astype(np.uint8)
        write_mask(tmp_path / f"labels/{sample.id}.png", right, voc_palette())
    words = ("--config", config, "--split", "val", "--masks", tmp_path / "labels", "--quiet")
    metrics = evaluate(tmp_path / "out", *words)
    assert metrics["val/miou"] == metrics["val/pixel_accuracy"] == metrics["val/boundary_iou"] == 1
    assert not any("false_positive" in key for key in metrics)  # its class 0 is a class as any other
    assert json.loads((tmp_path / "out/groups.json").read_text()) == {}
    write_mask(tmp_path / f"labels/{samples[0].id}.png", np.full(ids.shape, 255, np.uint8), voc_palette())
    assert main(["evaluate", "--out", str(tmp_path / "b"), *map(str, words)]) == 2


def test_the_recipe_is_left_to_the_verb_only_where_none_is_given(world):
    words = ["--data", "VOC", "--data.init_args.root", str(world)]
    assert isinstance(build_data([], words, "evaluate", recipe="Segment").recipe, Segment)
    given = [*words, "--data.init_args.recipe", "Tags", "--data.init_args.recipe.init_args.crop", "40"]
    assert build_data([], given, "evaluate", recipe="Segment").recipe.crop == 40
    with pytest.raises(ConfigError, match="frugalseg crf"):
        build_data([], [], "crf")


# ---------------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs --maps DIR or --masks NAME=DIR"),
        (["--masks", "crf=a", "--masks", "crf=b"], "a and b both have the name 'crf'"),
        (["--masks", "a", "--masks", "=b"], "a and b both have the name ''"),
        (["--masks", "crf="], "names no folder"),
        (["--masks", "mw=a"], "another score has it"),
        (["--masks", "infused=a"], "another score has it"),
        (["--masks", "crf_head=a"], "another score has it"),
        (["--masks", "c-r-f=a"], "odd signs"),
        (["--masks", "none/x=1/labels"], "none/x=1/labels: no such folder"),
        (["--masks", "a", "--sweep", "mw"], "--sweep is of maps"),
        (["--masks", "a", "--parts"], "--parts is of maps"),
        (["--masks", "a", "--views"], "--views is of maps"),
        (["--maps", "{maps}", "--sweep", "mw,best"], "--sweep: best unknown; choose from m0"),
        (["--maps", "{maps}", "--sweep", "cam"], "cannot be swept for cam, it holds m0, mw, mp"),
        (["--maps", "{maps}", "--thresholds", "0:1"], "0:1 is not LO:HI:STEP"),
        (["--maps", "{maps}", "--thresholds", "0:1:0"], "0:1:0 is not LO:HI:STEP"),
        (["--maps", "{maps}", "--thresholds=-1:1:0.5"], "-1:1:0.5 is not LO:HI:STEP"),
        (["--maps", "{maps}", "--thresholds", "0:1:1e-9"], "at most 1000 steps"),
        (["--maps", "{maps}", "--thresholds", "0:inf:nan"], "is not LO:HI:STEP"),
        (["--maps", "{maps}", "--workers", "0"], "--workers: 0"),
        (["--maps", "{maps}", "--limit", "-3"], "--limit: -3"),
        (["--maps", "{maps}", "twice"], "twice: no such setting"),
        (["--maps", "{maps}", "--colour", "red"], "--colour: no such setting"),
        (["--maps", "{maps}", "--data", "VOC"], "--root is VOC's"),
    ],
)
def test_words_that_are_wrong(capsys, scene, world, tmp_path, words, told):
    words = [word.format(maps=scene["maps"]) for word in words]
    assert main(["evaluate", "--out", str(tmp_path / "out"), "--root", str(world), *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("frugalseg: error: ") and told in line
    assert not (tmp_path / "out/metrics.json").exists()


def test_without_a_data_set(capsys, scene, tmp_path):
    assert main(["evaluate", "--out", str(tmp_path / "out"), "--maps", str(scene["maps"])]) == 2
    assert "--root ROOT" in capsys.readouterr().err


def test_maps_need_a_background(capsys, scene, tmp_path):
    root = write_ade20k_world(tmp_path / "ade", images_train=1, images_val=1, seed=0)
    words = ["--data", "ADE20K", "--data.init_args.root", str(root), "--maps", str(scene["maps"])]
    assert main(["evaluate", "--out", str(tmp_path / "out"), *words]) == 2
    assert "ADE20K has none" in capsys.readouterr().err


def test_parts_need_image_level_labels(capsys, scene, world, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(world, bare)
    for name in ("2012_000001", "2012_000002"):
        (bare / f"Annotations/{name}.xml").unlink()
    words = ["--root", str(bare), "--maps", str(scene["maps"]), "--parts"]
    assert main(["evaluate", "--out", str(tmp_path / "out"), *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 24 images have no image-level labels, first 2012_000001, 2012_000002" in line


def test_help_says_what_undecided_pixels_count_as(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--help"])
    assert stop.value.code == 0
    assert "255" in capsys.readouterr().out
