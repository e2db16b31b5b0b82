"""The words for what a few-shot result hangs on besides the method, and what published tables keep silent about.

Protocols, episodes and model selection: dsmf.md sections 5.3, 5.4 and 6.2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frugalseg.errors import RunFolderError

PROTOCOLS = {
    "P1": "SDM's pairs; training tiles keep the novel classes, as background",
    "P2": "DMNet's rule; training drops every tile that is listed for a novel class",
    "D1": "SCCNet's pairs, without trees and water; training and test share their images, which keep the novel classes,"
    " as background",
    "D2": "PCFNet's pairs, without field and sea; about 70/30 per class, but images still overlap across classes and"
    " keep the novel ones, as background",
}
"""In one phrase each."""
UNTRAINED = "nothing trained"
LAST = "last step, nothing selected"
THRESHOLD = "threshold by base training episodes"
"""Of the prototype baseline, whose last step is the only one."""
ELSEWHERE = "last step of a fit that is not at hand"
SELECTION = {
    "base": "best on held-out base classes",
    "novel": "best on the novel test episodes (the field's habit)",
}
"""By what the fit validated on."""
AGAIN = "run the stage that writes it again"


def protocol_texts(tested: str, trained: str) -> tuple[str, str]:
    """Heading and phrase of a protocol; only the training's own rule is told of a net that was trained with another.

    Args:
        tested: protocol of the test, of `PROTOCOLS`.
        trained: protocol of the fit; empty where that is not known.
    """
    if trained == tested:
        return tested, PROTOCOLS[tested]
    pairs = f"tests are those of {tested}, {PROTOCOLS[tested].partition('; ')[0]}"
    if not trained:
        return f"{tested} (trained with what is not known)", f"{pairs}; what the net was trained with is not known"
    return f"{tested} (trained with {trained})", f"{pairs}; training was that of {trained}, {PROTOCOLS[trained]}"


def section(path: Path, content: Mapping[str, Any], key: str, above: str = "") -> dict[str, Any]:
    """A part of a file that has parts of its own."""
    part = content.get(key)
    if not isinstance(part, dict):
        raise RunFolderError(f"{path}: has no section {above}{key}; {AGAIN}")
    return part
