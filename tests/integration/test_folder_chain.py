"""From a folder of photos with tags to masks of all of them, and of new ones: every stage through `main([...])`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frugalseg.cli import main
from frugalseg.data import Folder, Segment
from tests.integration.user_photos import METHODS, PHOTOS, Chain, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "mine")


def run(chain, *names):
    for name, line in chain.stages().items():
        if not names or name in names:
            assert main(line) == 0, name
    return chain


def ids(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.png")}


def check_chain(chain, photos, tmp_path):
    """All stages have left what the next one needs, under the ids of the folder."""
    run(chain)
    data = Folder(photos, Segment())
    every, tagged = ({sample.id for sample in data.index(split)} for split in ("all", "tagged"))
    assert len(every) == PHOTOS and len(tagged) == PHOTOS - 2 and all("__" in name for name in every)
    at = chain.folder
    assert {path.stem for path in (at / "cam-tagged/maps").glob("*.npz")} == tagged
    assert ids(at / "seeds-tagged/seed_labels") == ids(at / f"labels-tagged/{METHODS[chain.method]}") == tagged
    assert ids(at / "predict-all/masks") == every  # those without tags too
    for sample in data.index("all"):
        with Image.open(sample.image) as image, Image.open(at / f"predict-all/masks/{sample.id}.png") as mask:
            assert mask.size == image.size and np.asarray(mask).max() < data.num_classes
    for sample in data.index("tagged"):
        found = set(np.unique(np.asarray(Image.open(at / f"seeds-tagged/seed_labels/{sample.id}.png"))).tolist())
        assert found <= {0, 255, *(tag + 1 for tag in sample.tags)}  # tags say what may be there
    record = json.loads((at / "classify/provenance.json").read_text())
    assert record["splits"]["train"] == PHOTOS - 2 and record["hyperparameters"]["num_classes"] == data.num_classes
    assert "masked/miou" in json.loads((at / "score-masked/metrics.json").read_text())
    new = photos.parent / "new"
    words = ["segment", new, "--checkpoint", at / "segment/checkpoints/last.ckpt", "--out", tmp_path / "new", "--quiet"]
    assert main([str(word) for word in (*words, "--device", "cpu")]) == 0
    assert ids(tmp_path / "new/masks") == {path.stem for path in new.iterdir()}


def test_photos_with_tags_become_masks(photos, tmp_path):
    check_chain(Chain(photos, tmp_path / "runs", "sfc"), photos, tmp_path)


@pytest.mark.slow
def test_ctis_way_to_masks(photos, tmp_path):
    check_chain(Chain(photos, tmp_path / "runs", "cti"), photos, tmp_path)


def test_a_new_tag_makes_the_classifier_train_again(photos, tmp_path, capsys):
    mine = write_photos(tmp_path / "mine", photos.parent / "world")
    chain = run(Chain(mine, tmp_path / "runs", "cti", steps=1), "classify")
    before = (chain.folder / "classify/done.json").read_text()
    run(chain, "classify")
    assert "up to date" in capsys.readouterr().err
    with (mine / "tags.csv").open() as file:
        rows = list(csv.reader(file))
    rows[1][1] += ";" + next(name for name in (mine / "classes.txt").read_text().split() if name not in rows[1][1])
    with (mine / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    run(chain, "classify")
    assert (chain.folder / "classify/done.json").read_text() != before
    assert [path for path in chain.folder.iterdir() if ".old-" in path.name]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda root: (root / "tags.csv").unlink(), "has no tags, which Tags needs; add"),
        (lambda root: (root / "tags.csv").write_text("a.jpg,cat\n"), "has no header"),
        (lambda root: (root / "tags.csv").write_text("image,tags\ngone.jpg,cat\n"), "no class"),
        (lambda root: (root / "classes.txt").write_text("a\na\n"), "more than once"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_claimed(photos, tmp_path, capsys, spoil, match):
    mine = write_photos(tmp_path / "mine", photos.parent / "world")
    spoil(mine)
    chain = Chain(mine, tmp_path / "runs", "sfc")
    assert main(chain.stages()["classify"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert match in said[-1] and not [line for line in said if "Traceback" in line]
    assert not (chain.folder / "classify/done.json").exists()


def test_wrong_settings_are_named(photos, tmp_path, capsys):
    chain = Chain(photos, tmp_path / "runs", "sfc")
    assert main([*chain.stages()["classify"], "--data.init_args.mask_dir=labels"]) == 2
    assert "mend data.mask_dir" in capsys.readouterr().err
