"""Few-shot test stages: exact scores from counts, facts, and everything that is refused."""

import json

import numpy as np
import pytest
import yaml

from frugalseg.analysis.few_shot import has_few_shot, read_stages
from frugalseg.analysis.few_shot_facts import ELSEWHERE, LAST, PROTOCOLS, SELECTION, THRESHOLD, UNTRAINED
from frugalseg.data import dlrsd, isaid5i
from frugalseg.errors import RunFolderError
from frugalseg.run import write_arrays, write_json
from tests.analysis.few_shot_runs import COSTS, slow_metrics, slow_scores, write_test


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**content, **values}.items() if v is not None}))


def refused(root, match):
    with pytest.raises(RunFolderError, match=match) as caught:
        read_stages(root / "dsmf")
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("seeds", [(0,), (4, 0, 2), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_scores_are_those_of_the_counts(tmp_path, protocol, seeds):
    _, order, sums = write_test(tmp_path, fold=1, seed=7, shots=5, protocol=protocol, seeds=seeds)
    (stage,) = read_stages(tmp_path / "dsmf")
    assert (stage.fold, stage.seed, stage.shots) == (1, 7, 5)
    assert list(stage.scores) == sorted(seeds)
    for seed, rows in zip(order.tolist(), sums, strict=True):
        slow, found = slow_scores(rows), stage.scores[seed]
        # the file holds float32, so this shows that the counts were read
        assert found.miou == pytest.approx(slow["miou"], abs=1e-15)
        assert found.fb_iou == pytest.approx(slow["fb_iou"], abs=1e-15)
        assert found.iou == slow["iou"]
        assert found.episodes == slow["episodes"] == 40
    assert stage.costs == {
        "parameters": COSTS["model/parameters"], "parameters_trainable": COSTS["model/parameters_trainable"],
        "flops": COSTS["model/flops"], "episodes_per_second": COSTS["test/episodes_per_second"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "fold", "names"),
    [
        ("P2", 1, isaid5i.NAMES[6:11]),
        ("D1", 1, dlrsd.NAMES[5:10]),
        ("D2", 2, [dlrsd.NAMES[c] for c in (11, 13, 14, 15, 16)]),
    ],
)
def test_facts(tmp_path, protocol, fold, names):
    write_test(tmp_path, fold=fold, protocol=protocol, size=128, file="lists/{seed}.csv")
    (stage,) = read_stages(tmp_path / "dsmf")
    assert stage.fold_facts == {
        "classes": ", ".join(names), "episodes": "40", "episodes file": "lists/{seed}.csv",
    }  # fmt: skip
    assert stage.facts == {
        "benchmark": "DLRSD" if protocol[0] == "D" else "ISAID5i", "protocol": protocol, "pair lists": "packaged",
        "image size": "128", "selection rule": LAST, "base seeds": "0 1 2",
    }  # fmt: skip


def test_a_class_without_episodes_is_named(tmp_path):
    write_test(tmp_path, fold=1, classes=(6, 7, 8, 9), seeds=(0,))
    (stage,) = read_stages(tmp_path / "dsmf")
    assert stage.fold_facts["classes"].endswith(
        f"{isaid5i.NAMES[10]} (in a base seed without episodes: {isaid5i.NAMES[10]})"
    )
    assert len(stage.scores[0].iou) == 4


def test_episodes_files_are_told_apart_by_what_is_in_them(tmp_path):
    files = []
    for name, path, digests in (("a", "e.csv", "xy"), ("b", "e.csv", "xz"), ("c", None, ""), ("d", "None", "")):
        inputs = {f"episodes of base seed {seed}": digest for seed, digest in enumerate(digests)}
        write_test(tmp_path, name, file=path, inputs=inputs)
        files.append(read_stages(tmp_path / name)[0].fold_facts["episodes file"])
    assert files[0] != files[1] and all(file.startswith("e.csv, digest ") for file in files[:2])
    assert files[2:] == ["none", "none"]


def test_lists_and_worlds_on_disk_are_told_apart(tmp_path):
    lists = {"val/val_list/split0_val.txt": "a"}
    for name, inputs in {
        "a": lists,
        "b": {**lists, "val/val_list/split1_val.txt": "b"},
        "c": {"world.json": "w"},
    }.items():
        write_test(tmp_path, name, inputs={"weights": name, **inputs})
    facts = [read_stages(tmp_path / name)[0].facts for name in "abc"]
    assert len({fact["pair lists"] for fact in facts}) == 3
    assert [fact["benchmark"] for fact in facts] == ["ISAID5i", "ISAID5i", "ISAID5i, miniature world"]


@pytest.mark.parametrize(
    ("checkpoint", "validated", "rule"),
    [
        ("best", "base", SELECTION["base"]),
        ("best", "novel", SELECTION["novel"]),
        ("last", "novel", LAST),
        (None, "base", UNTRAINED),
    ],
)
def test_selection_rule(tmp_path, monkeypatch, checkpoint, validated, rule):
    """By the fit's settings: those of the test say novel always. Found from anywhere, also after the runs moved."""
    for root in (tmp_path / "runs", tmp_path / "moved"):
        write_test(root, checkpoint=checkpoint, validated=validated)
        monkeypatch.chdir(tmp_path)
        assert read_stages(root / "dsmf")[0].facts["selection rule"] == rule
        monkeypatch.chdir("/")
        assert read_stages(root / "dsmf")[0].facts["selection rule"] == rule


def test_rules_in_so_many_words(tmp_path):
    """Literally: constants that changed places would go unseen."""
    prototype = "frugalseg.papers.dsmf.baselines.PrototypeBaseline"
    for name, settings, rule in (
        ("a", {"checkpoint": "best", "validated": "base"}, "best on held-out base classes"),
        ("b", {"checkpoint": "best", "validated": "novel"}, "best on the novel test episodes (the field's habit)"),
        ("c", {"checkpoint": "last", "validated": "novel"}, "last step, nothing selected"),
        ("d", {"checkpoint": None}, "nothing trained"),
        ("e", {"checkpoint": "last", "model": prototype}, "threshold by base training episodes"),
        ("f", {"checkpoint": "last", "model": "PrototypeBaseline"}, "threshold by base training episodes"),
        ("g", {"checkpoint": "last", "model": "mine.NoPrototypeBaseline"}, "last step, nothing selected"),
    ):
        write_test(tmp_path, name, **settings)
        assert read_stages(tmp_path / name)[0].facts["selection rule"] == rule
    assert SELECTION == {
        "base": "best on held-out base classes", "novel": "best on the novel test episodes (the field's habit)",
    }  # fmt: skip
    assert (LAST, UNTRAINED) == ("last step, nothing selected", "nothing trained")
    assert THRESHOLD == "threshold by base training episodes"


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_net_of_another_protocol_is_told_apart(tmp_path, checkpoint):
    """The training's rule is that of the fit; found in another experiment too, and after the runs moved."""
    folder, *_ = write_test(tmp_path, protocol="P1", trained="P2", checkpoint=checkpoint)
    settings = read_stages(tmp_path / "dsmf")[0].settings
    assert settings.facts["protocol"] == "P1 (trained with P2)"
    assert settings.protocol == (
        "tests are those of P1, SDM's pairs; training was that of P2, DMNet's rule; training drops every tile that is"
        " listed for a novel class"
    )
    write_test(tmp_path, "other", protocol="P1", checkpoint=checkpoint)
    (tmp_path / "other/fold0/seed0/train").rename(tmp_path / "unused")
    config = (folder / "config.yaml").read_text()
    (tmp_path / "other/fold0/seed0/1shot-test/config.yaml").write_text(config)
    assert read_stages(tmp_path / "other")[0].facts["protocol"] == "P1 (trained with P2)"


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_plain_protocol(tmp_path, protocol, checkpoint):
    write_test(tmp_path, protocol=protocol, checkpoint=checkpoint)
    settings = read_stages(tmp_path / "dsmf")[0].settings
    assert (settings.facts["protocol"], settings.protocol) == (protocol, PROTOCOLS[protocol])


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_fit_that_is_not_the_tests_is_refused(tmp_path, checkpoint):
    write_test(tmp_path, fold=1, trained_fold=2, checkpoint=checkpoint)
    refused(tmp_path, "tests fold 1, but by .*train/provenance.json the fit is of fold 2")
    write_test(tmp_path, fold=1, trained="P9", checkpoint=checkpoint)
    refused(tmp_path, "train/provenance.json: .*protocol is 'P9'")
    folder, *_ = write_test(tmp_path, fold=1, checkpoint=checkpoint)
    write_json(folder.parent / "train/provenance.json", {"identity": {"data": {"init_args": {"val_classes": "base"}}}})
    refused(tmp_path, "the fit is of fold None")


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_fit_that_was_cut_short_is_refused(tmp_path, checkpoint):
    folder, *_ = write_test(tmp_path, checkpoint=checkpoint)
    (folder.parent / "train/done.json").unlink()
    refused(tmp_path, f"^{folder.parent / 'train'}: has no done.json, .*finish it")


@pytest.mark.parametrize("path", ["gone/train/checkpoints/last.ckpt", "weights/last.ckpt", "last.ckpt"])
def test_a_last_step_from_elsewhere(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    folder, *_ = write_test(tmp_path)
    (folder.parent / "train").rename(tmp_path / "unused")
    (tmp_path / "weights").mkdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "ckpt_path": path}))
    settings = read_stages(tmp_path / "dsmf")[0].settings
    assert settings.facts["selection rule"] == ELSEWHERE == "last step of a fit that is not at hand"
    assert settings.facts["protocol"] == "P1 (trained with what is not known)"
    assert "training tiles" not in settings.protocol
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "ckpt_path": path.replace("last", "best")}))
    with pytest.raises(RunFolderError, match=r"provenance\.json: not readable"):
        read_stages(tmp_path / "dsmf")


def test_selection_that_is_not_known_is_refused(tmp_path):
    folder, *_ = write_test(tmp_path, checkpoint="best", validated="both")
    refused(tmp_path, "val_classes is 'both'")
    record = folder.parent / "train" / "provenance.json"
    write_json(record, {"identity": {"data": None}})
    refused(tmp_path, "val_classes is None")
    record.unlink()
    refused(tmp_path, "train/provenance.json: not readable")
    write_test(tmp_path, checkpoint="epoch=3")
    refused(tmp_path, "neither best.ckpt nor last.ckpt")


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_fit_that_was_run_again_since_is_refused(tmp_path, checkpoint):
    folder, *_ = write_test(tmp_path, checkpoint=checkpoint)
    write_json(folder.parent / "train" / "done.json", {"finished": "2026-01-01T11:00:01+00:00"})
    refused(tmp_path, "test again")


def test_unfinished_and_old_stages_are_left_out(tmp_path):
    write_test(tmp_path, fold=2, seed=1, shots=5)
    write_test(tmp_path, fold=0, seed=0)
    write_test(tmp_path, fold=1, done=False)
    folder, *_ = write_test(tmp_path, fold=0, seed=3)
    folder.rename(folder.with_name("1shot-test.old-12345678"))
    assert [(s.shots, s.fold, s.seed) for s in read_stages(tmp_path / "dsmf")] == [(1, 0, 0), (5, 2, 1)]


def test_nothing_finished(tmp_path):
    assert not has_few_shot(tmp_path / "dsmf")
    write_test(tmp_path, done=False)
    assert has_few_shot(tmp_path / "dsmf")
    refused(tmp_path, "no finished few-shot test")


def metric_keys(seeds=(0, 1, 2)):
    return [*slow_metrics(np.array(seeds), np.ones((len(seeds), 16, 5), np.int64) * [1, 1, 1, 2, 2])]


@pytest.mark.parametrize(
    "key",
    [
        "test/miou", "test/miou_std", "test/fb_iou", "test/fb_iou_std", "test/iou/3", "test/iou_std/3",
        "test/seed1/miou", "test/seed1/fb_iou", "test/seed1/iou/5", "test/seed2/episodes", "test/episodes",
        "test/seeds", "test/classes",
    ],
)  # fmt: skip
@pytest.mark.parametrize("by", [1e-5, -1e-5, None, float("nan")])
def test_metrics_that_are_not_the_counts_are_refused(tmp_path, key, by):
    folder, *_ = write_test(tmp_path)
    path = folder / "metrics.json"
    assert key in metric_keys()
    read_stages(tmp_path / "dsmf")
    change(path, **{key: None if by is None else json.loads(path.read_text())[key] + by})
    refused(tmp_path, f"metrics.json: (lacks )?{key}")


@pytest.mark.parametrize("key", ["test/seed3/miou", "test/iou/6", "test/iou_std/0", "test/seed0/iou/9"])
def test_metrics_of_what_was_not_counted_are_refused(tmp_path, key):
    folder, *_ = write_test(tmp_path)
    change(folder / "metrics.json", **{key: 0.5})
    refused(tmp_path, f"has {key}")


def test_counts_that_changed_are_refused(tmp_path):
    """One pixel in a thousand more in a union."""
    folder, seeds, sums = write_test(tmp_path)
    sums[1, 2, 4] += max(1, sums[1, 2, 4] // 1000)
    write_arrays(folder / "counts.npz", {"seeds": seeds, "sums": sums})
    refused(tmp_path, "counts.npz gives")


def with_cell(sums, place, value):
    sums[place] = value
    return sums


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda seeds, sums: {"seeds": seeds}, "not readable"),
        (lambda seeds, sums: {"seeds": seeds, "sums": sums.astype(float)}, "not whole numbers"),
        (lambda seeds, sums: {"seeds": seeds[:2], "sums": sums}, "of shape"),
        (lambda seeds, sums: {"seeds": seeds, "sums": sums[..., :4]}, "of shape"),
        (lambda seeds, sums: {"seeds": seeds, "sums": sums[0]}, "of shape"),
        (lambda seeds, sums: {"seeds": seeds[:0], "sums": sums[:0]}, "of shape"),
        (lambda seeds, sums: {"seeds": seeds * 0, "sums": sums}, "twice"),
        (lambda seeds, sums: {"seeds": seeds, "sums": sums[:, :15]}, "counts 15 classes"),
        (lambda seeds, sums: {"seeds": seeds, "sums": with_cell(sums, (0, 1, 1), -1)}, "negative"),
        (lambda seeds, sums: {"seeds": seeds, "sums": with_cell(sums, (0, 1, 2), 10**9)}, "more intersection"),
        (lambda seeds, sums: {"seeds": seeds, "sums": with_cell(sums, (0, 1, 0), 0)}, "without episodes"),
        (lambda seeds, sums: {"seeds": seeds, "sums": with_cell(sums, 0, 0)}, "base seed without episodes"),
        (lambda seeds, sums: {"seeds": seeds, "sums": with_cell(sums, (0, 6), 1)}, "ground track field"),
    ],
)
def test_damaged_counts_are_refused(tmp_path, spoil, reason):
    folder, seeds, sums = write_test(tmp_path)
    write_arrays(folder / "counts.npz", spoil(seeds, sums))
    refused(tmp_path, f"counts.npz: .*{reason}")


@pytest.mark.parametrize("name", ["counts.npz", "metrics.json", "provenance.json", "config.yaml"])
@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_damaged_files_are_refused(tmp_path, name, text):
    folder, *_ = write_test(tmp_path)
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    refused(tmp_path, name)


def test_pickles_are_not_read(tmp_path):
    folder, *_ = write_test(tmp_path)
    np.savez(folder / "counts.npz", seeds=np.array([0]), sums=np.array([object()], dtype=object))
    refused(tmp_path, "counts.npz: not readable")


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (("data",), None, "no section data;"),
        (("data", "init_args", "recipe"), None, "no section data.init_args.recipe"),
        (("data", "init_args", "fold"), 2, "fold is 2, but the folder says 0"),
        (("data", "init_args", "recipe", "init_args", "shots"), 5, "shots is 5, but the folder says 1"),
        (("data", "init_args", "protocol"), "D1", "ISAID5i with protocol D1"),
        (("data", "class_path"), "frugalseg.data.VOC", "VOC with protocol P1"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, place, value, match):
    folder, *_ = write_test(tmp_path)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    part = config
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path.write_text(yaml.safe_dump(config))
    refused(tmp_path, f"config.yaml: .*{match}")


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    write_test(tmp_path, fold=3, classes=(1, 2))
    refused(tmp_path, "3 is none of the 3 folds")
