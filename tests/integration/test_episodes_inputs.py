"""Base seeds and files of episodes through the command line: what is written, and what a stage is up to date with."""

import pytest
import torch
from lightning.pytorch import LightningModule

from frugalseg.cli import main
from frugalseg.commands.data_settings import build_data
from tests.data.episode_tiles import SIDE, write_tiles


class Counter(LightningModule):
    """Counts episodes and learns nothing: a task for the sake of the stages around it."""

    training_free = True
    seen: list[tuple[int, int]]

    def __init__(self, num_classes: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen.append((int(batch["base_seed"]), int(batch["number"])))

    def on_test_epoch_end(self):
        print("seeds", sorted({seed for seed, _ in self.seen}), "episodes", len(self.seen))


@pytest.fixture
def tiles(tmp_path):
    return write_tiles(tmp_path / "tiles")


def settings(root, *recipe):
    start = ["--data=ISAID5i", f"--data.init_args.root={root}", "--data.init_args.num_workers=0",
             "--data.init_args.recipe=Episodes", f"--data.init_args.recipe.init_args.size={SIDE}"]  # fmt: skip
    return [*start, *(f"--data.init_args.recipe.init_args.{word}" for word in recipe)]


def test_a_file_for_each_seed(tiles, tmp_path, capsys):
    assert main(["episodes", *settings(tiles, "test_seed=[5,0]"), "--out", str(tmp_path / "e{seed}.csv")]) == 0
    said = capsys.readouterr().out
    for seed in (5, 0):
        assert f"{tmp_path}/e{seed}.csv: 48 episodes of ISAID5i, test, shots 1" in said
        assert f"base seed {seed}" in (tmp_path / f"e{seed}.csv").read_text().splitlines()[0]
        assert (
            main(["episodes", *settings(tiles, f"test_seed={seed}"), "--out", str(tmp_path / "{seed}alone.csv")]) == 0
        )
        assert (tmp_path / f"{seed}alone.csv").read_bytes() == (tmp_path / f"e{seed}.csv").read_bytes()
    assert (tmp_path / "e5.csv").read_text() != (tmp_path / "e0.csv").read_text()
    # and back, for all seeds
    words = settings(tiles, "test_seed=[5,0]", f"episodes_file={tmp_path}/e{{seed}}.csv")
    assert main(["episodes", *words, "--out", str(tmp_path / "again{seed}.csv")]) == 0
    for seed in (5, 0):
        again, first = ((tmp_path / f"{name}{seed}.csv").read_text().splitlines() for name in ("again", "e"))
        assert again[1:] == first[1:]
        assert again[0].endswith(f"from the file e{seed}.csv")


def test_validation_episodes_of_base_classes(tiles, tmp_path):
    (tiles / "val/val_list/split1_val.txt").write_text("")
    out = tmp_path / "val.csv"
    words = [*settings(tiles, "test_seed=[5,0]", "val_episodes=7"), "--data.init_args.fold=1", "--split-role=val"]
    assert main(["episodes", *words, "--out", str(out)]) == 0
    comment, _, *lines = out.read_text().splitlines()
    assert comment == "# benchmark ISAID5i, split val, protocol P1, fold 1, classes base, shots 1, base seed 5"
    assert len(lines) == 7
    assert {int(line.split(",")[1]) for line in lines} <= {1, 2, 3, 4, 5}


def test_null_on_the_command_line_is_no_file(tiles, tmp_path):
    recipe = build_data([], settings(tiles, "episodes_file=null")).recipe
    assert (recipe.episodes_file, recipe.files) == (None, {})
    assert build_data([], settings(tiles, "episodes_file=a.csv")).recipe.episodes_file.name == "a.csv"
    # it also takes back what a file of settings says
    config = tmp_path / "a.yaml"
    recipe = "{class_path: Episodes, init_args: {episodes_file: a.csv}}"
    config.write_text(f"data: {{class_path: ISAID5i, init_args: {{root: {tiles}, recipe: {recipe}}}}}\n")
    assert build_data([str(config)], []).recipe.episodes_file.name == "a.csv"
    words = [f"--config={config}", "--data.init_args.recipe.init_args.episodes_file=null"]
    assert main(["episodes", *words, "--out", str(tmp_path / "e.csv")]) == 0
    assert "base seed 0" in (tmp_path / "e.csv").read_text()


def test_a_changed_file_of_any_seed_is_another_test(tiles, tmp_path, capfd):
    files = tmp_path / "e{seed}.csv"
    assert main(["episodes", *settings(tiles, "test_seed=[5,0]"), "--out", str(files)]) == 0

    def test(*recipe):
        words = ["test", f"--model={__name__}.Counter", "--trainer.accelerator=cpu", "--trainer.logger=false",
                 f"--run.root={tmp_path / 'runs'}", "--run.experiment=e", "--run.stage=s",
                 "--trainer.enable_progress_bar=false"]  # fmt: skip
        assert main([*words, *settings(tiles, *recipe)]) == 0
        said = capfd.readouterr()
        return "up to date" if "up to date" in said.err else said.out

    given = ("test_seed=[5,0]", f"episodes_file={files}")
    assert "seeds [0, 5] episodes 96" in test(*given)
    assert test(*given) == "up to date"
    second = tmp_path / "e0.csv"
    second.write_text("\n".join(second.read_text().splitlines()[:-6]) + "\n")
    assert "seeds [0, 5] episodes 90" in test(*given)
    assert test(*given) == "up to date"
    # without files, and with null in their place
    assert "episodes 96" in test("test_seed=[5,0]", "episodes_file=null")
    assert "episodes 96" in test("test_seed=[5,0]")
    (tiles / "val/val_list/split0_val.txt").write_text(
        "\n".join((tiles / "val/val_list/split0_val.txt").read_text().split()[:-4])
    )
    assert "episodes 88" in test("test_seed=[5,0]")
