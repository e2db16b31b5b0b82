"""Records behind the tables of pages: every table of every page is the rendering of its record, and of nothing else."""

import json
import re

import pytest

from frugalseg.analysis.dense_rows import DenseRow, Facts
from frugalseg.analysis.dense_tables import dense_lines
from frugalseg.analysis.few_shot_tables import page_lines
from frugalseg.analysis.markdown import marks, page_lines_of, read_between
from frugalseg.analysis.results import body_of, dump, read_records, record_of, record_path, render
from frugalseg.analysis.seeds import aggregate
from frugalseg.cli import main
from frugalseg.errors import ConfigError
from tests.analysis.test_few_shot_tables import rows_in, write_all
from tests.analysis.test_markdown import SFC, page
from tests.analysis.test_tables import ablation
from tests.conftest import REPOSITORY

PAGES = sorted(REPOSITORY.glob("src/frugalseg/papers/*/README.md"))
PLACE = re.compile(re.escape(marks("NAME")[0]).replace("NAME", "([A-Za-z0-9_-]+)"))


def places(path):
    return PLACE.findall(path.read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name)
def test_every_table_of_a_page_is_the_rendering_of_its_record(path):
    records = {REPOSITORY / r["page"]: {} for r in read_records(REPOSITORY).values()}
    for file, record in read_records(REPOSITORY).items():
        records[REPOSITORY / record["page"]][record["marker"]] = body_of(file, record)
    assert places(path) and sorted(places(path)) == sorted(records[path])
    for name, body in records[path].items():
        assert body and read_between(path, *marks(name)) == body


def test_records_say_how_they_were_made():
    for file, record in read_records(REPOSITORY).items():
        assert record["command"].startswith("frugalseg ") and re.fullmatch("[0-9a-f]{40}", record["git"]["commit"]), (
            file
        )
        assert record["versions"]["torch"], file


def copy_of(record):
    return json.loads(dump(record))


def test_scores_survive():
    results = {name: {"score-train": rows} for name, rows in ablation().items()}
    results["sfc"] = {"score": aggregate({0: SFC | {"train/iou_m0/cat": 0.5, "train/pixel_accuracy_m0": 0.5}})}
    record = record_of(results, [], [])
    assert render(copy_of(record)) == page_lines_of(results) and len(render(record)) > 5
    kept = record["scores"]["sfc"]["score"]
    assert "train/iou_m0/background" in kept and not {"train/iou_m0/cat", "train/pixel_accuracy_m0"} & set(kept)


def test_scores_along_a_chain_survive():
    maps, labels = aggregate({0: {"val/miou_m0": 0.5}}), aggregate({0: {"val/miou_crf": 0.6}, 1: {"val/miou_crf": 0.7}})
    results = {
        "sfc": {"score-val": maps, "score-labels-val": labels, "score-segment-val": aggregate({0: {"val/miou": 1}})}
    }
    lines = render(copy_of(record_of(results, [], [])))
    assert lines == page_lines_of(results) and any("65.0 ±7.1" in line for line in lines)


def test_few_shot_rows_survive(tmp_path):
    write_all(tmp_path)
    write_all(tmp_path, "fem", shots=5)
    rows = rows_in(tmp_path, "dsmf", "fem")
    record = copy_of(record_of({}, rows, []))
    assert render(record) == page_lines(rows) and len(render(record)) > 20
    record["few_shot"][0]["stages"][0]["scores"]["0"]["miou"] += 0.01
    assert render(record) != page_lines(rows)


def test_dense_rows_survive():
    figures = aggregate({0: {"val/miou": 0.25, "val/iou/cat": 0.5}, 1: {"val/miou": 0.5}})
    rows = [DenseRow("mevt", "probe", Facts("VOC", "net", "M", "64"), figures)]
    record = copy_of(record_of({}, [], rows))
    assert render(record) == dense_lines(rows) and set(record["dense"][0]["figures"]) == {"val/miou"}


@pytest.mark.parametrize(
    "content",
    [{}, [], {"a": {}}, {"b": 1, "a": [1, [2, (3, "x")], {"c": None}]}, [{"x": "y" * 50, "z": [["w" * 50]]}] * 3],
)
def test_the_dump_is_json_in_the_given_order(content):
    assert dump(content).count("\n") == dump(copy_of(content)).count("\n")
    assert json.dumps(json.loads(dump(content))) == json.dumps(content)


def test_where_a_record_belongs(tmp_path):
    path = tmp_path / "src/frugalseg/papers/sfc/README.md"
    assert record_path(path) == tmp_path / "results/sfc.json"
    assert record_path(path, "real") == tmp_path / "results/sfc-real.json"
    for other in ("README.md", "src/frugalseg/papers/sfc/other.md", "papers/sfc/README.md", "a/b/c/d/README.md"):
        assert record_path(tmp_path / other) is None


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A page whose tables `frugalseg report` has written from one run."""
    folder = tmp_path / "runs/sfc/seed0/score"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(SFC))
    (folder / "done.json").write_text("{}")
    path = tmp_path / "src/frugalseg/papers/sfc/README.md"
    path.parent.mkdir(parents=True)
    page(path, "results", "real")
    monkeypatch.chdir(tmp_path)
    assert main(["report", "runs/sfc", "--into", str(path)]) == 0
    return tmp_path


def test_report_leaves_a_record_from_which_the_page_comes_back(checkout, capsys):
    path = checkout / "src/frugalseg/papers/sfc/README.md"
    right, record = path.read_text(), json.loads((checkout / "results/sfc.json").read_text())
    assert (record["page"], record["marker"]) == ("src/frugalseg/papers/sfc/README.md", "results")
    assert record["scores"]["sfc"]["score"]["train/miou_m0"] == {"mean": 0.5, "std": 0.0, "n": 1.0, "seed0": 0.5}
    assert "| sfc | train | M0 classifier | 50.0 " in right and main(["results", "--check"]) == 0
    path.write_text(right.replace("50.0", "51.0"))
    assert main(["results", "--check"]) == 2
    assert "src/frugalseg/papers/sfc/README.md (results/sfc.json); run `frugalseg results`" in capsys.readouterr().err
    assert "51.0" in path.read_text()
    (checkout / "runs").rename(checkout / "gone")
    assert main(["results"]) == 0 and path.read_text() == right


def test_one_page_has_several_records(checkout):
    path = checkout / "src/frugalseg/papers/sfc/README.md"
    assert main(["report", "runs/sfc", "--into", str(path), "--marker", "real"]) == 0
    assert set(read_records(checkout)) == {checkout / f"results/{name}.json" for name in ("sfc", "sfc-real")}
    assert "\nold\n" not in path.read_text() and main(["results", "--check"]) == 0


def test_a_page_elsewhere_has_none(checkout, tmp_path_factory):
    other = page(tmp_path_factory.mktemp("other") / "README.md", "results")
    assert main(["report", "runs/sfc", "--into", str(other)]) == 0
    assert set(read_records(checkout)) == {checkout / "results/sfc.json"} and not (other.parent / "results").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not readable"),
        ("[]", "not a JSON object"),
        ('{"page": "README.md", "marker": "results"}', "no record of"),
    ],
)
def test_damaged_records_are_named(checkout, text, told):
    (checkout / "README.md").write_text("\n".join(marks()))
    (checkout / "results/bad.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"bad.json: {told}"):
        for file, record in read_records(checkout).items():
            body_of(file, record)


def test_a_checkout_without_records(tmp_path, capsys):
    assert main(["results", "--top", str(tmp_path)]) == 2 and "holds no records" in capsys.readouterr().err
