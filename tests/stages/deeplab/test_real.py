"""Masks of genuine photos, read as the VOC test server reads them: with Pillow, by id, size, mode and palette."""

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.callbacks import MaskWriter
from frugalseg.data import VOC, MultiScale, Segment
from frugalseg.ops.palette import voc_palette
from frugalseg.stages.deeplab import DeepLab, Inference

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


@pytest.mark.real
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_masks_are_what_the_server_takes(real_voc, tmp_path, precision):
    torch.manual_seed(0)
    inference = Inference(mirror=True, crf=True, iterations=1, max_pixels=150_000)
    task = DeepLab(21, "resnet18", None, backbone_options=SMALL, head_options={"rates": [1]}, inference=inference)
    torch.nn.init.normal_(task.net.head.branches[0].weight, std=1.0)
    data = VOC(root=real_voc, recipe=Segment(), predict_recipe=MultiScale((0.5, 1.0)), predict_split="val", limit=3,
               num_workers=0)  # fmt: skip
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path, precision=precision,
        callbacks=[MaskWriter(["masks", "masks-crf"])], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.predict(task, data, return_predictions=False)
    for folder in ("masks", "masks-crf"):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == sorted(
            f"{sample.id}.png" for sample in data.samples("predict")
        )
        for sample in data.samples("predict"):
            with Image.open(tmp_path / folder / f"{sample.id}.png") as mask, Image.open(sample.image) as photo:
                assert mask.format == "PNG" and mask.mode == "P" and mask.size == photo.size
                assert np.array_equal(np.reshape(mask.getpalette(), (-1, 3)), voc_palette())
                ids = np.asarray(mask)
            assert ids.dtype == np.uint8 and ids.max() <= 20 and len(np.unique(ids)) > 1
        # the palette of the benchmark's own masks
        with Image.open(sample.mask) as truth:
            assert np.array_equal(np.reshape(truth.getpalette(), (-1, 3))[:21], voc_palette()[:21])
