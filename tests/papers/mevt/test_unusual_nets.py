"""Nets of timm that do not behave as ResNet and ViT do."""

from pathlib import Path

import numpy as np
import pytest

from frugalseg.errors import ConfigError
from frugalseg.papers.mevt import Pretrain
from frugalseg.papers.mevt.backbones import create_backbone
from frugalseg.predictor import FeaturePredictor
from frugalseg.predictor.source import Source
from tests.papers.mevt.test_task import HEADS, RULE


def test_a_net_without_stochastic_depth_can_be_pretrained():
    Pretrain(preset="vgg11_bn", heads=HEADS, rule=RULE)


def test_every_cell_of_a_convnext_is_of_its_own_pixels():
    """It rounds its maps down: of images that are not padded to its stride, cells would be missing."""
    net = create_backbone("convnext_atto", None).eval()
    source = Source(Path("x"), "convnext_atto", {}, net.net.state_dict())
    found = FeaturePredictor(source).features(np.zeros((90, 40, 3), dtype=np.uint8))
    assert found.shape[1:] == (-(-90 // net.stride), -(-40 // net.stride))


def test_a_transformer_that_norms_its_average_alone_is_refused():
    """Its norm would be idle, and its features not normed."""
    changes = {"depth": 2, "embed_dim": 24, "global_pool": "avg", "class_token": False}
    with pytest.raises(ConfigError, match="leave out global_pool"):
        Pretrain(preset="vit_tiny_patch16_224", heads=HEADS, rule=RULE, changes=changes)
