"""Every setting of the task reaches the place where it acts: steps and predictions against the parts put together."""

from itertools import combinations

import pytest
import torch
from torch import nn

from frugalseg.ops.confusion import confusion_matrix
from frugalseg.stages.deeplab import DeepLab, Inference
from frugalseg.stages.deeplab.inference import merge_passes, refine
from frugalseg.stages.deeplab.losses import scales_logits, scales_loss
from frugalseg.stages.deeplab.passes import Passes

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
SIZE = (70, 93)


def task(**settings):
    torch.manual_seed(0)
    module = DeepLab(4, "resnet18", None, backbone_options=SMALL, head_options={"rates": [1, 2]}, **settings)
    for branch in module.net.head.branches:  # decided enough for maxima and softmax to tell settings apart
        nn.init.normal_(branch.weight, std=1.0)
    module.log = lambda *args, **kwargs: None
    return module


@pytest.fixture
def labelled():
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([0, 1, 2, 3, 255])[torch.randint(5, (2, 8, 8), generator=generator)]
    image = torch.randn(2, 3, 65, 65, generator=generator)
    return {"id": ["a", "b"], "image": image, "mask": mask.repeat_interleave(9, 1).repeat_interleave(9, 2)[:, :65, :65]}


STEPS = [
    {"train_scales": scales, "loss_at": grid} for scales in ([1.0], [1.0, 0.5, 0.75]) for grid in ("logits", "mask")
]


def test_a_step_is_at_the_scales_and_on_the_grid_that_are_set(labelled):
    found = []
    for settings in STEPS:
        module = task(**settings)
        logits = scales_logits(module.net, labelled["image"], settings["train_scales"])
        expected = scales_loss(logits, labelled["mask"], settings["loss_at"] == "mask")
        found.append(module.training_step(labelled, 0))
        assert torch.equal(found[-1], expected), settings
    assert len({loss.item() for loss in found}) == len(STEPS)


@pytest.mark.parametrize("head", ["v2", "largefov", "v3plus"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_batch_of_unknown_pixels_trains_nothing(labelled, head, precision):
    options = {"v2": {"rates": [1]}, "largefov": {"hidden": [4]}, "v3plus": {"width": 4, "low_width": 2}}[head]
    module = DeepLab(4, "resnet18", None, head, backbone_options=SMALL, head_options=options, train_scales=[1.0, 0.5])
    module.log = lambda *args, **kwargs: None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = module.training_step({**labelled, "mask": torch.full_like(labelled["mask"], 255)}, 0)
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    gradients = [p.grad for p in module.parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in gradients)


def test_normalisation_is_frozen_as_set():
    for frozen in (True, False):
        norms = [m for m in task(frozen_norm=frozen).net.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(m.training != frozen and m.weight.requires_grad != frozen for m in norms)


@pytest.fixture
def picture():
    """One image at two scales with mirror images; its pixels are blobs of colour."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.randn(1, 3, *size, generator=generator) for size in (SIZE, (105, 140))]
    blobs = torch.randint(0, 256, (5, 6, 3), generator=generator).repeat_interleave(16, 0).repeat_interleave(16, 1)
    return {
        "id": ["a"], "images": [torch.cat([x, x.flip(-1)]) for x in images], "size": SIZE,
        "pixels": blobs[: SIZE[0], : SIZE[1]].to(torch.uint8),
    }  # fmt: skip


PREDICTIONS = [
    Inference(), Inference(merge="max"), Inference(of="logits"), Inference("max", "logits"), Inference(mirror=False),
    Inference(window=72), Inference(window=72, overlap=0.5), Inference(max_pixels=72 * 72),
]  # fmt: skip


@torch.no_grad()
def test_predictions_are_made_as_inference_says(picture):
    found = []
    for settings in PREDICTIONS:
        module = task(inference=settings).eval()
        passes = Passes(module.net, settings.window, settings.overlap, settings.max_pixels)
        pairs = [pair if settings.mirror else pair[:1] for pair in picture["images"]]
        expected = merge_passes([passes(pair, "a") for pair in pairs], SIZE, settings.merge, settings.of)
        found.append(module.probabilities(picture))
        assert torch.equal(found[-1], expected), settings
        masks = module.predict_step(picture, 0)["masks"]
        assert list(masks) == ["masks"] and torch.equal(masks["masks"].long(), expected.argmax(dim=0))
    # a window of 72 and tiles of 72 pixels at the same overlap are the same
    pairs = [pair for pair in combinations(range(len(found)), 2) if pair != (5, 7)]
    assert all(not torch.equal(found[one], found[other]) for one, other in pairs)


@torch.no_grad()
def test_the_crf_smooths_the_masks_of_the_same_prediction(picture):
    settings = Inference(crf=True, iterations=3)
    module = task(inference=settings).eval()
    masks = module.predict_step(picture, 0)["masks"]
    smooth = refine(picture["pixels"], module.probabilities(picture), settings)
    assert masks["masks-crf"].dtype == torch.uint8 and torch.equal(masks["masks-crf"].long(), smooth)
    assert not torch.equal(masks["masks-crf"], masks["masks"])


@torch.no_grad()
def test_validation_shows_the_background_and_the_classes_that_are_predicted(labelled):
    module = task().eval()
    module.net.head.branches[0].bias[torch.tensor([0, 2])] = -1e4
    found = module.validation_step({"id": ["a"], "image": labelled["image"][:1], "mask": labelled["mask"][:1]}, 0)
    expected = merge_passes([module.passes(labelled["image"][:1], "a")], (65, 65))
    assert found["keys"].tolist() == [0, 1, 3] and torch.equal(found["maps"], expected[[0, 1, 3]])


@torch.no_grad()
def test_each_validation_counts_anew(labelled):
    module = task(inference=Inference(window=48)).eval()
    for _ in range(2):
        module.on_validation_epoch_start()
        expected = torch.zeros(4, 4, dtype=torch.int64)
        for n in range(2):
            image, mask = labelled["image"][n : n + 1], labelled["mask"][n : n + 1]
            module.validation_step({"id": ["a"], "image": image, "mask": mask}, n)
            logits = module.passes(image, "a")
            expected += confusion_matrix(merge_passes([logits], (65, 65)).argmax(dim=0), mask[0], 4)
        assert torch.equal(module.confusion, expected) and expected.sum() == (labelled["mask"] != 255).sum()
