"""What notebook 07 counts of a user's photos, against a slow count, and what it says of what is not there."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from frugalseg.analysis.notebook import Runs, photos
from frugalseg.analysis.notebook.display import Note, Plate, Sheet
from frugalseg.data import Folder, Views
from frugalseg.run import write_arrays, write_json
from tests.data.user_folder import CLASSES, names_of, shown, write_all, write_tags


@pytest.fixture
def runs(tmp_path):
    """A run whose masks are the true ones, but that class 1 is lost and the first photo is class 3 all over."""
    root = write_all(tmp_path / "photos")
    # two photos without tags, and one that is large
    write_tags(root, {name: ";".join(CLASSES[c] for c in shown(n)) for n, name in enumerate(names_of(16)) if n > 1})
    data = Folder(root, Views(global_size=32, local_size=16, local_views=2))
    seed = tmp_path / "runs/folder-sfc/seed0"
    init_args = {"root": str(root), "predict_split": "all"}
    settings = {"class_path": "frugalseg.data.Folder", "init_args": init_args}
    for stage, split in (("classify", "all"), ("cam-tagged", "tagged"), ("predict-all", "all"), ("segment", "all")):
        init_args["predict_split"] = split
        write_json(seed / stage / "provenance.json", {"identity": {"data": settings}})
        write_json(seed / stage / "done.json", {})
    for number, sample in enumerate(data.index("all")):
        ids = np.array(Image.open(sample.mask))
        ids[ids == 1] = 0
        data.write_mask(seed / f"predict-all/masks/{sample.id}.png", np.full_like(ids, 3) if number == 0 else ids)
        data.write_mask(seed / f"labels-tagged/refined/{sample.id}.png", np.array(Image.open(sample.mask)))
        maps = {"m0": np.random.default_rng(number).random((1 + len(sample.tags or ()), 40, 48)).astype(np.float16)}
        keys = np.array([0, *(tag + 1 for tag in sample.tags or ())], np.uint8)
        write_arrays(seed / f"cam-tagged/maps/{sample.id}.npz", {"keys": keys, **maps})
    return Runs(tmp_path / "runs")


def test_agreement_is_that_of_a_slow_count(runs):
    sheet = photos.agreement(runs, "folder-sfc")
    assert isinstance(sheet, Sheet)
    data = runs.data(runs.stage("folder-sfc", "classify"))
    seed = runs.folder / "folder-sfc/seed0"
    assert [row[0] for row in sheet.rows] == list(CLASSES[1:])
    for number, row in enumerate(sheet.rows):
        expected = []
        for folder in ("labels-tagged/refined", "predict-all/masks"):
            inside, areas, outside = [], [], 0
            for sample in data.index("tagged"):
                ids = np.array(Image.open(seed / folder / f"{sample.id}.png"))
                share = (ids == number + 1).mean()
                if number in sample.tags:
                    inside.append(share > 0)
                    areas += [share] * int(share > 0)
                else:
                    outside += int(share > 0)
            area = f"{np.mean(areas):.1%}" if areas else "-"
            expected += [f"{np.mean(inside):.0%}", area, str(outside)]
        assert list(row[1:]) == [str(len(inside)), *expected]
    lost = sheet.rows[0]
    assert lost[2] == "100%" and lost[5] == "0%"  # labels show it, masks have lost it


def test_the_overview_counts_photos(runs):
    sheet = photos.overview(runs, "folder-sfc")
    assert [row[2] for row in sheet.rows] == ["16", "14", "16"]
    assert sheet.notes == [f"4 classes: {', '.join(CLASSES[1:])}"]


def test_pictures_are_drawn_also_of_large_photos(runs, tmp_path):
    root = tmp_path / "photos"
    seed = runs.folder / "folder-sfc/seed0"
    name = "trip__p003"
    for path in (root / "images/trip/p003.jpg", root / "masks/trip/p003.png", seed / f"predict-all/masks/{name}.png",
                 seed / f"labels-tagged/refined/{name}.png"):  # fmt: skip
        with Image.open(path) as small:
            large = small.resize((960, 800), Image.Resampling.NEAREST)
        large.save(path)
    path = seed / f"cam-tagged/maps/{name}.npz"
    with np.load(path) as arrays:
        found = {**arrays}
    write_arrays(path, {"keys": found["keys"], "m0": found["m0"].repeat(20, 1).repeat(20, 2)})
    for plate in (
        photos.steps(runs, "folder-sfc", 14),
        photos.masks(runs, "folder-sfc", 16),
        photos.tag_counts(runs, "folder-sfc"),
    ):
        assert isinstance(plate, Plate), plate
        assert Image.open(io.BytesIO(plate.png)).width < 2500


def test_scores_are_those_of_the_file(runs):
    told = photos.scores(runs, "folder-sfc")
    assert isinstance(told, Note) and "missing: folder-sfc/seed0/score-masked; `make folder-masks`" in repr(told)
    stage = runs.folder / "folder-sfc/seed0/score-masked"
    write_json(stage / "done.json", {})
    write_json(
        stage / "metrics.json",
        {"masked/iou/cat": 0.25, "masked/miou": 0.25, "masked/iou_crf/cat": 0.5, "masked/miou_crf": 0.5},
    )
    assert photos.scores(runs, "folder-sfc").rows == [
        ["masks", "cat", "25.0"], ["masks", "mean", "25.0"], ["masks after a CRF", "cat", "50.0"],
        ["masks after a CRF", "mean", "50.0"],
    ]  # fmt: skip


def test_new_photos_are_shown_with_their_areas(runs):
    told = photos.new_photos(runs, "folder-sfc")
    assert "missing: folder-sfc/seed0/segment-new; `make folder-segment` makes it" in repr(told)
    folder = runs.folder / "folder-sfc/seed0/segment-new"
    (folder / "overlays").mkdir(parents=True)
    areas = {"images": {"a": {"areas": [{"class": "cat", "share": 0.5}], "overlay": "overlays/a.jpg"}}}
    (folder / "areas.json").write_text(json.dumps(areas))
    assert "missing: overlays" in repr(photos.new_photos(runs, "folder-sfc"))
    Image.fromarray(np.zeros((900, 1200, 3), np.uint8)).save(folder / "overlays/a.jpg")
    assert isinstance(photos.new_photos(runs, "folder-sfc"), Plate)


def test_nothing_is_there(tmp_path):
    for function in (
        photos.overview,
        photos.tag_counts,
        photos.steps,
        photos.masks,
        photos.agreement,
        photos.scores,
        photos.new_photos,
    ):
        told = repr(function(Runs(tmp_path / "none"), "folder-sfc"))
        assert told.startswith("not shown: missing: folder-sfc/seed0/") and "`make folder-masks` makes it" in told
