"""Every kind of file to ours and back, and ours to the authors' names and back, bit by bit."""

import json

import pytest
import torch
from safetensors import safe_open

from frugalseg._version import __version__
from frugalseg.cli import main
from frugalseg.convert.matching import same
from frugalseg.run import file_digest
from tests.convert.kinds import KINDS, inner

TRAINING_ONLY = ("bank.", "class_weight", "memory.")


def read(path):
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.startswith("left_out.")}  # noqa: SIM118
    return torch.load(path, weights_only=True)


def part_of(kind):
    return "student" if "student" in kind.words else "teacher"


@pytest.mark.parametrize("name", KINDS)
def test_official_to_ours_and_back_is_exact(converted, name):
    """Equal names in equal order, equal bits, the same wrapper; and the authors' net loads it strictly."""
    found = converted(name)
    theirs, wrapper = inner(found.content, part_of(found.kind))
    back, wrapper_back = inner(read(found.back), part_of(found.kind))
    assert wrapper_back == wrapper and list(back) == list(theirs)
    assert [n for n in theirs if not same(theirs[n], back[n])] == []
    if found.kind.net is not None:
        found.kind.net().load_state_dict({n.removeprefix("module."): t for n, t in back.items()}, strict=True)


@pytest.mark.parametrize("name", KINDS)
def test_the_new_file_and_its_report_say_where_it_came_from(converted, name):
    found = converted(name)
    report = json.loads(found.ours.with_name(f"{found.ours.name}.json").read_text())
    theirs, _ = inner(found.content, part_of(found.kind))
    assert (report["source"], report["sha256"]) == (found.kind.source, file_digest(found.theirs))
    assert report["version"] == __version__ and report["tensors"] == len(theirs)
    # every tensor of the file is accounted for
    assert report["matched"] + report["repeated"] + len(report["left"]) + len(report["unknown"]) == len(theirs)
    assert not report["unknown"]
    if found.ours.suffix == ".safetensors":
        with safe_open(found.ours, "pt") as file:
            record = json.loads(file.metadata()["frugalseg_converted"])
    else:
        record = read(found.ours)["converted"]
    assert (record["source"], record["sha256"], record["version"]) == (found.kind.source, report["sha256"], __version__)


def unmarked(path, found):
    """The same net without the record of a conversion, other numbers in it: as if trained here."""
    content = read(found.ours)
    state = content.get("state_dict", content)
    generator = torch.Generator().manual_seed(5)
    state = {n: torch.rand(t.shape, generator=generator).to(t.dtype) if t.numel() else t for n, t in state.items()}
    if "state_dict" not in content:
        torch.save(state, path)
        return state
    torch.save({"state_dict": state, "hyper_parameters": content["hyper_parameters"]}, path)
    return state


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("sfc", "irn", "cti")]
"""Their names are compared without a file in test_use."""


@pytest.mark.parametrize("name", [*LARGE, "cti-narrow", "torchvision", "deit", "dino", "resnet38", "psa"])
def test_ours_to_official_and_back_is_exact(converted, name, tmp_path):
    """A net that was never converted gets all the authors' names, and comes back equal but for training's memory."""
    found = converted(name)
    ours, official, again = tmp_path / "ours.ckpt", tmp_path / "official.pth", tmp_path / f"again{found.kind.ending}"
    state = unmarked(ours, found)
    assert main(["convert", str(ours), "--to", "official", "--from", found.kind.source, "--out", str(official)]) == 0
    named, wrapper = inner(torch.load(official, weights_only=True))
    assert wrapper == {"cti": ("model",), "deit": ("model",)}.get(found.kind.source, ())
    if name in ("sfc", "irn", "cti", "cti-narrow"):
        assert set(named) == set(found.kind.net().state_dict())
    assert main(["convert", str(official), "--from", found.kind.source, "--out", str(again), *found.kind.words]) == 0
    content = read(again)
    back = content.get("state_dict", content)
    kept = {n: t for n, t in state.items() if not n.startswith(TRAINING_ONLY)}
    assert set(kept) == {n for n in back if not n.startswith(TRAINING_ONLY)}
    assert [n for n in kept if not same(kept[n], back[n])] == []
