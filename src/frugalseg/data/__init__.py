"""Benchmarks and recipes: from files on disk to the batches of `frugalseg.batch`."""

from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.pseudo import PseudoLabels
from frugalseg.data.recipes import MultiScale, Recipe, Segment, Tags
from frugalseg.data.voc import VOC

__all__ = ["VOC", "ClassTable", "MultiScale", "PseudoLabels", "Recipe", "Sample", "Segment", "Tags"]
