"""A fit that is stopped inside an epoch and continued equals one that was never stopped, to the last bit."""

import signal

import pytest
import torch

from frugalseg.cli import main
from frugalseg.papers.sfc import SFC


class Unplugged(Exception):
    pass


def state(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_resumed_fit_equals_uninterrupted_fit(words, tmp_path, monkeypatch, workers):
    """24 images in batches of 4 are 6 steps an epoch: stopped after step 8 of 12, inside the second epoch."""
    extra = ["--trainer.max_steps", "12", "--trainer.val_check_interval", "4", "--data.init_args.num_workers", workers]
    assert main(words("fit", *extra, "--run.name", "whole")) == 0

    step = SFC.training_step

    def unplug(self, batch, batch_idx):
        if self.global_step == 9:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SFC, "training_step", unplug)
    with pytest.raises(Unplugged):
        main(words("fit", *extra, "--run.name", "stopped"))
    folder = tmp_path / "runs/mini-sfc-stopped/seed0/classify"
    assert state(folder)["global_step"] == 8 and not (folder / "done.json").exists()

    seen = []

    def watch(self, batch, batch_idx):
        seen.append(self.global_step)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SFC, "training_step", watch)
    torch.manual_seed(999)  # a resumed process does not start with the old random state
    assert main(words("fit", *extra, "--run.name", "stopped")) == 0
    assert seen == [8, 9, 10, 11]

    whole, resumed = state(tmp_path / "runs/mini-sfc-whole/seed0/classify"), state(folder)
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    different = [n for n, t in whole["state_dict"].items() if not torch.equal(t, resumed["state_dict"][n])]
    assert different == []
    assert "bank.image" in whole["state_dict"] and whole["state_dict"]["bank.image"].abs().sum() > 0
    momenta = [[s["momentum_buffer"] for s in c["optimizer_states"][0]["state"].values()] for c in (whole, resumed)]
    assert len(momenta[0]) > 10 and all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert torch.equal(whole["callbacks"]["RandomState"]["torch"], resumed["callbacks"]["RandomState"]["torch"])

    best = [
        torch.load(f / "checkpoints/best.ckpt", weights_only=True)
        for f in (tmp_path / "runs/mini-sfc-whole/seed0/classify", folder)
    ]
    assert best[0]["global_step"] == best[1]["global_step"]
    assert all(torch.equal(t, best[1]["state_dict"][n]) for n, t in best[0]["state_dict"].items())

    def rows(name):
        lines = (tmp_path / f"runs/mini-sfc-{name}/seed0/classify/metrics.csv").read_text().splitlines()
        return sorted(set(lines[1:])), lines[0]

    assert rows("whole") == rows("stopped")  # the curve goes on in the same file


def test_ctrl_c_in_the_middle_of_a_fit_ends_in_one_line(words, tmp_path, monkeypatch, capsys):
    """Lightning leaves with exit code 1 and without a word, and ignores the signal from then on."""

    def stop(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(SFC, "training_step", stop)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(words("fit", "--trainer.max_steps", "2")) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1].startswith("frugalseg: stopped; the same command goes on")
    assert not (tmp_path / "runs/mini-sfc/seed0/classify/done.json").exists()


def test_an_exit_that_is_no_ctrl_c_stays_one(monkeypatch):
    def leave(words):
        raise SystemExit(3)

    monkeypatch.setattr("frugalseg.cli._dispatch", leave)
    with pytest.raises(SystemExit, match="3"):
        main(["fit"])


def test_a_fit_that_begins_at_a_given_checkpoint_goes_on_where_it_was_stopped(words, tmp_path, monkeypatch):
    extra = ["--trainer.max_steps", "6", "--trainer.val_check_interval", "2"]
    assert main(words("fit", *extra[:1], "2", *extra[2:], "--run.name", "first")) == 0
    given = tmp_path / "runs/mini-sfc-first/seed0/classify/checkpoints/last.ckpt"
    step, seen = SFC.training_step, []

    def unplug(self, batch, batch_idx):
        seen.append(self.global_step)
        if self.global_step == 5 and seen.count(5) == 1:
            raise Unplugged
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SFC, "training_step", unplug)
    second = words("fit", *extra, "--run.name", "second", "--ckpt_path", str(given))
    with pytest.raises(Unplugged):
        main(second)
    assert main(second) == 0
    assert seen == [2, 3, 4, 5, 4, 5]
    rows = (tmp_path / "runs/mini-sfc-second/seed0/classify/metrics.csv").read_text().splitlines()
    assert len(rows) == len(set(rows))
