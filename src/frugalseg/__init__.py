"""frugalseg: semantic segmentation with few labels (SFC, CTI, DSMF-Net, MEVT)."""

from frugalseg._version import __version__

__all__ = ["__version__"]
