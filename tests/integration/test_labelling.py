"""`frugalseg crf` and `frugalseg walk`: what they write, that they go on, and what a run's name depends on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from frugalseg.cli import main
from frugalseg.commands import label_gpu, label_work
from frugalseg.commands.crf import CrfLabeller, CrfSettings
from frugalseg.commands.walk import WalkLabeller, WalkSettings
from frugalseg.data.io import image_size, made_by, read_image, read_mask, write_mask
from frugalseg.data.voc import class_table, index
from frugalseg.miniature.voc import write_voc_world
from frugalseg.ops.crf import Kernels, dense_crf
from frugalseg.ops.palette import voc_palette
from frugalseg.ops.seeds import alpha_unary, crf_labels, psa_seed_labels, sfc_seed_labels, threshold_seed_labels
from frugalseg.ops.walk_labels import irn_label, psa_label, sfc_label
from frugalseg.run import write_arrays
from tests.conftest import REPOSITORY, hear_ctrl_c
from tests.integration.conftest import EXPERIMENTS
from tests.integration.labelling import make_folders, soft_maps, true_edges


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    return write_voc_world(tmp_path_factory.mktemp("world") / "VOC2012", images_train=8, images_val=2, seed=5)


@pytest.fixture
def folders(small_world, tmp_path):
    return make_folders(small_world, tmp_path)


def labels_of(folder, sample):
    with Image.open(folder / f"{sample.id}.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3), voc_palette())
        return np.asarray(image)


def arrays_of(folders, sample):
    with np.load(folders.maps / f"{sample.id}.npz") as archive:
        maps = {name: torch.as_tensor(archive[name].astype(np.float32)) for name in ("m0", "mw", "mp")}
        return torch.as_tensor(archive["keys"].astype(np.int64)), maps


def unit(scores):
    """Foreground over each map's maximum."""
    return torch.stack([m / m.max() for m in scores[1:]])


def written(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def accuracy(folders, kind):
    """Share of known pixels that are right."""
    right = known = 0
    for sample in folders.samples:
        ids, truth = labels_of(kind, sample), folders.truth(sample)
        right += int(((ids == truth) & (ids != 255)).sum())
        known += int((ids != 255).sum())
    return right / known


# ---------------------------------------------------------------------- what is written


def test_crf_writes_the_labels_of_its_rules(folders):
    assert main(folders.words("crf", "--crf.kinds=[crf,seed_labels,psa]", "--crf.iterations=4")) == 0
    for sample in folders.samples:
        keys, maps = arrays_of(folders, sample)
        image = torch.tensor(read_image(sample.image))
        refine = partial(crf_labels, image=image, num_labels=len(keys), iterations=4)
        plain, seed = maps["mw"] + maps["mp"], maps["mw"] + 0.7 * maps["mp"]
        soft = [dense_crf(image, alpha_unary(unit(plain), alpha), iterations=4) for alpha in (4, 24)]
        expected = {
            "crf": keys[refine(plain.argmax(dim=0))],
            "seed_labels": sfc_seed_labels(seed, keys, refine),
            "psa": psa_seed_labels(*soft, keys),
        }
        for kind, labels in expected.items():
            np.testing.assert_array_equal(labels_of(folders.out / kind, sample), labels.numpy(), err_msg=kind)
    assert {p.name for p in folders.out.iterdir()} == {
        "crf", "seed_labels", "psa", "metrics.json", "done.json", "provenance.json",
    }  # fmt: skip


def test_crf_with_constants_and_probabilities(folders):
    settings = ["--crf.background=0.4", "--crf.seeds=threshold", "--crf.high=0.5", "--crf.low=0.2", "--crf.rule=mw",
                "--crf.seed_rule=mp", "--crf.iterations=3", "--crf.gt_prob=0.6"]  # fmt: skip
    assert main(folders.words("crf", *settings, "--crf.kernels.bilateral_srgb=20")) == 0
    soft = ["--crf.kinds=[crf]", "--crf.alpha=6", "--crf.iterations=3", "--crf.rule=mw"]
    assert main(folders.words("crf", *soft, out=folders.out.with_name("soft"))) == 0
    for sample in folders.samples:
        keys, maps = arrays_of(folders, sample)
        image = torch.tensor(read_image(sample.image))
        kernels = Kernels(bilateral_srgb=20)
        refine = partial(crf_labels, image=image, num_labels=len(keys), kernels=kernels, iterations=3, gt_prob=0.6)
        foreground = unit(maps["mw"])
        rows = torch.cat([torch.full_like(foreground[:1], 0.4), foreground]).argmax(dim=0)
        np.testing.assert_array_equal(labels_of(folders.out / "crf", sample), keys[refine(rows)])
        seeds = threshold_seed_labels(unit(maps["mp"]), keys, refine, 0.5, 0.2)
        np.testing.assert_array_equal(labels_of(folders.out / "seed_labels", sample), seeds)
        rows = dense_crf(image, alpha_unary(foreground, 6), iterations=3).argmax(dim=0)
        np.testing.assert_array_equal(labels_of(folders.out.with_name("soft") / "crf", sample), keys[rows])


def test_maps_without_a_background_follow_the_rule_cam(folders):
    for sample in folders.samples:
        with np.load(folders.maps / f"{sample.id}.npz") as archive:
            cam = archive["mw"].astype(np.float32) / 1.6 - 0.05  # beyond 0..1 on both sides
        cam[0] = 77  # not used
        folders.rewrite(sample, m0=None, mw=None, mp=None, cam=cam.astype(np.float16))
    cti = EXPERIMENTS / "cti/voc"
    config = ["--data.init_args.root", folders.world]
    assert main(folders.words("crf", "--config", cti / "seeds.yaml", *config, "--crf.iterations=2")) == 0
    words = folders.words(
        "walk", "--config", cti / "labels.yaml", *config, "--walk.steps=32", out=folders.out.with_name("walk")
    )
    assert main(words) == 0
    for sample in folders.samples:
        with np.load(folders.maps / f"{sample.id}.npz") as archive:
            cam, keys = torch.as_tensor(archive["cam"].astype(np.float32)), torch.tensor(archive["keys"].astype(int))
        with np.load(folders.edges / f"{sample.id}.npz") as archive:
            edge = torch.as_tensor(archive["edge"])
        image = torch.tensor(read_image(sample.image))
        refine = partial(crf_labels, image=image, num_labels=len(keys), iterations=2)
        cam = cam.clamp(0, 1)
        seeds = threshold_seed_labels(cam[1:], keys, refine, 0.40, 0.26)
        np.testing.assert_array_equal(labels_of(folders.out / "seed_labels", sample), seeds)
        labels = irn_label(cam, edge, keys, steps=32)
        np.testing.assert_array_equal(labels_of(folders.out.with_name("walk") / "refined", sample), labels)


def test_walk_writes_the_labels_of_both_rules(folders):
    settings = ["--walk.steps=64", "--walk.beta=8", "--walk.radius=4", "--walk.background=0.3",
                "--walk.exponent=1.2", "--walk.second_exponent=1.5", "--walk.refined_exponent=1.1"]  # fmt: skip
    assert main(folders.words("walk", *settings)) == 0
    for sample in folders.samples:
        keys, maps = arrays_of(folders, sample)
        with np.load(folders.edges / f"{sample.id}.npz") as archive:
            edge = torch.as_tensor(archive["edge"])
        scores = maps["mw"] + 0.3 * maps["mp"]
        walk = {"steps": 64, "beta": 8, "radius": 4, "background": 0.3}
        refined = irn_label(scores, edge, keys, exponent=1.1, **walk)
        pseudo = sfc_label(scores, edge, keys, exponent=1.2, second_exponent=1.5, **walk)
        np.testing.assert_array_equal(labels_of(folders.out / "refined", sample), refined)
        np.testing.assert_array_equal(labels_of(folders.out / "pseudo", sample), pseudo)


def test_walk_along_affinities(folders):
    rng = np.random.default_rng(0)
    for sample in folders.samples:
        affinity = rng.random((34, 8, 8), np.float32)
        write_arrays(folders.edges / f"{sample.id}.npz", {"affinity": affinity})
    settings = ["--walk.kinds=[refined]", "--walk.rule=mw", "--walk.background=0.4", "--walk.beta=8", "--walk.steps=64"]
    assert main(folders.words("walk", *settings)) == 0
    for sample in folders.samples:
        keys, maps = arrays_of(folders, sample)
        with np.load(folders.edges / f"{sample.id}.npz") as archive:
            affinity = torch.as_tensor(archive["affinity"])
        labels = psa_label(unit(maps["mw"]), affinity, keys, background=0.4)
        np.testing.assert_array_equal(labels_of(folders.out / "refined", sample), labels)
    assert not (folders.out / "pseudo").exists()


def test_labels_come_closer_to_the_truth(folders):
    """Maps are blurred truth; the pictures and true edges, as fine as the miniature's net has them, sharpen them."""
    rng = np.random.default_rng(1)
    for sample in folders.samples:
        truth, (keys, _) = folders.truth(sample), arrays_of(folders, sample)
        soft = soft_maps(truth, keys.numpy(), rng, blur=8)
        folders.rewrite(sample, mw=soft, mp=soft)
        folders.rewrite(sample, "edges", edge=true_edges(truth, stride=2))
    none, walk = folders.out.with_name("none"), folders.out.with_name("walk")
    assert main(folders.words("crf", "--crf.iterations=0", out=none)) == 0
    mini, root = EXPERIMENTS / "miniature/sfc", f"--data.init_args.root={folders.world}"
    assert main(folders.words("crf", "--config", mini / "seeds.yaml", root)) == 0
    assert main(folders.words("walk", "--config", mini / "labels.yaml", root, out=walk)) == 0
    before = accuracy(folders, none / "crf")
    for kind in (folders.out / "crf", folders.out / "seed_labels", walk / "refined", walk / "pseudo"):
        assert accuracy(folders, kind) > before + 0.005, kind


def test_metrics_count_unknown_pixels_and_seconds(folders):
    assert main(folders.words("crf", "--crf.iterations=2")) == 0
    metrics = json.loads((folders.out / "metrics.json").read_text())
    unknown = {
        kind: np.mean([(labels_of(folders.out / kind, s) == 255).mean() for s in folders.samples])
        for kind in ("crf", "seed_labels")
    }
    assert metrics["train/unknown_crf"] == unknown["crf"] == 0
    assert metrics["train/unknown_seed_labels"] == pytest.approx(unknown["seed_labels"])
    assert unknown["seed_labels"] > 0
    assert all(metrics[f"train/seconds_{name}"] > 0 for name in ("setup", "crf", "seed_labels"))
    assert metrics["train/images"] == len(folders.samples)


def test_every_file_says_which_run_made_it(folders):
    assert main(folders.words("crf", "--crf.iterations=1")) == 0
    digest = json.loads((folders.out / "done.json").read_text())["digest"]
    files = list(folders.out.rglob("*.png"))
    assert len(files) == 2 * len(folders.samples)
    assert {made_by(path) for path in files} == {digest}


def test_a_limit_of_the_data_holds(folders):
    assert main(folders.words("walk", "--data.init_args.limit=3", "--walk.steps=4")) == 0
    assert {p.stem for p in (folders.out / "pseudo").iterdir()} == {s.id for s in folders.samples[:3]}


# ---------------------------------------------------------------------- images without a class


@pytest.mark.parametrize("verb", ["crf", "walk"])
def test_images_without_tags_are_background_and_counted(folders, verb, caplog):
    bare = folders.samples[2]
    maps = {name: np.full((1, 64, 64), 0.7, np.float16) for name in ("m0", "mw", "mp")}
    folders.rewrite(bare, keys=np.array([0], np.uint8), **maps)
    kinds = {"crf": "[crf,seed_labels,psa]", "walk": "[refined,pseudo]"}[verb]
    quick = {"crf": "--crf.iterations=1", "walk": "--walk.steps=4"}[verb]
    with caplog.at_level("WARNING", logger="frugalseg"):
        assert main(folders.words(verb, f"--{verb}.kinds={kinds}", quick)) == 0
    assert f"1 of 8 images show no class, first {bare.id}: they are background everywhere" in caplog.text
    for kind in yaml.safe_load(kinds):
        assert (labels_of(folders.out / kind, bare) == 0).all()
        assert any((labels_of(folders.out / kind, s) != 0).any() for s in folders.samples)


# ---------------------------------------------------------------------- going on, and when to begin anew


@pytest.mark.parametrize("verb", ["crf", "walk"])
def test_any_number_of_processes_writes_the_same(folders, verb):
    quick = {"crf": "--crf.iterations=3", "walk": "--walk.steps=32"}[verb]
    for workers in (1, 2):
        assert main(folders.words(verb, quick, out=folders.out / str(workers), workers=workers)) == 0
    assert written(folders.out / "1") == written(folders.out / "2")


def test_what_is_done_is_left_alone(folders, capsys):
    words = folders.words("crf", "--crf.iterations=1")
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in folders.out.rglob("*.png")}
    assert main(folders.words("crf", "--crf.iterations=1", "--device=auto", "--batch=2", workers=2)) == 0
    assert f"{folders.out}: up to date" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folders.out.rglob("*.png")} == before


@pytest.mark.parametrize("change", ["setting", "maps", "split", "world"])
def test_another_run_moves_aside_what_was_there(folders, capsys, change, tmp_path):
    """Labels of two runs never share a folder."""
    shutil.copytree(folders.world, tmp_path / "world")
    folders = replace(folders, world=tmp_path / "world")
    assert main(folders.words("crf", "--crf.iterations=1")) == 0
    old = made_by(folders.out / "crf" / f"{folders.samples[0].id}.png")
    words = folders.words("crf", "--crf.iterations=1")
    if change == "setting":
        words.append("--crf.gt_prob=0.8")
    elif change == "split":
        words.append("--data.init_args.limit=5")
    elif change == "world":  # of the same ids and classes
        (folders.world / "world.json").write_text("{}")
    else:
        folders.rewrite(folders.samples[0], m0=None)
    assert main(words) == 0
    assert "the old run is now" in capsys.readouterr().err
    aside = next(path for path in folders.out.parent.iterdir() if ".old-" in path.name)
    assert {made_by(path) for path in aside.rglob("*.png")} == {old}
    assert old not in {made_by(path) for path in folders.out.rglob("*.png")}


def test_edges_are_part_of_a_runs_name(folders, capsys):
    assert main(folders.words("walk", "--walk.steps=4")) == 0
    folders.rewrite(folders.samples[0], "edges", edge=np.zeros((16, 16), np.float32))
    assert main(folders.words("walk", "--walk.steps=4")) == 0
    assert "the old run is now" in capsys.readouterr().err


def test_one_thread_per_image_and_as_many_as_before_afterwards(folders, monkeypatch):
    seen = []
    write = label_work.Target.write
    monkeypatch.setattr(label_work.Target, "write", lambda *args: seen.append(torch.get_num_threads()) or write(*args))
    torch.set_num_threads(2)
    assert main(folders.words("walk", "--walk.steps=4", "--data.init_args.limit=2")) == 0
    assert seen == [1, 1]
    assert torch.get_num_threads() == 2


def test_ctrl_c_and_going_on(folders, monkeypatch, capsys, caplog):
    words = folders.words("crf", "--crf.iterations=1")
    write = label_work.Target.write

    def stop_after_three(self, sample, *args):
        if sample.id == folders.samples[3].id:
            write_mask(self.out / "crf" / f"{sample.id}.png", np.zeros((64, 64), np.uint8), voc_palette(), self.run)
            raise KeyboardInterrupt
        return write(self, sample, *args)

    monkeypatch.setattr(label_work.Target, "write", stop_after_three)
    assert main(words) == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg")]
    assert lines == ["frugalseg: stopped; the same command goes on from here"]
    assert not (folders.out / "done.json").exists()
    first = {path: path.stat().st_mtime_ns for path in folders.out.rglob("*.png")}
    assert len(first) == 3 * 2 + 1
    monkeypatch.setattr(label_work.Target, "write", write)
    assert main(words) == 0
    half = folders.out / "crf" / f"{folders.samples[3].id}.png"
    assert {path for path, when in first.items() if path.stat().st_mtime_ns != when} == {half}
    assert main(folders.words("crf", "--crf.iterations=1", out=folders.out.with_name("whole"))) == 0
    for kind in ("crf", "seed_labels"):
        for sample in folders.samples:
            np.testing.assert_array_equal(
                labels_of(folders.out / kind, sample), labels_of(folders.out.with_name("whole") / kind, sample)
            )
    metrics = [json.loads((out / "metrics.json").read_text()) for out in (folders.out, folders.out.with_name("whole"))]
    unknown = [{k: v for k, v in found.items() if "unknown" in k or "images" in k} for found in metrics]
    assert unknown[0] == unknown[1]  # those that were there are counted too
    assert "show no class" not in caplog.text


def test_damaged_and_foreign_files_are_made_again(folders):
    words = folders.words("crf", "--crf.iterations=1")
    assert main(words) == 0
    whole = written(folders.out)
    damaged, foreign, gone = (folders.out / "crf" / f"{s.id}.png" for s in folders.samples[:3])
    damaged.write_bytes(damaged.read_bytes()[:50])
    write_mask(foreign, np.zeros((64, 64), np.uint8), voc_palette(), "another run")
    gone.unlink()
    (folders.out / "seed_labels" / ".x.png.999999999.tmp").write_bytes(b"left over")
    (folders.out / "done.json").unlink()
    assert main(words) == 0
    assert written(folders.out) == whole
    assert not list(folders.out.rglob("*.tmp"))


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(small_world, tmp_path):
    folders = make_folders(small_world, tmp_path)
    words = folders.words("crf", "--crf.iterations=3000", workers=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "frugalseg", *words], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(folders.out.rglob("[!.]*.png"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "frugalseg: stopped; the same command goes on from here"
    there = written(folders.out)
    assert 0 < len(there) < 2 * len(folders.samples)
    assert not list(folders.out.rglob("*.tmp"))


# ---------------------------------------------------------------------- batches, as on a GPU


def on_device(labeller, folders, size, device="cpu"):
    target = label_work.Target(folders.out, labeller.kinds, class_table(folders.world), "run")
    seen = []
    made = label_gpu.label_on_gpu(
        labeller, target, folders.samples, torch.device(device), 2, size, lambda *done: seen.append(done)
    )
    assert seen[-1] == (len(folders.samples), len(folders.samples))
    assert [made[place].id for place in range(len(made))] == [sample.id for sample in folders.samples]
    return [made[place] for place in range(len(made))]


@pytest.mark.parametrize("size", [1, 3])
def test_batches_give_the_labels_of_single_images(folders, size):
    crf = CrfSettings(kinds=("crf", "seed_labels", "psa"), iterations=3)
    assert (
        main(
            folders.words(
                "crf", "--crf.kinds=[crf,seed_labels,psa]", "--crf.iterations=3", out=folders.out.with_name("one")
            )
        )
        == 0
    )
    on_device(CrfLabeller(crf.kinds, folders.maps, folders.num_classes, crf), folders, size)
    for sample in folders.samples:
        for kind in crf.kinds:
            np.testing.assert_array_equal(
                labels_of(folders.out / kind, sample), labels_of(folders.out.with_name("one") / kind, sample)
            )


def test_walks_of_batches_give_the_labels_of_single_images(folders):
    walk = WalkSettings(steps=16)
    on_device(WalkLabeller(walk.kinds, folders.maps, folders.num_classes, walk, folders.edges, "edge"), folders, 3)
    assert main(folders.words("walk", "--walk.steps=16", out=folders.out.with_name("one"))) == 0
    for sample in folders.samples:
        for kind in walk.kinds:
            np.testing.assert_array_equal(
                labels_of(folders.out / kind, sample), labels_of(folders.out.with_name("one") / kind, sample)
            )


def test_batches_go_on_too(folders):
    settings = CrfSettings(iterations=1)
    labeller = CrfLabeller(settings.kinds, folders.maps, folders.num_classes, settings)
    on_device(labeller, folders, 3)
    gone = folders.out / "crf" / f"{folders.samples[4].id}.png"
    gone.unlink()
    before = {path: path.stat().st_mtime_ns for path in folders.out.rglob("*.png")}
    made = on_device(labeller, folders, 3)
    assert [found.id for found in made if found.seconds] == [folders.samples[4].id]
    assert gone.is_file()
    other = folders.out / "seed_labels" / gone.name
    assert {path for path, when in before.items() if path.stat().st_mtime_ns != when} == {other}


def test_images_are_grouped_by_shape():
    shapes = [(4, 5, 2), (4, 5, 3), (4, 5, 2), (5, 4, 2), (4, 5, 2)]
    assert label_gpu.batches(shapes, 2) == [[0, 2], [4], [1], [3]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("verb", ["crf", "walk"])
def test_a_gpu_writes_what_cores_write(folders, verb):
    """All but a few pixels: sums of floats depend on their order."""
    quick = {"crf": "--crf.iterations=10", "walk": "--walk.steps=64"}[verb]
    for device in ("cpu", "cuda"):
        assert main(folders.words(verb, quick, "--device", device, "--batch=3", out=folders.out / device)) == 0
    same = [
        labels_of(path.parent, s) == labels_of(folders.out / "cuda" / path.parent.name, s)
        for s in folders.samples
        for path in (folders.out / "cpu").rglob(f"{s.id}.png")
    ]
    assert np.mean(same) > 0.999


# ---------------------------------------------------------------------- genuine photographs


@pytest.mark.real
def test_photographs_of_any_size(real_voc, tmp_path):
    """Sides that the edges' stride does not divide; labels that know more than to paint all background."""
    root = tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).symlink_to(real_voc / name)
    by_size = {}
    for sample in index(real_voc, "val"):
        ids = np.unique(read_mask(sample.mask, 21)).tolist()
        if [tag + 1 for tag in sample.tags] == [k for k in ids if k not in (0, 255)]:
            by_size.setdefault(image_size(sample.image), sample.id)
    odd = [name for size, name in by_size.items() if size[0] % 4 or size[1] % 4][:3]
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(odd) + "\n")
    folders = make_folders(root, tmp_path)
    walk = folders.out.with_name("walk")
    assert main(folders.words("crf", "--crf.iterations=2")) == 0
    assert main(folders.words("walk", out=walk)) == 0
    painted = 1 - np.mean([(folders.truth(sample) != 0).mean() for sample in folders.samples])
    for kind in (folders.out / "crf", folders.out / "seed_labels", walk / "refined", walk / "pseudo"):
        for sample in folders.samples:
            labels = labels_of(kind, sample)
            assert labels.shape == image_size(sample.image)
            assert set(np.unique(labels)) <= {*arrays_of(folders, sample)[0].tolist(), 255}
        assert accuracy(folders, kind) > painted, kind
