"""Released checkpoints of others into ours, and ours back into their names.

`sources.SOURCES` lists whose files are read; each says in one place how its tensors are called (`source.Plan`), so that
both directions and the printed table come from the same rules.
"""

from frugalseg.convert.back import to_official
from frugalseg.convert.ours import to_ours
from frugalseg.convert.source import Request
from frugalseg.convert.sources import SOURCES

__all__ = ["SOURCES", "Request", "to_official", "to_ours"]
