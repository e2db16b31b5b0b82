"""The study of the index of a user's folder runs, in fresh processes, and finds all photos in every way."""

import json

import pytest

from tests.studies import folder_index


def test_the_folder_is_what_the_index_expects(tmp_path):
    root = folder_index.write_folder(tmp_path, 200)
    for way in folder_index.WAYS:
        found = getattr(folder_index, f"by_{way}")(root)()
        assert found == (64 if way == "digest" else 200), way


@pytest.mark.slow
def test_the_study_writes_one_file(tmp_path, capsys):
    assert folder_index.main(["--images", "300", "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["way"] for row in found["rows"]] == list(folder_index.WAYS) and found["images"] == 300
    assert all(
        row["seconds"] <= row["with_imports"] and row["peak_mb"] >= row["imports_mb"] > 0 for row in found["rows"]
    )
    assert "cores" in found["machine"]["what"] and "index" in capsys.readouterr().out
