"""Trained nets in the hands of others: `frugalseg.load` and `frugalseg.create_model` (design.md section 6)."""

from frugalseg.predictor.base import Picture, Predictor
from frugalseg.predictor.features import FeaturePredictor
from frugalseg.predictor.opening import build_model, open_predictor
from frugalseg.predictor.source import Source, read_source

__all__ = ["FeaturePredictor", "Picture", "Predictor", "Source", "build_model", "open_predictor", "read_source"]
