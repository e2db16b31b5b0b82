"""The comparison itself finds what it must."""

import io
import json

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.faults.compare import differences


@pytest.fixture
def pair(tmp_path):
    """Two equal folders of a stage."""
    for name in ("one", "other"):
        folder = tmp_path / name
        (folder / "masks").mkdir(parents=True)
        (folder / "done.json").write_text(json.dumps({"digest": "d", "finished": name}))
        (folder / "metrics.json").write_text(json.dumps({"val/miou": 0.5, "test/episodes_per_second": len(name)}))
        (folder / "metrics.csv").write_text("step,loss\n0,1.5\n1,1.25\n")
        torch.save({"state_dict": {"w": torch.ones(3)}, "global_step": 2}, folder / "last.ckpt")
        text = PngInfo()
        text.add_text("frugalseg", name)
        Image.new("P", (4, 4)).save(folder / "masks/a.png", pnginfo=text)
    return tmp_path / "one", tmp_path / "other"


def checkpoint(**content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def test_what_may_differ_is_told_apart_from_what_may_not(pair):
    wrong, excused = differences(*pair, rerun=True)
    assert wrong == [] and set(excused) == {"done.json", "metrics.json", "masks/a.png"}
    wrong, _ = differences(*pair)
    assert wrong == ["masks/a.png: differs"]  # within one run the header is the same too


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("done.json", b'{"digest": "other"}', "done.json: digest differs"),
        ("metrics.json", b'{"val/miou": 0.25}', "metrics.json: val/miou differs"),
        ("metrics.csv", b"step,loss\n0,1.5\n1,1.5\n", "metrics.csv: rows differ"),
        ("metrics.csv", b"step,loss\n0,1.5\n1,1.25\n1,1.25\n", "metrics.csv: rows differ"),
        (
            "last.ckpt",
            checkpoint(state_dict={"w": torch.zeros(3)}, global_step=2),
            "last.ckpt: state_dict/w is a tensor",
        ),
        ("last.ckpt", checkpoint(state_dict={"w": torch.ones(3)}, global_step=3), "last.ckpt: global_step is 2 and 3"),
        ("more.npz", b"", "more.npz: should not be there"),
    ],
)
def test_a_difference_is_found(pair, name, content, said):
    (pair[1] / name).write_bytes(content)
    (pair[1] / "masks/a.png").write_bytes((pair[0] / "masks/a.png").read_bytes())
    wrong, _ = differences(*pair)
    assert len(wrong) == 1 and wrong[0].startswith(said)


def test_other_pixels_and_missing_files_are_found(pair):
    Image.new("P", (4, 4), 1).save(pair[1] / "masks/a.png")
    (pair[1] / "metrics.csv").unlink()
    wrong, _ = differences(*pair, rerun=True)
    assert wrong == ["masks/a.png: pixels differ", "metrics.csv: is missing"]
