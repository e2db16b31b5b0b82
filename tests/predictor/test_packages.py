"""`frugalseg package` of nets that give masks, and back, where no code of training is."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

import frugalseg
from frugalseg.cli import main
from frugalseg.errors import CheckpointError
from frugalseg.run import file_digest, folder_digest
from tests.checkpoints import pretraining, write_checkpoint
from tests.predictor.nets import FEW_SHOT, MEAN, NAMES, SEEDS, SEGMENTERS, STD, TASKS, make, picture, write

SIZE = (70, 51)
MASK = (np.indices((40, 40)).sum(axis=0) % 40 < 12).astype(np.uint8)
BANNED = """\
import sys


class Wall:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        libraries = ("lightning", "pytorch_lightning", "torchmetrics", "albumentations", "wandb", "jsonargparse")
        own = parts[0] == "frugalseg" and (
            parts[-1] in ("task", "losses", "baselines", "optimiser", "pretrain")
            or parts[1:2] in (["training"], ["callbacks"], ["commands"], ["cli"], ["optim"])
            or parts[1:] in (["data", "module"], ["data", "recipes"], ["data", "transforms"])
        )
        if parts[0] in libraries or own:
            raise ImportError(f"code of training: {name}")
        return None


sys.meta_path.insert(0, Wall())
"""
"""Makes every import of what only training needs fail."""
ASKING = """\
import numpy as np
import frugalseg

folder = sys.argv[1]
given = np.load(folder + "/given.npz", allow_pickle=False)
found = {}
for name in sys.argv[2:]:
    net = frugalseg.load(folder + "/" + name)
    words = {"seeds": {"tags": ["bird"]}, "few-shot": {"supports": [(given["support"], given["mask"])]}}
    answer = net.features if net.kind == "features" else net
    found[name] = np.asarray(answer(given["image"], **words.get(net.kind, {})))
np.savez(folder + "/found.npz", **found)
"""


def answer(net, image=None):
    image = picture(*SIZE) if image is None else image
    if net.kind == "features":
        return net.features(image).numpy()
    words = {"seeds": {"tags": ["bird"]}, "few-shot": {"supports": [(picture(40, 40, 1), MASK)]}}
    return net(image, **words.get(net.kind, {}))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def checkpoints(root):
    made = {
        name: write(root / "runs" / name, name, make(name), **({"val/threshold": 0.25} if name == "cti" else {}))
        for name in TASKS
    }
    return {**made, "pretraining": write_checkpoint(root / "runs" / "pretraining", pretraining(), {"mean": MEAN})}


@pytest.fixture(scope="module")
def packages(root, checkpoints):
    for name, checkpoint in checkpoints.items():
        assert main(["package", str(checkpoint), "--out", str(root / name)]) == 0
    return {name: root / name for name in checkpoints}


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_the_same_before_and_after(checkpoints, packages, name):
    before, after = frugalseg.load(checkpoints[name]), frugalseg.load(packages[name])
    assert type(before) is type(after)
    mask = answer(before)
    assert mask.shape == SIZE and np.array_equal(mask, answer(after))
    assert (after.class_names, after.mean, after.std) == (before.class_names, tuple(MEAN), tuple(STD))
    # colours of what is no class, which no mask holds, are VOC's again
    count = len(before.class_names)
    assert np.array_equal(before.palette[:count], after.palette[:count])
    again = frugalseg.load(packages[name] / "model.safetensors")
    assert np.array_equal(answer(again), mask)
    if name == "cti":
        assert before.threshold == after.threshold == 0.25
    if name in FEW_SHOT:
        assert before.size == after.size == 64


def test_packages_open_where_no_code_of_training_is(root, packages):
    np.savez(root / "given.npz", image=picture(*SIZE), support=picture(40, 40, 1), mask=MASK)
    script = root / "ask.py"
    script.write_text(BANNED + ASKING)
    ran = subprocess.run(
        [sys.executable, str(script), str(root), *packages], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    found = np.load(root / "found.npz", allow_pickle=False)
    assert set(found.files) == set(packages)
    for name, folder in packages.items():
        assert np.array_equal(found[name], answer(frugalseg.load(folder))), name


def test_the_wall_of_that_test_stands(root):
    for name in ("lightning", "albumentations", "frugalseg.papers.sfc.task", "frugalseg.stages.deeplab.losses"):
        script = root / "wall.py"
        script.write_text(f"{BANNED}\nimport importlib\nimportlib.import_module({name!r})\n")
        if name != "lightning":
            script.write_text(f"{BANNED}\nassert Wall().find_spec('os') is None\nWall().find_spec({name!r})\n")
        ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 1 and f"code of training: {name}" in ran.stderr


@pytest.mark.parametrize("name", ["largefov", "sfc", "cti", "dsmf", "prototype", "probe-l", "finetune-upernet"])
def test_what_is_in_a_package(checkpoints, packages, name):
    folder = packages[name]
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "frugalseg-net-1" and config["task"].endswith(TASKS[name][0].rsplit(".", 1)[-1])
    assert config["kind"] == frugalseg.load(folder).kind
    assert config["weights"]["sha256"] == file_digest(folder / "model.safetensors")
    assert config["source"]["checkpoint"] == file_digest(checkpoints[name]) and config["source"]["step"] == 7
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    own = torch.load(checkpoints[name], weights_only=True)["state_dict"]
    left = {key.split(".")[0] for key in own.keys() - names}
    allowed = {"sfc": {"class_weight", "bank"}, "cti": {"memory", "net"}, "probe-l": {"best"}}
    allowed |= {"dsmf": {"trained"}, "prototype": {"trained"}, "finetune-upernet": {"net", "best"}}
    assert left == allowed.get(name, set())
    assert names - own.keys() == ({"net.token_table"} if name == "cti" else set())
    assert not any("auxiliary" in key for key in names if name.startswith("finetune"))
    if name == "cti":
        assert not any("tokenizer" in key for key in names)


@pytest.mark.parametrize("name", [SEGMENTERS[0], SEEDS[0], FEW_SHOT[0]])
def test_the_card_says_what_it_is(packages, name):
    card, config = (packages[name] / "README.md").read_text(), json.loads((packages[name] / "config.json").read_text())
    head = yaml.safe_load(card.split("---\n", 2)[1])
    assert head["license"] == "apache-2.0" and head["pipeline_tag"] == "image-segmentation"
    names = ("background", "foreground") if name in FEW_SHOT else NAMES
    assert all(f"| {number} | {label} | #" in card for number, label in enumerate(names))
    for fact in (config["weights"]["sha256"], "seed 3", "11 images", "Nothing: no finished run", "frugalseg.load("):
        assert fact in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Classes", "## How it was trained", "## Measured", "## Limits", "## Use"
    ]  # fmt: skip


def judged(folder, **inputs):
    """What a finished `frugalseg validate` of another run leaves."""
    folder.mkdir(parents=True)
    model = {"class_path": "frugalseg.stages.deeplab.DeepLab", "init_args": {"head": "largefov", "backbone": "x"}}
    identity = {"model": model, "data": {"class_path": "frugalseg.data.VOC"}, "inputs": inputs}
    (folder / "provenance.json").write_text(json.dumps({"identity": identity}))
    (folder / "metrics.json").write_text(json.dumps({"val/miou": 0.4321}))
    (folder / "done.json").write_text("{}")
    return folder


def test_scores_are_those_of_runs_that_judged_this_very_file(checkpoints, tmp_path, capsys):
    checkpoint = checkpoints["largefov"]
    words = ["package", str(checkpoint), "--out", str(tmp_path / "package"), "--overwrite", "--scores"]
    good = judged(tmp_path / "validated", ckpt_path=file_digest(checkpoint))
    assert main([*words, str(good)]) == 0
    row = next(line for line in (tmp_path / "package" / "README.md").read_text().splitlines() if "0.4321" in line)
    assert "DeepLab, largefov" in row and "VOC" in row and "`val/miou`" in row
    capsys.readouterr()
    assert main([*words, str(judged(tmp_path / "other", ckpt_path="0" * 64))]) == 2
    assert "judged other weights" in capsys.readouterr().err


def test_scores_of_masks_that_the_checkpoint_predicted(checkpoints, tmp_path, capsys):
    checkpoint = checkpoints["largefov"]
    masks = judged(tmp_path / "predict", ckpt_path=file_digest(checkpoint)) / "masks"
    masks.mkdir()
    (masks / "a.png").write_bytes(b"mask")
    score = judged(tmp_path / "score", **{"masks masks": folder_digest(masks, "*.png")})
    record = json.loads((score / "provenance.json").read_text())["identity"]
    record = {"settings": {"masks": [f"={masks}"], "maps": None}, "inputs": record["inputs"], "data": {"class": "VOC"}}
    (score / "provenance.json").write_text(json.dumps({"identity": record}))
    words = ["package", str(checkpoint), "--out", str(tmp_path / "package"), "--overwrite", "--scores", str(score)]
    assert main(words) == 0
    assert "| evaluate | VOC |" in (tmp_path / "package" / "README.md").read_text()
    capsys.readouterr()
    (masks.parent / "done.json").write_text("{ }")  # they are no longer what was scored
    assert main(words) == 2 and "judged other weights" in capsys.readouterr().err


def test_a_package_tells_no_path_of_the_machine(tmp_path):
    task = make("probe-l")
    task.hparams["features"] = {**task.hparams["features"], "weights": "/home/somebody/start.ckpt"}
    assert main(["package", str(write(tmp_path / "run", "probe-l", task)), "--out", str(tmp_path / "package")]) == 0
    for file in ("config.json", "README.md"):
        text = (tmp_path / "package" / file).read_text()
        assert "somebody" not in text and str(tmp_path) not in text
    assert '"start.ckpt"' in (tmp_path / "package" / "config.json").read_text()


# ---------------------------------------------------------------------- bad packages and checkpoints


def changed(folder, out, **keys):
    """A copy of a package whose settings are others."""
    out.mkdir()
    for name in ("model.safetensors", "README.md"):
        (out / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **keys}))
    return out


BAD = {
    "of the future": ({"format": "frugalseg-net-9"}, "is not of format"),
    "another task": ({"task": "stages.deeplab.Other"}, "needs a newer frugalseg"),
    "no settings": ({"settings": None}, "has no settings"),
    "settings that lack one": ({"settings": {"num_classes": 4}}, "cannot be built"),
    "odd settings": ({"settings": {"num_classes": "four"}}, "cannot be built"),
    "names": ({"class_names": [1]}, "class_names or palette"),
    "colours": ({"palette": [[0, 0, 256]]}, "class_names or palette"),
    "odd colours": ({"palette": [["a"]]}, "class_names or palette"),
    "many colours": ({"palette": [[0, 0, 0]] * 257}, "class_names or palette"),
    "weights": ({"weights": {"sha256": "0"}}, "not the file that was packaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_packages_that_are_none(packages, tmp_path, kind):
    keys, reason = BAD[kind]
    with pytest.raises(CheckpointError, match=reason) as caught:
        frugalseg.load(changed(packages["largefov"], tmp_path / "bad", **keys))
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


ASKS = {
    "v2": ("backbone_options", {"checkpoint_path": "/etc/passwd"}, "checkpoint_path"),
    "largefov": ("backbone", "hf-hub:somebody/net", "none of timm's own"),
    "sfc": ("backbone", "local-dir:/tmp", "none of timm's own"),
    "cti-stem": ("stem", {"backbone": "os:system", "strides": [1]}, "none of timm's own"),
    "dsmf": ("backbone_options", {"pretrained_cfg": {}}, "pretrained_cfg"),
    "prototype": ("backbone", "hf-hub:a/b", "none of timm's own"),
    "finetune": ("backbone", {"name": "subprocess:run", "options": {"args": "id"}}, "are opened from a checkpoint"),
    "probe-m": ("backbone", {"name": "frugalseg.run:write_text", "options": {}}, "are opened from a checkpoint"),
}


@pytest.mark.parametrize("name", ASKS)
def test_packages_that_ask_for_more_than_a_net_are_not_opened(packages, tmp_path, name):
    key, value, reason = ASKS[name]
    settings = json.loads((packages[name] / "config.json").read_text())["settings"]
    bad = changed(packages[name], tmp_path / "bad", settings={**settings, key: value})
    with pytest.raises(CheckpointError, match=reason) as caught:
        frugalseg.load(bad)
    assert "\n" not in str(caught.value)


def test_checkpoints_of_other_settings_or_tensors(checkpoints, tmp_path):
    content = torch.load(checkpoints["largefov"], weights_only=True)
    bad = tmp_path / "bad.ckpt"
    cases = {
        "tensors are not those": {"head_options": {"hidden": [32], "dilation": 2}},
        "lacks the setting": {"head": ...},
        "cannot be built": {"strides": None, "output_stride": 7},
    }
    for reason, settings in cases.items():
        known = {**content["hyper_parameters"], **settings}
        known = {key: value for key, value in known.items() if value is not ...}
        torch.save({**content, "hyper_parameters": known}, bad)
        with pytest.raises(CheckpointError, match=reason):
            frugalseg.load(bad)
    tensors = content["state_dict"]
    for state, reason in {
        "empty": ({}, "has no tensors"),
        "one less": ({k: v for k, v in tensors.items() if "conv1.0" not in k}, "not there"),
        "one more": ({**tensors, "net.more": torch.zeros(1)}, "net.more is"),
    }.values():
        torch.save({**content, "state_dict": state}, bad)
        with pytest.raises(CheckpointError, match=reason):
            frugalseg.load(bad)


def test_what_is_packaged_is_no_model_of_timm(packages):
    with pytest.raises(CheckpointError, match="holds no pre-training"):
        frugalseg.create_model("mevt_tiny", packages["largefov"])


def test_pictures_of_what_has_no_pretrained_backbone(checkpoints, tmp_path, capsys):
    words = ["pictures", checkpoints["largefov"], "--data", "voc", "--root", tmp_path, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    assert "holds no pre-training" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("v2", {"hyper_parameters": {"num_classes": "abc"}}),
        ("v2", {"hyper_parameters": {3: 4}}),
        ("v2", {"state_dict": ["net."]}),
        ("v2", {"normalisation": "imagenet"}),
        ("cti", {"threshold": "x"}),
        ("pretraining", {"hyper_parameters": {"changes": ["width"]}}),
    ],
)
def test_malformed_words_of_a_checkpoint_end_in_one_line(checkpoints, tmp_path, name, change):
    content = torch.load(checkpoints[name], weights_only=True)
    known = {**content["hyper_parameters"], **change.get("hyper_parameters", {})}
    path = tmp_path / "checkpoints/last.ckpt"
    path.parent.mkdir()
    torch.save({**content, **change, "hyper_parameters": known}, path)
    if "threshold" in change:
        (tmp_path / "metrics.json").write_text(json.dumps({"val/threshold": change["threshold"]}))
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        frugalseg.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_sizes_in_a_file_are_compared_before_memory_is_taken(checkpoints, tmp_path):
    """Sizes that no machine holds: the message is that of other sizes, not of memory."""
    for name, words in (("v2", {"num_classes": 10**12}), ("pretraining", {"changes": {"ratio": 10**9}})):
        content = torch.load(checkpoints[name], weights_only=True)
        content["hyper_parameters"].update(words)
        path = tmp_path / f"{name}.ckpt"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="tensors are not those of"):
            frugalseg.load(path)
