"""The study of large rasters runs, and what it writes holds; at 1,500 pixels here, at 20,000 in results/."""

import json

import pytest

from frugalseg.cli import main
from tests.conftest import REPOSITORY
from tests.studies import large_raster

SIDE, LIMIT = 1500, 4 * 2**30


def holds(found):
    checks = found["checks"]
    assert found["exit"] == 0 and found["pixels"] == found["side"] ** 2 and found["windows"] > 9
    assert checks["pixels_that_differ"] == 0 and checks["windows_compared"] == large_raster.CHECKED
    assert checks["same_size"] and checks["same_place"] and checks["areas_sum_to_pixels"]
    assert 0 < found["peak_bytes"] < LIMIT


def test_a_geotiff_is_segmented_by_windows(tmp_path, monkeypatch):
    """In this process: a new one takes most of its time to import what is here already."""
    pytest.importorskip("rasterio", reason="no rasterio; pip install 'frugalseg[rasters]'")
    out, genuine = tmp_path / "found.json", large_raster.measure
    monkeypatch.setattr(
        large_raster, "measure", lambda words, threads: genuine(["--version"], threads) | {"exit": main(words)}
    )
    assert large_raster.main(["--side", str(SIDE), "--out", str(out), "--keep", str(tmp_path)]) == 0
    holds(json.loads(out.read_text()))
    assert not list((tmp_path / "out/masks").glob(".*"))


def test_the_record_of_the_full_size_holds():
    found = json.loads((REPOSITORY / "results/large_raster.json").read_text())
    holds(found)
    assert found["side"] == 20_000
