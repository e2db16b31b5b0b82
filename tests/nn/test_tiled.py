import pytest
import torch

from frugalseg.nn.backbone import ResNetStages
from frugalseg.nn.tiled import stages_in_tiles

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


def net(strides=(4, 1, 2, 2, 1), **options):
    torch.manual_seed(0)
    backbone = ResNetStages("resnet18", strides, options=SMALL, **options).double().eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(
                0.5, 2
            )  # timm starts the last of each block at 0, which cuts its convolutions off
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone


@pytest.mark.parametrize("size", [(160, 224), (150, 203), (64, 96), (33, 17)])
@pytest.mark.parametrize("strides", [(4, 1, 2, 2, 1), (2, 1, 2, 1, 1)])
def test_tiles_with_enough_margin_give_the_stages_of_one_pass(size, strides):
    backbone, image = net(strides), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        whole, tiled = backbone(image), stages_in_tiles(backbone, image, core=64, margin=112)
    for expected, found in zip(whole, tiled, strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-12


def test_too_small_a_margin_shows():
    """Else the test above would prove nothing."""
    backbone, image = net(), torch.randn(1, 3, 160, 224, dtype=torch.float64)
    with torch.no_grad():
        whole, tiled = backbone(image), stages_in_tiles(backbone, image, core=64, margin=16)
    assert (tiled.layer4 - whole.layer4).abs().max() > 1e-3


def test_sides_that_shift_the_grid_and_loose_normalisation_are_refused():
    backbone, image = net(), torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    for core, margin in ((60, 32), (64, 24), (0, 0)):
        with pytest.raises(ValueError, match="multiples of the output stride 16"):
            stages_in_tiles(backbone, image, core, margin)
    with pytest.raises(ValueError, match="frozen normalisation"):
        stages_in_tiles(net(frozen_norm=False).train(), image, 64, 32)
