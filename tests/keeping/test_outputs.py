"""What a finished stage left, and how long an unfinished one worked."""

import os
import time

import pytest

from frugalseg.keeping import clear_leftovers, count_outputs, missing_outputs, seconds_worked


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "stage"
    for name in ("metrics.json", "done.json", "hparams.yaml", ".lock", "maps/a.npz", "maps/b.npz", "maps/.c.npz.12.tmp",
                 "deep/er/x", "pictures/p.png", "figures/f.png", "wandb/run/log"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_are_counted_by_folder(stage):
    assert count_outputs(stage) == {".": 1, "maps": 2, "deep/er": 1}


def test_a_folder_on_another_disk_counts(stage, tmp_path):
    (stage / "maps").rename(tmp_path / "elsewhere")
    (stage / "maps").symlink_to(tmp_path / "elsewhere")
    assert count_outputs(stage)["maps"] == 2


def test_what_is_gone_is_told(stage):
    recorded = count_outputs(stage)
    assert missing_outputs(stage, recorded) == {}
    (stage / "maps/a.npz").unlink()
    (stage / "metrics.json").unlink()
    (stage / "pictures/p.png").unlink()
    (stage / "deep/er/y").touch()  # more is not less
    assert missing_outputs(stage, recorded) == {"maps": "1 of 2 files of maps are gone", ".": "1 of 1 files are gone"}


@pytest.mark.parametrize("recorded", [None, 3, [], {}, {"maps": "2"}])
def test_a_record_that_does_not_tell_says_nothing(stage, recorded):
    assert missing_outputs(stage, recorded) == {}


def test_leftovers_are_removed_and_nothing_else(stage):
    (stage / "wandb/.x.tmp").touch()
    clear_leftovers(stage)
    assert not (stage / "maps/.c.npz.12.tmp").exists()
    assert (stage / "wandb/.x.tmp").exists() and (stage / ".lock").exists() and (stage / "maps/a.npz").exists()


@pytest.mark.parametrize(
    ("claimed", "earlier", "newest", "expected"),
    [
        (-100, 5.0, -40, 65.0),
        (-100, 5.0, 9000, 105.0),  # a file of the future: the clock has been set back since
        (500, 5.0, 400, 5.0),  # claimed in the future
        (-100, -7.0, -40, 60.0),
    ],
)
def test_seconds_are_never_negative_nor_of_the_future(tmp_path, claimed, earlier, newest, expected):
    now = time.time()
    (tmp_path / "metrics.csv").touch()
    os.utime(tmp_path / "metrics.csv", (now + newest, now + newest))
    (tmp_path / ".lock").touch()  # of the process that goes on, and asks
    record = {"claimed": now + claimed, "seconds_earlier": earlier}
    assert seconds_worked(tmp_path, record) == pytest.approx(expected, abs=5.0)


@pytest.mark.parametrize("record", [{}, {"claimed": 1.0}, {"claimed": "x", "seconds_earlier": 0.0}])
def test_an_older_record_does_not_tell(tmp_path, record):
    assert seconds_worked(tmp_path, record) is None
