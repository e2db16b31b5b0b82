"""The numbers of the specification (cti.md sections 1, 4 and 5) in CTI's experiment files."""

import pytest
import yaml

from tests.integration.conftest import EXPERIMENTS

COMMON = {
    "lr": 6.25e-5, "warmup_lr": 1e-6, "min_lr": 1e-5, "warmup": 5, "schedule": "epoch", "weight_decay": 0.05,
    "infusion": 3, "drop_path": 0.1, "memory_size": 30, "cross": "memory", "background_weight": 0.1,
    "weights": "deit_small_patch16_224.fb_in1k",
}  # fmt: skip
OWN = {
    "voc": {"intra_weight": 1.0, "cross_weight": 1.0, "terms_from_epoch": 0, "detach_foreground": False},
    "coco": {"intra_weight": 0.1, "cross_weight": 0.1, "terms_from_epoch": 2, "detach_foreground": True},
}
VIEWS = {
    "crop": 224, "views": 2, "area": [0.3, 1.2], "aspect": [3 / 4, 4 / 3], "flip": 0.5,
    "randaugment": "rand-m9-mstd0.5-inc1",
}  # fmt: skip


def read(name):
    return yaml.safe_load((EXPERIMENTS / "cti" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("benchmark", OWN)
def test_classifiers(benchmark):
    content = read(f"{benchmark}/classify")
    given = {
        key: (float(v) if isinstance(v, str) and v[0].isdigit() else v)
        for key, v in content["model"]["init_args"].items()
    }
    for key, value in (COMMON | OWN[benchmark]).items():
        assert given[key] == value, key
    data = content["data"]["init_args"]
    recipe = data["recipe"]["init_args"]
    assert {key: recipe[key] for key in VIEWS} == VIEWS and recipe.get("allow_empty", False) == (benchmark == "coco")
    assert (content["trainer"]["max_epochs"], data["batch_size"]) == (60, 64)
    assert "gradient_clip_val" not in content["trainer"]
    scales = read(f"{benchmark}/cam")["data"]["init_args"]["predict_recipe"]["init_args"]["scales"]
    assert scales == [1.0]


def test_rows_of_the_ablation():
    weights = ("background_weight", "intra_weight", "cross_weight")
    off = {"baseline": weights, "bg": weights[1:], "intra": weights[2:], "full": ()}
    for row, names in off.items():
        given = (read(f"voc/ablation/{row}").get("model") or {}).get("init_args", {})
        assert {key: given[key] for key in given if key in weights} == dict.fromkeys(names, 0.0), row
        assert given.get("background_token", True) == (row != "baseline")
    for index in (2, 4, 5, 6, 7, 8, 9, 10):
        assert read(f"voc/ablation/infusion-{index}")["model"]["init_args"] == {"infusion": index}
