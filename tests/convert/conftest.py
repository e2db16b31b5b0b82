"""Files of every kind, converted once per session by the verb."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from frugalseg.cli import main
from tests.convert.kinds import KINDS, Kind


@dataclass(frozen=True)
class Converted:
    """A file of the authors' (`theirs`, with its `content`), what was made of it, and what was made of that again."""

    kind: Kind
    content: Any
    theirs: Path
    ours: Path
    back: Path


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """Name of a kind -> its files."""
    made = {}

    def make(name):
        if name not in made:
            kind, folder = KINDS[name], tmp_path_factory.mktemp(name)
            theirs, ours, back = folder / "theirs.pth", folder / f"ours{kind.ending}", folder / "back.pth"
            content = kind.build()
            torch.save(content, theirs)
            assert main(["convert", str(theirs), "--out", str(ours), *kind.words]) == 0
            assert main(["convert", str(ours), "--to", "official", "--out", str(back)]) == 0
            made[name] = Converted(kind, content, theirs, ours, back)
        return made[name]

    return make
