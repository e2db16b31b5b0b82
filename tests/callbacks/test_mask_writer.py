"""The callback alone; whole chains are in tests/integration."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.callbacks import MaskWriter
from frugalseg.data.io import made_by
from frugalseg.errors import ConfigError
from frugalseg.ops.palette import voc_palette


class Data:
    def __init__(self):
        self.skipped = None

    def skip(self, ids):
        self.skipped = ids

    def write_mask(self, path, ids, run):
        from frugalseg.data.io import write_mask

        write_mask(path, ids, voc_palette(), run)


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "provenance.json").write_text(json.dumps({"digest": "d" * 64}))
    return SimpleNamespace(
        default_root_dir=str(tmp_path), datamodule=Data(), strategy=SimpleNamespace(broadcast=lambda value: value)
    )


def write(writer, trainer, name, **masks):
    writer.on_predict_batch_end(trainer, None, {"id": name, "masks": masks}, None, 0)


def test_masks_become_palette_files_that_name_their_run(trainer, tmp_path):
    writer = MaskWriter(["masks", "masks-crf"])
    writer.setup(trainer, None, "predict")
    assert trainer.datamodule.skipped == set()
    ids = torch.tensor([[0, 1], [20, 255]])
    write(writer, trainer, "a", **{"masks": ids, "masks-crf": ids.flip(0)})
    for folder, expected in (("masks", ids), ("masks-crf", ids.flip(0))):
        path = tmp_path / folder / "a.png"
        with Image.open(path) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), expected.numpy())
            assert image.getpalette()[:9] == voc_palette()[:3].flatten().tolist()
        assert made_by(path) == "d" * 64


def test_only_ids_with_all_masks_are_left_out(trainer, tmp_path):
    for name in ("masks/a", "masks/b", "masks-crf/b", "masks/.c"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    MaskWriter(["masks", "masks-crf"]).setup(trainer, None, "predict")
    assert trainer.datamodule.skipped == {"b"}
    MaskWriter(["masks"]).setup(trainer, None, "predict")
    assert trainer.datamodule.skipped == {"a", "b"}


def test_what_it_cannot_do_is_said(trainer):
    writer = MaskWriter(["masks", "soft"])
    writer.setup(trainer, None, "predict")
    with pytest.raises(ConfigError, match="soft is not predicted, only masks"):
        write(writer, trainer, "a", masks=torch.zeros(2, 2, dtype=torch.int64))
    trainer.datamodule = object()
    with pytest.raises(ConfigError, match="knows the palette"):
        writer.setup(trainer, None, "predict")
    writer.setup(trainer, None, "fit")
