"""The benchmarks by the names that `frugalseg data` takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from frugalseg.data import ade20k, cityscapes, coco, dlrsd, isaid5i, voc
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Segment
from frugalseg.errors import ConfigError


@dataclass(frozen=True)
class Benchmark:
    """What the verbs need to know.

    Attributes:
        make: root -> its data module.
        published: split -> number of images.
    """

    make: Callable[[Path], SegmentationData]
    published: Mapping[str, int]


BENCHMARKS: dict[str, Benchmark] = {
    "voc": Benchmark(lambda root: voc.VOC(root, Segment()), voc.COUNTS),
    "coco2014": Benchmark(lambda root: coco.COCO(root, Segment(), year=2014), coco.COUNTS[2014]),
    "coco2017": Benchmark(lambda root: coco.COCO(root, Segment(), year=2017), coco.COUNTS[2017]),
    "coco-stuff": Benchmark(lambda root: coco.COCO(root, Segment(), year=2017, labels="stuff171"), coco.COUNTS[2017]),
    "coco-stuff27": Benchmark(lambda root: coco.COCO(root, Segment(), year=2017, labels="stuff27"), coco.COUNTS[2017]),
    "ade20k": Benchmark(lambda root: ade20k.ADE20K(root, Segment()), ade20k.COUNTS),
    "cityscapes": Benchmark(lambda root: cityscapes.Cityscapes(root, Segment()), cityscapes.COUNTS),
    "cityscapes27": Benchmark(lambda root: cityscapes.Cityscapes(root, Segment(), labels="27"), cityscapes.COUNTS),
    "isaid5i": Benchmark(lambda root: isaid5i.ISAID5i(root, Segment()), isaid5i.COUNTS),
    "dlrsd": Benchmark(lambda root: dlrsd.DLRSD(root, Segment()), dlrsd.COUNTS),
}


def benchmark(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        ConfigError: no such name.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no such benchmark: {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
