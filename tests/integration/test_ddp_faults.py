"""A rank that dies, ranks that see other data, more ranks than images: one line, an end within a minute, a fit that goes on."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from frugalseg.callbacks.ranks import Ranks
from frugalseg.commands import ranks
from frugalseg.commands.ranks import lost_rank
from frugalseg.data import VOC, Tags
from frugalseg.data.meeting import Place
from frugalseg.errors import DatasetError
from frugalseg.miniature.voc import write_voc_world
from tests.integration.launched import dying, errors, frugalseg, sbatch, torchrun

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
STEPS = ["--trainer.max_steps", "6", "--trainer.val_check_interval", "6", "--model.init_args.calibration_start", "0"]


def assert_as_uninterrupted(folder, whole):
    """Saved after step 2, ended before step 4, gone on from step 2: the same weights to the last bit."""
    one, other = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (whole, folder))
    assert one["global_step"] == other["global_step"] == 6
    assert [n for n, value in one["state_dict"].items() if not torch.equal(value, other["state_dict"][n])] == []
    assert len(json.loads((folder / "provenance.json").read_text())["resumed"]) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a fit on two ranks of which none dies; made once."""
    folder = tmp_path_factory.mktemp("whole")

    def make(words):
        if not (folder / "runs").exists():
            done = frugalseg(words("fit", *TWO, *STEPS, "--run.root", str(folder / "runs")))
            assert done.returncode == 0, done.stderr[-3000:]
        return folder / "runs/mini-sfc/seed0/classify"

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "said"),
    [
        (1, "kill", "rank 1 of 2 was killed by SIGKILL"),
        (1, "exit", "rank 1 of 2 ended with exit code 7, see its own error above"),
        (1, "error", "rank 1 of 2 ended with exit code 1, see its own error above"),
        (0, "kill", "rank 0 of 2 has gone, so rank 1 stops"),
    ],
)
def test_a_rank_that_dies_ends_the_job_which_then_goes_on(rank, how, said, words, tmp_path, whole):
    command = words("fit", *TWO, *STEPS, *dying(tmp_path, rank, how))
    done = frugalseg(command)
    late = time.time() - (tmp_path / f"{how}{rank}").stat().st_mtime
    assert done.returncode != 0 and late < 60, late
    # the pipes are closed by the last of the ranks: nobody is left
    assert [line for line in errors(done.stderr) if said in line], done.stderr[-3000:]
    assert ("the disk of this rank is gone" in done.stderr) == (how == "error")
    again = frugalseg(command)
    assert again.returncode == 0, again.stderr[-3000:]
    assert_as_uninterrupted(tmp_path / "runs/mini-sfc/seed0/classify", whole(words))


@pytest.mark.slow
def test_torchrun_goes_on_by_itself(words, tmp_path, whole):
    done = torchrun(words("fit", *TWO, *STEPS, *dying(tmp_path, 1, "kill")), restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_as_uninterrupted(tmp_path / "runs/mini-sfc/seed0/classify", whole(words))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_torchruns_of_two_nodes_go_on_together(rank, words, tmp_path, whole, monkeypatch):
    """Each counts restarts for itself, and the node whose rank has not died counts none."""
    monkeypatch.setenv("RESTARTS", "2")
    nodes = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    job = sbatch("torchrun.sbatch", words("fit", *nodes, *STEPS, *dying(tmp_path, rank, "kill")), tmp_path)
    _, stderr = job.communicate(timeout=300)
    assert job.returncode == 0, stderr[-3000:]
    assert_as_uninterrupted(tmp_path / "runs/mini-sfc/seed0/classify", whole(words))


@pytest.mark.slow
def test_ranks_with_other_data_under_the_same_name_are_refused(words, tmp_path):
    """As on machines whose disks differ: before there is a process group, and nobody waits for the other."""
    for rank in (0, 1):
        write_voc_world(tmp_path / str(rank) / "VOC2012", images_train=24, images_val=6, seed=rank)
    began = time.time()
    done = torchrun(words("fit", *TWO, "--data.init_args.root", "VOC2012"), folders=tmp_path)
    assert done.returncode != 0 and time.time() - began < 200
    (line,) = [line for line in errors(done.stderr) if "rank 1 of 2" in line]
    assert "differs from rank 0 in inputs." in line
    assert not (tmp_path / "runs/mini-sfc/seed0/classify/checkpoints").exists()


def fake(told, rank=0):
    """A trainer of which every rank says what it is told."""
    data = SimpleNamespace(root="/data/VOC2012", digest=told[rank][0], split_sizes=told[rank][1])
    strategy = SimpleNamespace(broadcast=lambda value, src: list(told[src]), launcher=SimpleNamespace(procs=[]))
    return SimpleNamespace(world_size=len(told), datamodule=data, strategy=strategy, local_rank=0, global_rank=rank)


def test_ranks_with_other_images_are_refused():
    same = ("a", {"train": 24})
    Ranks().setup(fake([same, same]), None, "fit")
    with pytest.raises(
        DatasetError, match=r"/data/VOC2012: rank 2 of 3 sees other data than rank 0 there \(\{'train': 23"
    ):
        Ranks().setup(fake([same, same, ("b", {"train": 23})]), None, "fit")


def test_more_ranks_than_images(world):
    """Nothing to score on a rank is refused on all of them; to predict, it is not."""

    def data(world_size, rank):
        made = VOC(world, Tags(crop=64), limit=3, batch_size=1, num_workers=0)
        made.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, overfit_batches=0, current_epoch=0)
        return made

    for rank in (0, 3):
        with pytest.raises(DatasetError, match=r"has 3 to score for 4 processes: lower trainer\.devices"):
            data(4, rank).val_dataloader()
        with pytest.raises(DatasetError, match="has 3 images, one step takes 1 x 4"):
            data(4, rank).train_dataloader()
    assert [len(data(4, rank).predict_dataloader()) for rank in range(4)] == [1, 1, 1, 0]
    assert [len(data(2, rank).val_dataloader()) for rank in range(2)] == [2, 1]


def test_ranks_predict_the_largest_images_first(tmp_path):
    """Scoring keeps the order of the split."""
    sizes = {"a": (8, 8), "b": (40, 50), "c": (9, 9), "d": (30, 30)}
    root = write_voc_world(tmp_path / "VOC2012", images_train=4, images_val=1, seed=0)
    names = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    for name, (height, width) in zip(names, sizes.values(), strict=True):
        Image.new("RGB", (width, height)).save(root / f"JPEGImages/{name}.jpg")
    made = VOC(root, Tags(crop=8), train_split="train", predict_split="train", num_workers=0)

    def ids(rank, world_size):
        made.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        return [item["id"][0] for item in made.predict_dataloader()]

    assert ids(0, 1) == names
    assert [ids(rank, 2) for rank in (0, 1)] == [[names[1], names[2]], [names[3], names[0]]]


@pytest.mark.parametrize(
    "text",
    [
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234",
        "NCCL communicator was aborted on rank 0.",
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)",
    ],
)
def test_the_end_of_another_rank_is_told_in_one_line(text, monkeypatch):
    assert lost_rank(RuntimeError(text)) is None  # one process has no others
    monkeypatch.setattr(ranks, "find_place", lambda: Place(1, 2))
    assert text in lost_rank(RuntimeError(text)) and "\n" not in lost_rank(RuntimeError(f"{text}\n at"))
    assert lost_rank(ValueError(text)) is None and lost_rank(RuntimeError("shapes differ")) is None
