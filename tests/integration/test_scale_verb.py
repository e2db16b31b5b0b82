"""`frugalseg scale`: episodes of unequal size to files that a test runs, through the command line."""

import csv

import pytest

from frugalseg.cli import main
from frugalseg.commands.data_settings import build_data
from frugalseg.data.io import read_mask
from tests.analysis.test_scale_change import flooded
from tests.data.episode_tiles import SIDE, write_tiles


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def settings(root, *extra, recipe="Episodes"):
    start = ["--data", "ISAID5i", "--data.init_args.root", str(root), "--data.init_args.fold", "0",
             "--data.init_args.num_workers", "0", "--data.init_args.recipe", recipe]  # fmt: skip
    return [*start, *[f"--data.init_args.recipe.init_args.{word}" for word in extra]]


def areas(root):
    """Class -> tile -> area of its largest object, by flooding every mask of the fold's test pairs."""
    data = build_data([], settings(root))
    data.setup("test")
    samples, found = data.samples("test"), {}
    for class_id, members in data.episode_table("test").members.items():
        masks = {samples[index].id: read_mask(samples[index].mask, data.num_classes) for index in members.tolist()}
        found[class_id] = {name: flooded(mask, class_id) for name, mask in masks.items()}
    return found


def test_the_files_hold_opposite_thirds_and_are_run(tiles, tmp_path, capsys):
    words = settings(tiles, f"size={SIDE}")
    assert main(["scale", *words, "--out", str(tmp_path / "s"), "--count", "20", "--seed", "4"]) == 0
    assert "20 episodes of" in capsys.readouterr().out
    size = areas(tiles)
    for way in ("small-large", "large-small"):
        path = tmp_path / f"s/{way}.csv"
        comment, *lines = path.read_text().splitlines()
        assert comment == f"# benchmark ISAID5i, split val, fold 0, shots 1, objects {way} by the masks, seed 4"
        rows = list(csv.DictReader(lines))
        assert len(rows) == 20
        for row in rows:
            own = size[int(row["class_id"])]
            order = sorted(own.values())
            third = len(order) // 3
            small, large = (row["support_1"], row["query"])[:: 1 if way == "small-large" else -1]
            assert own[small] <= order[third - 1]
            assert own[large] >= order[-third]
        data = build_data([], settings(tiles, f"size={SIDE}", f"episodes_file={path}"))
        data.setup("test")
        run = [(batch["id"][0], batch["support_id"][0][0]) for batch in data.test_dataloader()]
        assert run == [(row["query"], row["support_1"]) for row in rows]


def refused(capsys, *words):
    assert main(["scale", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error: ")]
    assert len(lines) == 1
    return lines[0]


def test_what_is_refused(tiles, tmp_path, capsys):
    to = ["--out", str(tmp_path / "s")]
    assert "data.recipe is Segment" in refused(capsys, *settings(tiles, recipe="Segment"), *to)
    assert "give at least 1 episode" in refused(capsys, *settings(tiles), *to, "--count", "0")
    assert "lower recipe.shots" in refused(capsys, *settings(tiles, "shots=9"), *to)
    assert "frugalseg scale needs --config" in refused(capsys, *to)
    assert not (tmp_path / "s").exists()
