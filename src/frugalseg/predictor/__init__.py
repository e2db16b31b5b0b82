"""Trained nets in the hands of others: `frugalseg.load` and `frugalseg.create_model` (design.md section 6)."""

from frugalseg.predictor.base import Picture, Predictor
from frugalseg.predictor.features import FeaturePredictor
from frugalseg.predictor.few_shot import FewShotPredictor
from frugalseg.predictor.opening import build_model, open_features, open_predictor
from frugalseg.predictor.seeds import SeedPredictor
from frugalseg.predictor.segmenter import SegmentPredictor
from frugalseg.predictor.source import NetSource, Source, read_source

__all__ = [
    "FeaturePredictor",
    "FewShotPredictor",
    "NetSource",
    "Picture",
    "Predictor",
    "SeedPredictor",
    "SegmentPredictor",
    "Source",
    "build_model",
    "open_features",
    "open_predictor",
    "read_source",
]
