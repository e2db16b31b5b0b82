"""The study of decoders and caches runs, and finds the same pixels wherever the package relies on that."""

import json

import pytest

from tests.conftest import REAL
from tests.studies import decoding


@pytest.mark.slow
@pytest.mark.real
def test_the_study_writes_one_file(tmp_path, capsys):
    if not (REAL / "VOCdevkit").is_dir():
        pytest.skip(f"no genuine samples at {REAL}; set FRUGALSEG_REAL_DATA")
    assert decoding.main(["--out", str(tmp_path / "found.json"), "--images", "1", "--rounds", "1"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"images", "decoders", "scaled", "caches", "keys"} == set(found)
    ours = [row for row in found["decoders"] if row["decoder"].startswith("OpenCV")]
    assert len(ours) == len(found["images"]) and all(row["largest"] == 0 for row in ours)
    assert all(row["identical"] == "1/1" for row in found["scaled"])
    assert "## caches" in capsys.readouterr().out
