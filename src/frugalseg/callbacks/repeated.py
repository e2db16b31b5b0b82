"""Overlays that are given twice."""

from collections.abc import Iterable
from itertools import takewhile

from lightning.pytorch import Callback, Trainer


def is_repeated(trainer: Trainer | None, callback: Callback) -> bool:
    """Whether an earlier callback of a trainer is of the same kind, so that this one has nothing left to change.

    Args:
        trainer: None for none, as where a callback is set up by hand.
        callback: that asks; overlays add to the callbacks, so that one given twice is there twice.
    """
    earlier: Iterable[Callback] = takewhile(lambda each: each is not callback, getattr(trainer, "callbacks", ()))
    return any(type(each) is type(callback) for each in earlier)
