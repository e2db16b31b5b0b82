"""What happens around training: writing maps, pictures, provenance, progress. Imports ops and batch only."""

from frugalseg.callbacks.cam_writer import CamWriter
from frugalseg.callbacks.compiled import Compile
from frugalseg.callbacks.episode_pictures import EpisodePictures
from frugalseg.callbacks.layout import ChannelsLast
from frugalseg.callbacks.mask_writer import MaskWriter
from frugalseg.callbacks.pictures import Pictures
from frugalseg.callbacks.progress import LineProgress
from frugalseg.callbacks.random_state import RandomState
from frugalseg.callbacks.recompute import Recompute

__all__ = [
    "CamWriter",
    "ChannelsLast",
    "Compile",
    "EpisodePictures",
    "LineProgress",
    "MaskWriter",
    "Pictures",
    "RandomState",
    "Recompute",
]
