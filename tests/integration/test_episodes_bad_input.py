"""Faults in what few-shot episodes are made of, met through the command line: one line, and no file left behind."""

import os

import pytest
from PIL import Image

from frugalseg.cli import main
from frugalseg.data.isaid5i import pairs
from frugalseg.data.lists import read_ids
from tests.data.episode_tiles import NAMES, SIDE, write_tiles


@pytest.fixture
def tiles(tmp_path):
    return write_tiles(tmp_path / "tiles")


@pytest.fixture
def refused(capsys, tmp_path):
    """The line of `frugalseg episodes`; without the program's name."""

    def run(module, root, *words):
        out = tmp_path / "out" / "e.csv"
        data = ["--data", module, "--data.init_args.root", str(root), "--data.init_args.recipe=Episodes",
                f"--data.init_args.recipe.init_args.size={SIDE}", "--data.init_args.num_workers=0"]  # fmt: skip
        out_words = [] if "--out" in words else ["--out", str(out)]
        assert main(["episodes", *data, *words, *out_words]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error: ")]
        assert len(lines) == 1
        assert not out.parent.exists()
        return lines[0].removeprefix("frugalseg: error: ")

    return run


@pytest.mark.parametrize("fold", [-1, 3])
def test_a_fold_out_of_range(refused, tiles, fold):
    line = refused("ISAID5i", tiles, f"--data.init_args.fold={fold}")
    assert f"data.fold: {fold} is none of the 3 folds 0 to 2 of iSAID-5i" in line
    line = refused("DLRSD", tiles, f"--data.init_args.fold={fold}")
    assert f"data.fold {fold}: DLRSD has D1 and D2, with folds 0, 1 and 2" in line


def test_another_value_of_val_classes(refused, tiles):
    assert "val_classes" in (line := refused("ISAID5i", tiles, "--data.init_args.val_classes=both"))
    assert "both" in line


def test_a_class_with_too_few_images(refused, tiles):
    path = tiles / "val/val_list/split0_val.txt"
    lines = path.read_text().split()
    first = [line for line in lines if line.endswith("_01")]
    path.write_text("\n".join(line for line in lines if line not in first[1:] and not line.endswith("_04")))
    line = refused("ISAID5i", tiles)
    assert line == (
        f"split val of {tiles}: too few images for an episode of ship (1), tennis court (0): it takes 2; add images, or"
        " set recipe.allow_missing_classes to leave them out"
    )


def test_too_few_episodes_for_the_classes(refused, tiles):
    line = refused("ISAID5i", tiles, "--data.init_args.recipe.init_args.test_episodes=1")
    assert line.startswith(f"split val of {tiles}: the 1 episodes of base seed 0 leave 4 of 5 classes out: ")
    assert line.endswith("; raise recipe.test_episodes, or set recipe.allow_missing_classes")


def test_lists_that_name_tiles_which_are_not_there(refused, tiles):
    for name in NAMES[3:10]:
        (tiles / f"val/images/{name}.png").unlink()
    line = refused("ISAID5i", tiles)
    assert f"split val of {tiles}: 7 of 24 images are missing, first {', '.join(NAMES[3:8])} (expected {tiles}" in line
    (tiles / "splits").mkdir()
    own = tiles / "splits/val.txt"
    own.write_text("\n".join(NAMES[:10]))
    assert "7 of 10 images are missing, first" in refused("ISAID5i", tiles)


def test_pairs_that_name_tiles_which_are_not_there(refused, tmp_path, tiles, caplog):
    """Without its file, the list of fold 1 is the packaged one, of other tiles."""
    (tiles / "val/val_list/split1_val.txt").unlink()
    path = tiles / "val/val_list/split2_val.txt"
    official = pairs("nowhere", "val", 1, novel=True)
    there = [next(pair for pair in official if pair.class_id == c) for c in (6, 7, 8, 9, 10)]
    image, mask = (next((tiles / "val" / part).iterdir()) for part in ("images", "semantic_png"))
    for pair in there:
        os.link(image, tiles / f"val/images/{pair.id}.png")
        os.link(mask, tiles / f"val/semantic_png/{pair.id}_instance_color_RGB.png")
    path.write_text("\n".join(f"{name}_instance_color_RGB.png_11" for name in {pair.id for pair in there}))
    line = refused("ISAID5i", tiles, "--data.init_args.fold=1")
    found = [pair for pair in official if pair.id not in {p.id for p in there}]
    images = list(dict.fromkeys(pair.id for pair in found))
    assert line == (
        f"split val of {tiles}: {len(found)} of {len(official)} pairs of the packaged split1_val.txt name {len(images)}"
        f" images that are not in the split, first {', '.join(images[:5])}; restore the images or the lists, or name the"
        " images that are there in a split list of your own"
    )
    words = ["episodes", "--data=ISAID5i", f"--data.init_args.root={tiles}", "--data.init_args.recipe=Episodes",
             "--data.init_args.recipe.init_args.allow_missing_classes=true", "--data.init_args.fold=0"]  # fmt: skip
    # a smaller split on purpose is none: the user's own list, and data.limit
    (tiles / "splits").mkdir()
    (tiles / "splits/val.txt").write_text("\n".join(NAMES[:20]))
    assert main([*words, "--out", str(tmp_path / "own.csv")]) == 0
    assert "8 of 48 pairs of" in caplog.text
    (tiles / "splits/val.txt").unlink()
    assert main([*words, "--out", str(tmp_path / "limit.csv"), "--data.init_args.limit=12"]) == 0
    assert "(data.limit is set)" in caplog.text


def test_dlrsd_pairs_without_images(refused, tmp_path):
    """All 2,100 images are there, and own lists name others."""
    root, one = tmp_path / "root", tmp_path / "one.png"
    Image.new("L", (1, 1), 1).save(one)
    for name in [*read_ids("dlrsd", "train"), *read_ids("dlrsd", "val")]:
        for place in (root / "UCMerced_LandUse/Images" / name[:-2], root / "DLRSD/Images" / name[:-2]):
            place.mkdir(parents=True, exist_ok=True)
            os.link(one, place / f"{name}.png")
    (root / "lists").mkdir()
    lines = [f"airplane{n:02}__{c}" for n in range(9) for c in range(1, 6)] + [f"pier0{n}__2" for n in range(7)]
    (root / "lists/d1_pairs_val_fold0.txt").write_text("\n".join(lines))
    assert refused("DLRSD", root) == (
        f"split all of {root}: 7 of 52 pairs of {root}/lists name 7 images that are not in the split, first pier00,"
        " pier01, pier02, pier03, pier04; restore the images or the lists, or name the images that are there in a split"
        " list of your own"
    )


def test_p2_on_tiles_cut_otherwise(refused, tiles):
    line = refused("ISAID5i", tiles, "--data.init_args.protocol=P2")
    assert line.startswith(f"{tiles}/val/val_list: data.protocol is P2, whose lists are of the official tiles (256 px")
    assert f"but 24 of 24 tiles on the lists there are none of them, first {', '.join(NAMES[:5])}; set" in line
    assert "data.protocol=P1, or cut the tiles with: frugalseg data prepare isaid5i" in line


@pytest.mark.parametrize("protocol", ["P1", "P2"])
def test_tiles_cut_otherwise_without_lists(refused, tiles, protocol):
    for path in (tiles / "val/val_list").iterdir():
        path.unlink()
    line = refused("ISAID5i", tiles, f"--data.init_args.protocol={protocol}")
    assert "6363 of 6363 images are missing, first " in line
    assert f"the 24 tiles there, first {', '.join(NAMES[:5])}, are on no list: of another size or step?" in line


def test_lists_of_p2_in_the_place_of_those_of_p1(refused, tmp_path, capsys):
    root, val = tmp_path / "root", tmp_path / "root/val"
    for part in ("images", "semantic_png", "val_list"):
        (val / part).mkdir(parents=True)
    Image.new("L", (1, 1)).save(tmp_path / "tile.png")
    found = {fold: pairs("nowhere", "val", fold, "P2", novel=True) for fold in range(3)}
    for fold, listed in found.items():
        lines = "\n".join(f"{pair.id}_instance_color_RGB.png_{pair.class_id:02}" for pair in listed)
        (val / f"val_list/split{fold}_val.txt").write_text(lines)
    for name in {pair.id for listed in found.values() for pair in listed}:
        os.link(tmp_path / "tile.png", val / f"images/{name}.png")
        os.link(tmp_path / "tile.png", val / f"semantic_png/{name}_instance_color_RGB.png")
    assert refused("ISAID5i", root, "--data.init_args.fold=1") == (
        f"{val}/val_list/split0_val.txt: data.protocol is P1, but 3 of 3 lists there hold exactly P2's pairs (from 2048"
        " pixels on); set data.protocol=P2, or restore the release's lists"
    )
    words = ["--data=ISAID5i", f"--data.init_args.root={root}", "--data.init_args.recipe=Episodes"]
    out = tmp_path / "e.csv"
    assert main(["episodes", *words, "--data.init_args.protocol=P2", "--out", str(out)]) == 0
    assert f"{out}: {len(found[0])} episodes of ISAID5i, test" in capsys.readouterr().out


def test_several_seeds_need_several_files(refused, tiles, tmp_path):
    seeds = "--data.init_args.recipe.init_args.test_seed=[0,1,2]"
    line = refused("ISAID5i", tiles, seeds)
    assert line.endswith("/out/e.csv is one file for 3 base seeds; put {seed} into its name")
    file = "--data.init_args.recipe.init_args.episodes_file=one.csv"
    assert "episodes_file: one.csv is one file for 3 base seeds; put {seed} into" in refused(
        "ISAID5i", tiles, seeds, file
    )
    # a fault in the last seed's file: not even the first one's is written
    words = [seeds, "--data.init_args.recipe.init_args.episodes_file=" + str(tmp_path / "in{seed}.csv")]
    for seed in (0, 1):
        row = f"number,class_id,query,support_1\n0,1,{NAMES[0]},{NAMES[5]}\n"
        (tmp_path / f"in{seed}.csv").write_text(row)
    assert "in2.csv: no such file" in refused("ISAID5i", tiles, *words, "--out", str(tmp_path / "out/e{seed}.csv"))
