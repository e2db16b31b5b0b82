"""Rows of finished evaluations of dense features: what they are called, what is averaged, and what is left out."""

import json

import numpy as np
import pytest
from rich.console import Console

from frugalseg.analysis.dense_rows import has_dense, read_rows, write_rows
from frugalseg.analysis.dense_tables import columns, dense_lines, dense_table
from frugalseg.errors import RunFolderError

OWN = {"name": "frugalseg.papers.mevt.model:create", "options": {"preset": "mevt_s"}, "stages": [-1],
       "weights": "runs/mevt-pretrain-xs/seed0/pretrain/checkpoints/last.ckpt"}  # fmt: skip
PROBE = {"_class_path": "frugalseg.stages.probe.LinearProbe", "protocol": "L", "head": "linear", "input_size": 448,
         "grid": 100, "width": 256, "num_classes": 21, "features": OWN}  # fmt: skip


def stage(
    experiment, name="probe", seed=0, scores=None, settings=None, data="frugalseg.data.VOC", trainer=None, done=True
):
    folder = experiment / f"seed{seed}" / name
    folder.mkdir(parents=True)
    scores = {"val/miou": 0.5, "val/miou_best": 0.6, "val/accuracy": 0.7} if scores is None else scores
    (folder / "metrics.json").write_text(json.dumps({"protocol/L": 1.0, "protocol/width": 256.0, **scores}))
    identity = {
        "data": {"class_path": data, "init_args": {}},
        "trainer": {"max_epochs": 25, "max_steps": -1, **(trainer or {})},
    }
    record = {"hyperparameters": {**PROBE, **(settings or {})}, "identity": identity}
    (folder / "provenance.json").write_text(json.dumps(record))
    if done:
        (folder / "done.json").write_text("{}")
    return folder


def test_seeds_of_one_setting_are_one_row(tmp_path):
    values = {0: 0.41, 1: 0.47, 3: 0.52}
    for seed, value in values.items():
        stage(tmp_path, seed=seed, scores={"val/miou": value})
    # the seed is in the name of the checkpoint too
    for seed in values:
        path = tmp_path / f"seed{seed}/probe/provenance.json"
        path.write_text(path.read_text().replace("seed0", f"seed{seed}"))
    (row,) = read_rows(tmp_path)
    assert row.figures["val/miou"]["mean"] == pytest.approx(np.mean(list(values.values())))
    assert row.figures["val/miou"]["std"] == pytest.approx(np.std(list(values.values()), ddof=1))
    heads, (line,) = columns([row])
    assert dict(zip(heads, line, strict=True))["seeds"] == str(len(values))
    assert "best" not in heads and "±" in line[heads.index("mIoU last")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ("VOC, 21 classes", "mevt_s, mevt-pretrain-xs", "L, linear, 448 px, masks 100 x 100, 25 epochs", "256")),
        ({"features": {**OWN, "weights": None}}, ("mevt_s, random",)),
        ({"features": {**OWN, "options": {"preset": "mevt_s", "joined": True, "context": False}}}, ("mevt_s Z ++ F4 (context False), ",)),
        ({"features": {"name": "vit_small_patch16_224", "weights": "vit_small_patch16_224.dino", "stages": [-1, 5]}},
         ("vit_small_patch16_224, stages -1, 5, vit_small_patch16_224.dino",)),
        ({"features": {"name": "resnet50", "weights": "some/where/net.safetensors"}}, ("resnet50, net.safetensors",)),
        ({"_class_path": "a.Clustering", "protocol": "K2", "clusters": None, "mirror": True, "seeds": 5, "grid": None, "input_size": 320},
         ("K2, 21 clusters, 320 px, mirrored too, 5 runs of k-means",)),
        ({"_class_path": "a.Retrieval", "neighbours": 30, "memory_size": 1000000, "grid": None, "input_size": 512},
         ("retrieval, 30 of 1,000,000 neighbours, 512 px",)),
        ({"_class_path": "a.FineTune", "head": "upernet", "width": None}, ("fine-tuning, upernet, 25 epochs", "-")),
    ],
)  # fmt: skip
def test_facts_are_told_in_words(tmp_path, settings, words):
    stage(tmp_path, settings=settings)
    (row,) = read_rows(tmp_path)
    told = tuple(row.facts)
    assert all(any(word in each for each in told) for word in words), told


def test_seeds_of_different_settings_are_different_rows(tmp_path):
    stage(tmp_path, seed=0)
    stage(tmp_path, seed=1, trainer={"max_epochs": -1, "max_steps": 40000})
    rows = read_rows(tmp_path)
    assert [row.facts.protocol.rsplit(", ", 1)[1] for row in rows] == ["25 epochs", "40,000 steps"] or len(rows) == 2
    assert {row.figures["val/miou"]["n"] for row in rows} == {1.0}
    write_rows(tmp_path, rows)
    kept = [json.loads((tmp_path / f"aggregate/{name}.json").read_text()) for name in ("probe", "probe-2")]
    assert [each["facts"] for each in kept] == [row.facts._asdict() for row in rows]
    assert (tmp_path / "aggregate/probe-2.csv").read_text().splitlines()[0].endswith("data,backbone,protocol,width")


def test_what_is_unfinished_old_or_something_else_is_left_out(tmp_path):
    stage(tmp_path, "probe", done=False)
    stage(tmp_path, "probe.old-12345678")
    other = stage(tmp_path, "pretrain")
    (other / "metrics.json").write_text('{"train/loss": 3.0}')
    assert not has_dense(tmp_path) and read_rows(tmp_path) == []
    stage(tmp_path, "cluster-validate")
    assert has_dense(tmp_path) and [row.stage for row in read_rows(tmp_path)] == ["cluster"]


def test_kept_features_are_called_by_their_benchmark(tmp_path):
    folder = stage(tmp_path, data="frugalseg.stages.probe.CachedFeatures")
    record = json.loads((folder / "provenance.json").read_text())
    index = tmp_path / "cache.json"
    record["identity"]["data"]["init_args"] = {"index": str(index)}
    (folder / "provenance.json").write_text(json.dumps(record))
    assert read_rows(tmp_path)[0].facts.data == "kept features, 21 classes"
    index.write_text('{"benchmark": "ADE20K"}')
    assert read_rows(tmp_path)[0].facts.data == "ADE20K, 21 classes"


def test_a_record_that_tells_nothing_is_an_error(tmp_path):
    folder = stage(tmp_path)
    (folder / "provenance.json").write_text('{"identity": {}}')
    with pytest.raises(RunFolderError, match=r"provenance\.json: does not tell what was judged.*run the stage again"):
        read_rows(tmp_path)


def test_a_page_has_the_cells_of_the_terminal(tmp_path):
    stage(tmp_path, scores={"val/miou": 0.25, "val/miou_crf": 0.375})
    rows = read_rows(tmp_path)
    heads, (line,) = columns(rows)
    assert dense_lines(rows)[2] == f"| {' | '.join(line)} |" and line[heads.index("mIoU, CRF")] == f"{37.5:.1f}"
    assert dense_lines([]) == []


def test_brackets_in_names_are_shown(tmp_path):
    stage(tmp_path, settings={"features": {**OWN, "weights": "some/[red]net.ckpt"}})
    console = Console(width=300, record=True)
    console.print(dense_table(read_rows(tmp_path)))
    assert "[red]net.ckpt" in console.export_text()
