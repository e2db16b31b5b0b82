"""What can be wrong with maps, edges and settings of `frugalseg crf` and `walk`: one line, code 2, nothing half-written."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.cli import main
from frugalseg.commands.crf import CrfLabeller, CrfSettings
from frugalseg.commands.label_gpu import label_on_gpu
from frugalseg.commands.label_work import Target
from frugalseg.data.io import made_by
from frugalseg.data.voc import class_table
from frugalseg.errors import MapsError
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.miniature.voc import write_voc_world
from frugalseg.run import write_arrays
from tests.integration.labelling import make_folders, write_config
from tests.integration.test_bad_data import one_line

QUICK = {"crf": "--crf.iterations=1", "walk": "--walk.steps=4"}
both = pytest.mark.parametrize("verb", ["crf", "walk"])


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    return write_voc_world(tmp_path_factory.mktemp("world") / "VOC2012", images_train=7, images_val=2, seed=5)


@pytest.fixture
def folders(small_world, tmp_path):
    return make_folders(small_world, tmp_path)


def refused(capsys, folders, verb, *extra):
    """The line; what was written before it is whole, and nothing says that the stage is done."""
    line = one_line(capsys, folders.words(verb, QUICK[verb], *extra))
    assert not (folders.out / "done.json").exists()
    assert not list(folders.out.rglob("*.tmp"))
    for path in folders.out.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
    return line


def untouched(folders):
    return not folders.out.exists()


# ---------------------------------------------------------------------- files that are missing


@both
@pytest.mark.parametrize("count", [1, 6])
def test_missing_maps_are_counted_and_the_first_five_named(capsys, folders, verb, count):
    ids = [s.id for s in folders.samples]
    for name in ids[:count]:
        (folders.maps / f"{name}.npz").unlink()
    line = refused(capsys, folders, verb)
    assert f"{folders.maps}: maps of {count} of 7 images are missing, first {', '.join(ids[: min(count, 5)])};" in line
    assert "remove done.json beside the maps and make them again" in line
    assert (ids[5] in line) is False
    assert untouched(folders)


def test_missing_edges(capsys, folders):
    (folders.edges / f"{folders.samples[3].id}.npz").unlink()
    line = refused(capsys, folders, "walk")
    assert f"{folders.edges}: edges of 1 of 7 images are missing, first {folders.samples[3].id};" in line
    assert untouched(folders)


@both
def test_no_folder_of_maps(capsys, folders, verb):
    shutil.rmtree(folders.maps)
    assert f"{folders.maps}: no such folder; run the stage that makes the maps first" in refused(capsys, folders, verb)
    assert untouched(folders)


def test_no_folder_of_edges(capsys, folders):
    shutil.rmtree(folders.edges)
    assert f"{folders.edges}: no such folder; run the stage that makes the edges first" in refused(
        capsys, folders, "walk"
    )
    assert untouched(folders)


# ---------------------------------------------------------------------- maps


def change_maps(folders, change):
    """Change every map of the fourth image; returns its file."""
    sample = folders.samples[3]
    path = folders.maps / f"{sample.id}.npz"
    with np.load(path) as archive:
        maps = {name: change(archive[name]) for name in ("m0", "mw", "mp")}
    folders.rewrite(sample, **maps)
    return path


def nan(values):
    values = values.copy()
    values[-1, 3, 4] = np.nan
    return values


@both
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nan, "holds values that are not finite"),
        (lambda m: m[:, :0], "is empty"),
        (lambda m: m[:, :-4], "is 60x64 (HxW), but the image"),
        (lambda m: m.transpose(0, 2, 1)[:, :, :32], "is 64x32 (HxW), but the image"),
        (lambda m: m[:-1], "channels for"),
    ],
    ids=["nan", "zero-size", "smaller", "narrow", "channels"],
)
def test_wrong_maps_are_named(capsys, folders, verb, change, said):
    path = change_maps(folders, change)
    line = refused(capsys, folders, verb)
    assert f"{path}: " in line
    assert said in line
    assert not (folders.out / "crf" / f"{path.stem}.png").exists()


@both
def test_maps_of_another_benchmark(capsys, folders, verb):
    sample = folders.samples[3]
    with np.load(folders.maps / f"{sample.id}.npz") as archive:
        keys = archive["keys"].copy()
    keys[-1] = folders.num_classes
    folders.rewrite(sample, keys=keys)
    line = refused(capsys, folders, verb)
    assert f"{sample.id}.npz" in line
    assert f"{folders.num_classes} classes" in line
    assert "the maps belong to another benchmark" in line


@both
def test_a_class_below_the_background(capsys, folders, verb):
    sample = folders.samples[3]
    maps = {name: np.ones((2, 64, 64), np.float16) for name in ("m0", "mw", "mp")}
    folders.rewrite(sample, keys=np.array([0, -3], np.int16), **maps)
    line = refused(capsys, folders, verb)
    assert f"{sample.id}.npz: " in line
    assert "class -3" in line


@both
def test_a_damaged_file_of_maps(capsys, folders, verb):
    path = folders.maps / f"{folders.samples[1].id}.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path}: not readable" in refused(capsys, folders, verb)


def test_a_damaged_file_in_a_batch_on_a_gpu(folders):
    path = folders.maps / f"{folders.samples[1].id}.npz"
    path.write_bytes(path.read_bytes()[:100])
    settings = CrfSettings(iterations=1)
    labeller = CrfLabeller(settings.kinds, folders.maps, folders.num_classes, settings)
    target = Target(folders.out, settings.kinds, class_table(folders.world), "run")
    with pytest.raises(MapsError, match=f"{path}: not readable"):
        label_on_gpu(labeller, target, folders.samples, torch.device("cpu"), 2, 3, lambda *done: None)


@both
def test_maps_that_the_rule_needs_are_not_there(capsys, folders, verb):
    sample = folders.samples[0]
    folders.rewrite(sample, mp=None)
    line = refused(capsys, folders, verb)
    assert f"{folders.maps / sample.id}.npz: holds m0, mw, but the rule " in line
    assert "needs mp; choose another rule" in line


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("crf", ["--crf.kinds=[psa]", "--crf.rule=cam"]),
        ("crf", ["--crf.kinds=[seed_labels]", "--crf.seeds=threshold", "--crf.seed_rule=cam"]),
        ("walk", ["--walk.kinds=[refined]", "--walk.rule=cam"]),
    ],
)
def test_maps_of_sfc_where_those_of_cti_are_wanted(capsys, folders, verb, words):
    line = refused(capsys, folders, verb, *words)
    assert f"{folders.maps / folders.samples[0].id}.npz: holds m0, mw, mp, but the rule cam needs cam" in line


@both
def test_processes_tell_what_is_wrong_too(capsys, folders, verb):
    path = change_maps(folders, nan)
    words = folders.words(verb, QUICK[verb], workers=2)
    assert f"{path}: " in one_line(capsys, words)
    assert not (folders.out / "done.json").exists()
    # mended, the same command goes on, as another run: the maps have changed
    shutil.rmtree(folders.maps)
    make_folders(folders.world, folders.maps.parent)
    assert main(words) == 0
    assert len({made_by(path) for path in folders.out.rglob("*.png")}) == 1
    assert len(list(folders.out.rglob("*.png"))) == 14


# ---------------------------------------------------------------------- edges


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"edge": np.zeros((15, 16), np.float32)}, "edge does not fit the image"),
        ({"edge": np.zeros((64, 64), np.float32)}, "edge does not fit the image"),
        ({"edge": np.zeros((0, 16), np.float32)}, "edge does not fit the image"),
        ({"edge": np.full((16, 16), np.nan, np.float32)}, "not between 0 and 1"),
        ({"edge": np.full((16, 16), 1.5, np.float32)}, "not between 0 and 1"),
        ({"edge": np.full((16, 16), -0.1, np.float32)}, "not between 0 and 1"),
        ({"edge": np.zeros((1, 16, 16), np.float32)}, "not floats in 2 dimensions"),
        ({"edge": np.zeros((16, 16), np.uint8)}, "not floats in 2 dimensions"),
        ({"affinity": np.zeros((34, 8, 8), np.float32)}, "has no `edge`, unlike the first file of the folder"),
        ({}, "has no `edge`"),
    ],
    ids=["shape", "stride 1", "empty", "nan", "range", "negative", "dimensions", "type", "affinities", "nothing"],
)
def test_wrong_edges_are_named(capsys, folders, arrays, said):
    path = folders.edges / f"{folders.samples[2].id}.npz"
    write_arrays(path, arrays)
    line = refused(capsys, folders, "walk")
    assert f"{path}: " in line
    assert said in line
    assert "delete it and done.json beside the edges and make them again" in line


def test_a_damaged_file_of_edges(capsys, folders):
    path = folders.edges / f"{folders.samples[2].id}.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path}: not readable" in refused(capsys, folders, "walk")


@pytest.mark.parametrize("place", [0, 2])
def test_edges_that_are_no_archive(capsys, folders, place):
    path = folders.edges / f"{folders.samples[place].id}.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((16, 16), np.float32))
    assert f"{path}: not readable (one bare array, not an archive)" in refused(capsys, folders, "walk")


def test_a_folder_that_holds_no_edges(capsys, folders):
    line = refused(capsys, folders, "walk", "--edges", folders.maps)
    assert f"{folders.maps / folders.samples[0].id}.npz: holds " in line
    assert "neither `edge` nor `affinity`" in line
    assert untouched(folders)


def test_affinities_do_not_make_pseudo_labels(capsys, folders):
    for sample in folders.samples:
        write_arrays(folders.edges / f"{sample.id}.npz", {"affinity": np.zeros((34, 8, 8), np.float32)})
    line = refused(capsys, folders, "walk")
    assert "walk.kinds: pseudo needs IRN's edges" in line
    assert str(folders.edges) in line
    assert untouched(folders)


def test_affinities_of_no_radius(capsys, folders):
    for sample in folders.samples:
        write_arrays(folders.edges / f"{sample.id}.npz", {"affinity": np.zeros((33, 8, 8), np.float32)})
    line = refused(capsys, folders, "walk", "--walk.kinds=[refined]")
    assert f"{folders.samples[0].id}: 33 affinities per cell" in line


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--crf.kinds=[crf,seeds]", "crf.kinds"),
        ("--crf.kinds=[]", "kinds [] must name at least one kind"),
        ("--crf.kinds=[crf,crf]", "none twice"),
        ("--crf.itertions=3", "--crf.itertions"),
        ("--crf.iterations=-1", "iterations be at least 0"),
        ("--crf.iterations=many", "crf.iterations"),
        ("--crf.gt_prob=1", "gt_prob must lie between 0 and 1"),
        ("--crf.rule=total", "rule total is unknown; choose from m0, mw, mp, sum, seed, walk, cam"),
        ("--crf.rule=cam", "rule cam has no background map"),
        ("--crf.seed_rule=cam", "seed_rule cam has no background map"),
        ("--crf.low=0.5", "low <= high"),
        ("--crf.high=1.5", "high <= 1"),
        ("--crf.background=1.5", "background lie between 0 and 1"),
        ("--crf.alpha=-1", "must be above 0"),
        ("--crf.low_alpha=0", "must be above 0"),
        ("--crf.kernels.bilateral_sxy=0", "widths of CRF kernels must be positive"),
        ("--workers=0", "--workers and --batch must be at least 1"),
        ("--data.init_args.rooot=x", "rooot"),
    ],
)
def test_settings_of_crf_that_are_refused(capsys, folders, setting, said):
    line = refused(capsys, folders, "crf", setting)
    assert said in line
    assert untouched(folders)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--walk.kinds=[refined,psa]", "walk.kinds"),
        ("--walk.radius=1", "radius must be at least 2"),
        ("--walk.beta=0", "exponents and beta must be above 0"),
        ("--walk.background=-0.1", "background not negative"),
        ("--walk.background=.inf", "background not negative"),
        ("--walk.rule=cam", "rule cam has no background map"),
        ("--walk.steps=1.5", "walk.steps"),
        ("--crf.iterations=3", "--crf.iterations"),
    ],
)
def test_settings_of_walk_that_are_refused(capsys, folders, setting, said):
    line = refused(capsys, folders, "walk", setting)
    assert said in line
    assert untouched(folders)


def test_background_and_alpha_contradict(capsys, folders):
    line = refused(capsys, folders, "crf", "--crf.alpha=4", "--crf.background=0.3")
    assert "background and alpha are two ways" in line


@both
@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"class_path": "VOC"}}, "has no `{verb}` section"),
        ({"{verb}": [1, 2]}, "`{verb}` is not a mapping of settings"),
        ({"{verb}": {"unheard_of": 1}}, "unheard_of"),
        ({"{verb}": {"kinds": ["unheard_of"]}}, "unheard_of"),
        ({"{verb}": {}, "unheard_of": {}}, "x.yaml: unheard_of: no such section; mend its name"),
        ({"{verb}": {"background": {"a": 1}}}, '"{verb}.background": Expected a'),
        ({"{verb}": {"background": float("nan")}}, '"{verb}.background": Expected a'),
    ],
    ids=["no section", "no mapping", "unknown key", "unknown kind", "unknown section", "nested", "nan"],
)
def test_configurations_that_are_refused(capsys, folders, tmp_path, verb, sections, said):
    config = write_config(tmp_path / "x.yaml", **{k.format(verb=verb): v for k, v in sections.items()})
    assert said.format(verb=verb) in refused(capsys, folders, verb, "--config", config)
    assert untouched(folders)


@both
def test_no_configuration_and_no_data(capsys, folders, verb):
    words = [word for word in folders.words(verb) if not word.startswith("--data")]
    assert f"frugalseg {verb} needs --config with a `data` section" in one_line(capsys, words)


@both
def test_a_configuration_that_is_not_there(capsys, folders, verb, tmp_path):
    assert f"{tmp_path / 'no.yaml'}: not readable" in refused(capsys, folders, verb, "--config", tmp_path / "no.yaml")


def test_a_benchmark_without_a_background(capsys, folders, tmp_path):
    root = write_ade20k_world(tmp_path / "ade", images_train=2, images_val=1)
    words = ["crf", "--maps", folders.maps, "--out", folders.out, "--data=ADE20K", f"--data.init_args.root={root}"]
    assert "ADE20K has no background class, which label rules need" in one_line(capsys, words)


@both
def test_a_gpu_that_is_not_there(capsys, folders, verb, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cuda: no GPU is to be seen here; take cpu or auto" in refused(
        capsys, folders, verb, "--device=cuda"
    )
    assert untouched(folders)


# ---------------------------------------------------------------------- the folder that is written to


@both
def test_a_folder_of_foreign_files_is_refused(capsys, folders, verb):
    folders.out.mkdir()
    (folders.out / "precious.png").write_bytes(b"x")
    line = one_line(capsys, folders.words(verb, QUICK[verb]))
    assert f"{folders.out}: holds files but no provenance.json" in line
    assert [path.name for path in folders.out.iterdir()] == ["precious.png"]


def test_a_folder_of_another_stage_is_refused(capsys, folders):
    assert main(folders.words("crf", QUICK["crf"])) == 0
    line = one_line(capsys, folders.words("walk", QUICK["walk"]))
    assert f"{folders.out}: belongs to scratch/seeds, not to scratch/labels" in line


@both
def test_a_full_disk(capsys, folders, verb, monkeypatch):
    def full(self, stream, **_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        assert "the disk is full; free some space and run the command again" in refused(capsys, folders, verb)
    assert not list(folders.out.rglob("*.png"))
    assert main(folders.words(verb, QUICK[verb])) == 0
