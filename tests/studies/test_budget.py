"""The budget on paper: arithmetic, and the pages that it goes into."""

import json

import pytest

from tests.studies import budget
from tests.studies.stage_seconds import IMAGES, _rows, config


def test_every_training_is_counted_as_its_file_says():
    assert {row.name for row in _rows() if row.name.endswith(".train")} == set(budget.TRAINED)
    trainer = config(budget.TRAINED["deeplab.train"], "trainer")
    data = config(budget.TRAINED["deeplab.train"], "data", "init_args")
    assert budget.images_seen("deeplab.train") == trainer["max_steps"] * 2 * data["batch_size"]
    assert budget.images_seen("irn.train") == config(budget.TRAINED["irn.train"], "trainer", "max_epochs") * IMAGES
    assert budget.images_seen("crf") == IMAGES


def test_the_table_goes_into_a_page(tmp_path, capsys):
    rows = [
        {"id": "crf", "what": "labels", "seconds": 3600 / IMAGES},
        {"id": "walk", "what": "more labels", "seconds": 1.0},
    ]
    for name, chosen in (("cpu", rows), ("gpu", rows[:1])):
        (tmp_path / name).write_text(json.dumps({"rows": chosen}))
    page = tmp_path / "page.md"
    page.write_text("before\n{}\nold\n{}\nafter".format(*budget.MARKS))
    words = ["--measured", str(tmp_path / "cpu"), "--measured-gpu", str(tmp_path / "gpu"), "--into", str(page)]
    assert budget.main(words) == 0
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert lines[4] == f"| labels | {3600 / IMAGES:.3g} | {IMAGES:,} | 1 | 0.062 | 1 |"
    assert lines[5].endswith(f"| {IMAGES / 3600:.2g} | {IMAGES / 3600 / 16:.2g} |  |")
    assert lines[2:6] == capsys.readouterr().out.splitlines()


def test_a_page_without_marks_is_refused(tmp_path):
    (tmp_path / "cpu").write_text('{"rows": []}')
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(Exception, match="make budget"):
        budget.main(["--measured", str(tmp_path / "cpu"), "--into", str(page)])
    assert page.read_text() == "nothing"
