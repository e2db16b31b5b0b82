"""Lists, tables of episodes, annotations and the instances json."""

import json
from pathlib import Path
from random import Random
from typing import Any

from frugalseg.analysis.claims import read_claims
from frugalseg.data.coco_masks import list_jobs, make_mask
from frugalseg.data.coco_tags import parse_instances
from frugalseg.data.episode_files import EpisodeRow, read_episodes, write_episodes
from frugalseg.data.isaid5i_lists import pairs
from frugalseg.data.lists import parse_ids, parse_pairs, read_text_file, split_ids, split_pairs
from frugalseg.data.voc import class_table, read_annotation
from frugalseg.errors import DatasetError
from frugalseg.miniature.coco import write_coco_world
from frugalseg.stages.probe.index import read_index
from tests.conftest import REPOSITORY
from tests.fuzz.kind import Kind
from tests.fuzz.mutate import damaged, damaged_text, damaged_value

IDS = "2007_000032\n2007_000039\n/JPEGImages/2007_000063.jpg /SegmentationClassAug/2007_000063.png\n\n2008_1\n"
PAIRS = "P0003_0_256_0_256__01\nP0003/P0004_0_256_0_256_2\nP0161_instance_color_RGB.png_07\n"
CLASSES = "background\naeroplane\nbicycle\n"
ANNOTATION = """<annotation><filename>a.jpg</filename><object><name>bicycle</name><difficult>1</difficult>
<part><name>head</name></part></object><object><name> aeroplane </name></object></annotation>"""
BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bicycle"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]><annotation><object><name>&d;</name></object></annotation>"""
INDEX = {
    "train": ["train", "0a"], "val": ["val", "0b"], "benchmark": "VOC", "class_names": ["a", "b"], "backbone": "0c", "width": 3,
    "input_size": 32, "grid": 2, "images": {"train": 3, "val": 2},
}  # fmt: skip


def texts(folder: Path) -> dict[str, str]:
    rows = [EpisodeRow(n, 1 + n % 2, f"q{n}", (f"s{n}", f"t{n}")) for n in range(4)]
    write_episodes(
        folder / "episodes.csv", rows, "benchmark ISAID5i, split val, protocol P1, fold 0, shots 2, base seed 0"
    )
    return {
        "ids": IDS, "split": IDS, "pairs": PAIRS, "isaid": "P0003_0_256_0_256__01\nP0004_0_256_0_256__02\n" * 1,
        "episodes": (folder / "episodes.csv").read_text(), "classes": CLASSES, "xml": ANNOTATION, "bomb": BOMB,
        "index": json.dumps(INDEX), "claims": (REPOSITORY / "experiments/claims/claims.yaml").read_text(),
    }  # fmt: skip


def try_text(seeds: dict[str, str], place: Path, rng: Random) -> None:
    kind = rng.choice(list(seeds))
    path = place / "x.txt"
    if kind == "isaid":
        path = place / "val/val_list/split0_val.txt"
        path.parent.mkdir(parents=True)
    elif kind == "classes":
        path = place / "ImageSets/classes.txt"
        path.parent.mkdir(parents=True)
    path.write_bytes(damaged_text(seeds[kind], rng))
    READERS[kind](path, place)


def _ids(path: Path, _place: Path) -> None:
    ids = parse_ids(read_text_file(path), str(path))
    assert len(set(ids)) == len(ids) and not any("/" in name for name in ids)


def _split(path: Path, _place: Path) -> None:
    assert split_ids("none", "train", [path])


def _pairs(path: Path, _place: Path) -> None:
    found = parse_pairs(read_text_file(path), str(path))
    assert len(set(found)) == len(found) and all(0 <= pair.class_id <= 99 for pair in found)
    split_pairs("none", "x", [path])


def _isaid(_path: Path, place: Path) -> None:
    assert all(1 <= pair.class_id <= 5 for pair in pairs(place, "val", 0, novel=True))


def _episodes(path: Path, _place: Path) -> None:
    images = [f"{letter}{n}" for letter in "qst" for n in range(4)]
    for row in read_episodes(path, 1, images, (1, 2), "split val"):
        assert row.query in images and set(row.supports) <= set(images) and row.class_id in (1, 2)


def _classes(_path: Path, place: Path) -> None:
    assert 2 <= len(class_table(place).names) <= 255


def _annotation(path: Path, _place: Path) -> None:
    assert set(read_annotation(path, ("background", "aeroplane", "bicycle"))) <= {0, 1}


def _index(path: Path, _place: Path) -> None:
    index = read_index(path)
    assert isinstance(index.train[0], str)


READERS = {
    "ids": _ids, "split": _split, "pairs": _pairs, "isaid": _isaid, "episodes": _episodes, "classes": _classes,
    "xml": _annotation, "bomb": _annotation, "index": _index, "claims": lambda path, _place: read_claims(path),
}  # fmt: skip


def instances(folder: Path) -> tuple[bytes, Any]:
    write_coco_world(folder, 3, 2, seed=0)
    data = next(folder.rglob("instances_val*.json")).read_bytes()
    return data, json.loads(data)


def try_instances(seed: tuple[bytes, Any], place: Path, rng: Random) -> None:
    path = place / "instances_val2014.json"
    data, content = seed
    if rng.random() < 0.7:
        # only a few annotations, so that most faults hit what is read
        value = damaged_value({**content, "annotations": rng.sample(content["annotations"], 2)}, rng)
        path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")
    else:
        path.write_bytes(damaged(data, rng))
    if rng.random() < 0.5:
        found = parse_instances(path)
        assert all(0 <= tag < len(found.names) for tags in found.tags().values() for tag in tags)
        return
    for job in list_jobs(path, place / "masks", "class"):
        if job.size[0] * job.size[1] > 10**6:
            raise DatasetError(f"{path}: claims an image of {job.size}, which would take its time and space")
        make_mask(job)
        assert job.path.is_file() and job.path.is_relative_to(place)


KINDS = (
    Kind("lists", "lists of ids, pairs and classes, episodes, annotations, claims", 2000, texts, try_text),
    Kind("coco", "instances json", 900, instances, try_instances),
)
