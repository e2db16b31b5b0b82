"""Settings of `frugalseg crf` and `walk`: those of the experiment files, and which of several wins."""

import pytest
import yaml

from frugalseg.commands.crf import CrfSettings
from frugalseg.commands.data_settings import build_data
from frugalseg.commands.label_settings import read_settings
from frugalseg.commands.walk import WalkSettings
from frugalseg.ops.crf import Kernels
from tests.integration.conftest import EXPERIMENTS
from tests.integration.labelling import write_config


@pytest.mark.parametrize(
    "path", [p for p in sorted(EXPERIMENTS.rglob("*.yaml")) if {"crf", "walk"} & set(yaml.safe_load(p.read_text()))],
    ids=lambda path: str(path.relative_to(EXPERIMENTS)),
)  # fmt: skip
def test_every_experiment_of_labels_has_its_header_and_parses(path):
    content = yaml.safe_load(path.read_text())
    verb = "crf" if "crf" in content else "walk"
    for field in ("settings", "command", "hardware", "expected"):
        assert f"#   {field} " in path.read_text()
    assert set(content) == {verb, "data"}
    settings = read_settings([str(path)], [], verb, {"crf": CrfSettings, "walk": WalkSettings}[verb])
    given = {name: value for name, value in content[verb].items() if name != "kernels"}
    for name, value in given.items():
        found = getattr(settings, name)
        assert (list(found) if isinstance(found, tuple) else found) == value
    assert build_data([str(path)], [], verb, recipe="Segment").classes.background


IRN_CRF, PSA_CRF = Kernels(3, 3, 50, 5, 10), Kernels(3, 3, 80, 13, 10)
SPECIFIED = {
    # sfc.md 7.1 and 7.3
    "sfc/voc/seeds": CrfSettings(
        ("crf", "seed_labels"), "sum", seed_rule="seed", iterations=12, gt_prob=0.7, kernels=IRN_CRF
    ),
    "sfc/voc/labels": WalkSettings(("refined", "pseudo"), "walk", 0.25, 1.0, 1.3, 1.3, radius=5, beta=10, steps=256),
    "sfc/coco/seeds": CrfSettings(
        ("crf", "seed_labels"), "sum", seed_rule="seed", iterations=12, gt_prob=0.7, kernels=IRN_CRF
    ),
    # cti.md 7, 8.1 and 8.2
    "cti/voc/seeds": CrfSettings(
        ("crf", "seed_labels"),
        "cam",
        0.39,
        seeds="threshold",
        seed_rule="cam",
        high=0.40,
        low=0.26,
        iterations=10,
        kernels=IRN_CRF,
    ),
    "cti/coco/seeds": CrfSettings(
        ("crf", "seed_labels"),
        "cam",
        0.33,
        seeds="threshold",
        seed_rule="cam",
        high=0.40,
        low=0.26,
        iterations=10,
        kernels=IRN_CRF,
    ),
    "cti/coco/labels": WalkSettings(("refined",), "cam", 0.25, 1.0, radius=5, beta=10, steps=256),
    "cti/voc/labels": WalkSettings(("refined",), "cam", 0.25, 1.0, radius=5, beta=10, steps=256),
    "cti/voc/seeds-psa": CrfSettings(("psa",), "cam", low_alpha=1, high_alpha=12, iterations=10, kernels=PSA_CRF),
    "cti/voc/labels-psa": WalkSettings(("refined",), "cam", 0.39, beta=8, steps=64),
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_experiments_have_the_numbers_of_the_specifications(name):
    settings = SPECIFIED[name]
    verb = "crf" if isinstance(settings, CrfSettings) else "walk"
    assert read_settings([str(EXPERIMENTS / f"{name}.yaml")], [], verb, type(settings)) == settings


def test_later_files_and_words_win(tmp_path):
    first = write_config(tmp_path / "a.yaml", crf={"iterations": 3, "kernels": {"bilateral_sxy": 9}, "rule": "mw"})
    second = write_config(tmp_path / "b.yaml", crf={"iterations": 4, "kernels": {"bilateral_srgb": 8}})
    other = write_config(tmp_path / "c.yaml", data={})
    found = read_settings([str(first), str(second), str(other)], ["--crf.rule", "mp"], "crf", CrfSettings)
    assert found == CrfSettings(
        iterations=4, rule="mp", kernels=Kernels(bilateral_sxy=9, bilateral_srgb=8), kinds=("crf", "seed_labels")
    )
