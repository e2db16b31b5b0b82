"""`frugalseg shapes`: thin and small classes of a probe that has finished, through the command line."""

import json

import numpy as np
import pytest

from frugalseg.cli import main
from frugalseg.miniature.ade20k import CLASS_NAMES, write_ade20k_world

IOU = {0: 0.8, 1: 0.5, 2: 0.3, 3: 0.1, 4: 0.2, 5: 0.25}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ade20k_world(tmp_path_factory.mktemp("ade20k"), 40, 2, seed=1, forms=True)


@pytest.fixture
def words(root, tmp_path):
    probe = tmp_path / "seed1/probe"
    probe.mkdir(parents=True)
    (probe / "metrics.json").write_text(json.dumps({"val/miou": 0.3, **{f"val/iou/{c}": v for c, v in IOU.items()}}))
    return ["shapes", "--data", "ADE20K", "--data.init_args.root", str(root), "--data.init_args.recipe", "Segment",
            "--of", str(probe), "--out", str(tmp_path / "seed1/shapes")]  # fmt: skip


def test_scores_of_thin_and_small_classes(words, tmp_path, capsys):
    assert main(words) == 0
    # textures in the order of forms: two of discs and squares, bars, rings, dots
    textures = CLASS_NAMES[1:]
    named = [textures[(form + 1) % 5] for form in range(5)]
    of = {name: IOU[CLASS_NAMES.index(name)] for name in CLASS_NAMES}
    metrics = json.loads((tmp_path / "seed1/shapes/metrics.json").read_text())
    assert metrics["val/miou_thin"] == pytest.approx(np.mean([of[named[2]], of[named[3]]]))
    assert metrics["val/miou_small"] == pytest.approx(of[named[4]])
    assert metrics["val/miou_other"] == pytest.approx(np.mean([of["ground"], of[named[0]], of[named[1]]]))
    found = json.loads((tmp_path / "seed1/shapes/shapes.json").read_text())
    assert set(found["groups"]["thin"]) == {named[2], named[3]}
    assert set(found["median regions"]) == set(CLASS_NAMES)
    assert (tmp_path / "seed1/shapes/done.json").is_file()
    capsys.readouterr()
    assert main(words) == 0
    assert "up to date" in capsys.readouterr().err


def test_a_probe_of_before_is_named(words, tmp_path, capsys):
    (tmp_path / "seed1/probe/metrics.json").write_text('{"val/miou": 0.3}')
    assert main(words) == 2
    assert "probe/metrics.json: holds no val/iou/<class id>; run the probe again" in capsys.readouterr().err
    assert not (tmp_path / "seed1/shapes").exists()
