"""The study of times on its quick rows: what it writes, and that a row is per image."""

import json
import time

import numpy as np
import pytest
import torch

from frugalseg.data.io import read_mask
from tests.studies import stage_files, stage_seconds


def test_the_table_and_the_file_say_the_same(tmp_path, capsys, monkeypatch):
    """Without genuine photos: on noise."""
    monkeypatch.setattr(stage_files, "REAL", tmp_path / "nowhere")
    out = tmp_path / "seconds.json"
    assert stage_seconds.main(["--only", "walk", "evaluate", "--rounds", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["machine"]["photo"] == "noise"
    lines = capsys.readouterr().out.splitlines()
    assert (
        [row["id"] for row in found["rows"]] == ["walk", "evaluate"] == [line.split(" | ")[0][2:] for line in lines[2:]]
    )
    for row, line in zip(found["rows"], lines[2:], strict=True):
        assert len(row["calls"]) == 1 and row["seconds"] == row["calls"][0] > 0
        cells = [float(cell.strip(" |")) for cell in line.split(" | ")[2:]]
        assert cells == pytest.approx([row["seconds"], row["seconds"] * 10582 / 3600], rel=0.01)


def test_labels_are_made_as_the_verbs_make_them(tmp_path):
    photo = stage_files.make_inputs(tmp_path)
    stage_files.labelling("walk", "sfc/voc/labels.yaml")(torch.device("cpu"), photo, tmp_path)()
    for kind in ("refined", "pseudo"):
        ids = read_mask(tmp_path / "walk" / kind / f"{photo.id}.png", 21, stage_files.SIZE)
        assert set(np.unique(ids)) <= {*stage_files.KEYS}


@pytest.mark.parametrize(("most", "counted"), [(10.0, 3), (0.05, 1), (0.0, 1)])
def test_a_row_ends_in_time(most, counted):
    """The first call does not count but where it alone takes too long."""

    def work():
        end = time.process_time() + 0.03
        while time.process_time() < end:
            pass

    times = list(stage_seconds.seconds(work, torch.device("cpu"), 3, most))
    assert len(times) == counted and all(0.03 <= t < 1 for t in times)


def test_rows_have_names_of_their_own():
    names = [row.name for row in stage_seconds._rows()]
    assert len(names) == len(set(names)) >= 14
