"""Checkpoints, weights and packages: valid files of tiny nets, damaged in their bytes and in what they say."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from frugalseg.commands.checkpoints import check_checkpoint
from frugalseg.nn.weights import load_backbone_weights, read_file
from frugalseg.predictor.opening import predictor_of
from frugalseg.predictor.source import read_package, read_source
from frugalseg.run import file_digest
from tests.checkpoints import pretraining, write_checkpoint
from tests.fuzz.kind import Kind
from tests.fuzz.mutate import NUMBERS, damaged, damaged_value

TASK = "frugalseg.papers.sfc.SFC"


class Trap:
    """Something that writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def contents(_folder: Path) -> dict[str, Any]:
    state = small().state_dict()
    known = {
        "_class_path": TASK,
        "num_classes": 4,
        "lr": 0.1,
        "weights": None,
        "preset": "mevt_tiny",
        "changes": {"depth": 1},
    }
    return {
        "state_dict": state,
        "hyper_parameters": known,
        "global_step": 7,
        "epoch": 1,
        "loops": {},
        "pytorch-lightning_version": "2",
    }


def _file(content: dict[str, Any], place: Path, rng: Random) -> Path:
    """A damaged checkpoint, or another file of weights."""
    form = rng.choice(("zip", "zip", "zip", "old", "plain", "safetensors", "trap", "pickle"))
    path = place / ("x.safetensors" if form == "safetensors" else rng.choice(("x.ckpt", "x.pth", "x.pt")))
    stream = io.BytesIO()
    if form == "safetensors":
        stream.write(save(content["state_dict"]))
    elif form == "pickle":
        stream.write(pickle.dumps(Trap(str(place / "ran"))))
    else:
        whole = content["state_dict"] if form == "plain" else _changed(content, rng)
        if form == "trap":
            whole = {**content, rng.choice(list(content)): Trap(str(place / "ran"))}
        torch.save(whole, stream, _use_new_zipfile_serialization=form != "old")
    data = stream.getvalue()
    keep = form == "trap" or (form == "zip" and rng.random() < 0.6)
    if not keep:
        data = _inside(data, rng) if form == "zip" and rng.random() < 0.5 else damaged(data, rng)
    path.write_bytes(data)
    return path


def _changed(content: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Other settings, and now and then other tensors."""
    plain = {key: value for key, value in content.items() if key != "state_dict"}
    found = damaged_value({"all": plain}, rng)
    found = (
        found["all"] if isinstance(found, dict) and isinstance(found.get("all"), dict) else {"hyper_parameters": found}
    )
    if rng.random() < 0.8:
        found["state_dict"] = dict(content["state_dict"])
        if rng.random() < 0.4:
            odd = rng.choice(
                (torch.zeros(0), torch.full((4, 3, 3, 3), torch.nan), torch.zeros(3, dtype=torch.int8), 3, "x", None)
            )
            found["state_dict"][rng.choice(("0.weight", "1.bias", "x", ""))] = odd
    return found


def _inside(data: bytes, rng: Random) -> bytes:
    """Damage to one file of a zip that is sound otherwise."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        names = old.namelist()
        hit = rng.choice(names)
        for name in names:
            new.writestr(name, damaged(old.read(name), rng) if name == hit else old.read(name))
    return stream.getvalue()


def try_checkpoint(content: dict[str, Any], place: Path, rng: Random) -> None:
    try:
        path = _file(content, place, rng)
        reader = rng.randrange(4)
        if reader == 0:
            check_checkpoint(path, TASK)
        elif reader == 1:
            read_source(path)
        elif reader == 2:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_file(path).values())
        else:
            assert load_backbone_weights(small(), str(path)) == 6
    finally:
        assert not (place / "ran").exists(), "it was unpickled"


def package(folder: Path) -> tuple[dict[str, Any], bytes]:
    from frugalseg.commands.package import run

    checkpoint = write_checkpoint(folder / "run", pretraining())
    run([str(checkpoint), "--out", str(folder / "package")])
    config = json.loads((folder / "package/config.json").read_text())
    return config, (folder / "package/model.safetensors").read_bytes()


def try_package(seed: tuple[dict[str, Any], bytes], place: Path, rng: Random) -> None:
    config, weights = seed
    if rng.random() < 0.3:
        weights = damaged(weights, rng)
    (place / "model.safetensors").write_bytes(weights)
    content = damaged_value(config, rng)
    if isinstance(content, dict) and isinstance(content.get("weights"), dict) and rng.random() < 0.7:
        content["weights"]["sha256"] = file_digest(place / "model.safetensors")
    if isinstance(content, dict) and rng.random() < 0.3:
        name = rng.choice(
            ("depth", "embed_dim", "num_heads", "patch_size", "mlp_ratio", "drop_path", "x", "img_size", "layers")
        )
        content["changes"] = {name: rng.choice((*NUMBERS, 0.5, "x", None, []))}
    data = json.dumps(content).encode("utf-8", "surrogatepass")
    (place / "config.json").write_bytes(damaged(data, rng) if rng.random() < 0.2 else data)
    predictor = predictor_of(read_package(place))
    assert predictor.kind


KINDS = (
    Kind("checkpoints", "checkpoints and weights: ckpt, pth, safetensors", 900, contents, try_checkpoint),
    Kind("packages", "folders of `frugalseg package`", 300, package, try_package),
)
