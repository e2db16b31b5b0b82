"""Episodes to a file and from it, through the command line."""

from pathlib import Path

import pytest
import yaml

from frugalseg.cli import main
from frugalseg.commands.data_settings import build_data
from tests.data.episode_tiles import NAMES, SIDE, write_tiles


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def settings(root, *extra, recipe="Episodes", fold=0):
    start = ["--data", "ISAID5i", "--data.init_args.root", str(root), "--data.init_args.fold", str(fold),
             "--data.init_args.num_workers", "0", "--data.init_args.recipe", recipe]  # fmt: skip
    return [*start, *[f"--data.init_args.recipe.init_args.{word}" for word in extra]]


def refused(capsys, *words):
    assert main(["episodes", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("frugalseg: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(("role", "split"), [("val", "val"), ("test", "some")])
def test_the_verb_writes_what_evaluation_runs(role, split, tiles, tmp_path, capsys):
    out = tmp_path / "deep" / "episodes.csv"
    (tiles / "splits").mkdir(exist_ok=True)
    (tiles / "splits/some.txt").write_text("\n".join(NAMES[:20]))
    words = settings(tiles, "shots=2", "test_seed=3", "test_episodes=11", f"size={SIDE}")
    words += ["--data.init_args.test_split", "some", "--data.init_args.val_classes", "novel"]
    assert main(["episodes", *words, "--split-role", role, "--out", str(out)]) == 0
    assert f"{out}: 11 episodes of ISAID5i, {role}, shots 2" in capsys.readouterr().out
    comment, header, *lines = out.read_text().splitlines()
    assert comment == f"# benchmark ISAID5i, split {split}, protocol P1, fold 0, shots 2, base seed 3"
    assert header == "number,class_id,query,support_1,support_2"
    data = build_data([], words)
    data.setup("validate" if role == "val" else role)
    batches = getattr(data, f"{role}_dataloader")()
    rows = [[int(b["number"]), int(b["class_id"]), b["id"][0], *b["support_id"][0]] for b in batches]
    assert lines == [",".join(map(str, row)) for row in rows]


def test_a_file_goes_in_and_out_unchanged(tiles, tmp_path):
    first, again = tmp_path / "first.csv", tmp_path / "again.csv"
    assert main(["episodes", *settings(tiles, "shots=3"), "--out", str(first)]) == 0
    words = settings(tiles, "shots=3", f"episodes_file={first}", "test_seed=1")
    assert main(["episodes", *words, "--data.init_args.limit=24", "--out", str(again)]) == 0
    comment, *lines = again.read_text().splitlines()
    assert lines == first.read_text().splitlines()[1:]
    assert comment == (
        "# benchmark ISAID5i, split val, protocol P1, fold 0, shots 3, from the file first.csv, limit 24"
    )


@pytest.mark.parametrize("named", [None, "folder/a.csv"])
def test_the_setting_in_a_file_of_settings(tiles, tmp_path, named):
    recipe = {"class_path": "Episodes", "init_args": {"episodes_file": named}}
    content = {"data": {"class_path": "ISAID5i", "init_args": {"root": str(tiles), "recipe": recipe}}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    found = build_data([str(tmp_path / "a.yaml")], []).recipe.episodes_file
    assert found == (named and Path(named))


def test_what_is_refused(tiles, tmp_path, capsys):
    out = tmp_path / "a.csv"
    to = ["--out", str(out)]
    line = refused(capsys, *settings(tiles, recipe="Segment"), *to)
    assert line.endswith("data.recipe is Segment, which has no episodes; set it to Episodes")
    assert "too few images for an episode" in refused(capsys, *settings(tiles, fold=0), "--data.init_args.limit=3", *to)
    missing = refused(capsys, *settings(tiles, "episodes_file=nowhere.csv"), *to)
    assert "nowhere.csv: no such file of episodes; mend recipe.episodes_file" in missing
    assert "frugalseg episodes needs --config" in refused(capsys, *to)
    assert "shotz" in refused(capsys, *settings(tiles, "shotz=2"), *to)
    assert not out.exists()
    out.write_text("# nothing\n")
    assert f"{out}, line 2: is not the header" in refused(capsys, *settings(tiles, f"episodes_file={out}"), *to)
    assert out.read_text() == "# nothing\n"
