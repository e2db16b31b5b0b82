import re
from urllib.parse import urlsplit

import pytest

from frugalseg.data.sources import NEXT, SOURCES, STEPS, steps
from frugalseg.data.unpack import SUFFIXES

ALL = [source for sources in SOURCES.values() for source in sources]
DIGITS = {"md5": 32, "sha256": 64}


def test_benchmarks():
    assert set(SOURCES) | set(STEPS) == {
        *("voc", "sbd", "coco2014", "coco2017", "coco-stuff", "ade20k"),
        *("cityscapes", "isaid", "isaid5i", "dlrsd"),
    }  # fmt: skip
    assert set(NEXT) == set(SOURCES) - set(STEPS)


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.name)
def test_a_source_is_well_formed(source):
    address = urlsplit(source.url)
    assert address.scheme in ("http", "https")
    assert address.path.endswith(f"/{source.name}")
    assert source.size is None or source.size > 100_000_000
    assert not source.unpack.startswith(("/", ".."))
    if source.digest:
        algorithm, _, number = source.digest.partition(":")
        assert re.fullmatch(f"[0-9a-f]{{{DIGITS[algorithm]}}}", number)


def test_no_file_or_digest_twice():
    assert len({source.name for source in ALL}) == len(ALL)
    digests = [source.digest for source in ALL if source.digest]
    assert len(set(digests)) == len(digests)


def test_all_but_lists_are_archives_that_can_be_unpacked():
    assert [source.name for source in ALL if not source.name.endswith(SUFFIXES)] == ["train_noval.txt"]


def test_sums_of_torchvision():
    sbd = pytest.importorskip("torchvision.datasets.sbd").SBDataset
    voc = pytest.importorskip("torchvision.datasets.voc").DATASET_YEAR_DICT["2012"]
    (archive,), (masks, split) = SOURCES["voc"], SOURCES["sbd"]
    assert (archive.name, archive.digest) == (voc["filename"], f"md5:{voc['md5']}")
    assert (masks.name, masks.digest) == (sbd.filename, f"md5:{sbd.md5}")
    assert (split.name, split.digest) == (sbd.voc_split_filename, f"md5:{sbd.voc_split_md5}")


@pytest.mark.parametrize("benchmark", STEPS)
def test_steps_name_the_folder_the_files_and_what_comes_next(benchmark):
    text = steps(benchmark, "/data/x")
    numbers = [int(line[0]) for line in text.splitlines() if line[0].isdigit()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "https://" in text
    assert "/data/x" in text
    assert "{root}" not in text
    assert "{{" not in text
    assert "checksum" in text
    assert f"   frugalseg data check {'isaid5i' if benchmark == 'isaid' else benchmark} --root /data/x" in text


def test_no_steps():
    assert steps("voc", "/data") == ""
