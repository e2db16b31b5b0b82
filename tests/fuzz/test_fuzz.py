"""A small part of what `make fuzz` tries, what it has found, and the tool itself."""

import json
import os
import time
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frugalseg.commands.checkpoints import check_checkpoint
from frugalseg.data.episode_files import read_episodes
from frugalseg.data.lists import parse_ids, parse_pairs, read_text_file
from frugalseg.data.normalise import Normaliser
from frugalseg.errors import CheckpointError, ConfigError, DatasetError, FrugalsegError
from frugalseg.stages.probe.index import read_index
from frugalseg.yaml_text import load_yaml, read_yaml
from tests.conftest import REPOSITORY
from tests.fuzz import archives, nets, pictures, texts
from tests.fuzz.__main__ import KINDS, main
from tests.fuzz.kind import Kind
from tests.fuzz.mutate import TEXTS, damaged, damaged_text, damaged_value
from tests.fuzz.run import run_kind

SLICE = {kind.name: kind for kind in (*pictures.KINDS, *texts.KINDS, *archives.KINDS, nets.KINDS[0])}


@pytest.mark.parametrize("name", SLICE)
def test_a_slice(name):
    """Other inputs than those of `make fuzz`: those have been mended."""
    row = run_kind(SLICE[name], 30, seed=77)
    assert row.failures == []
    assert row.inputs == row.accepted + row.refused == 30
    assert row.refused > 0


# ---------------------------------------------------------------------- what was found


def test_a_bad_line_is_not_told_whole():
    with pytest.raises(DatasetError) as caught:
        parse_pairs("a" * 5000, "list")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("known", [3, 1.5, "text", None, [], True])
def test_hyper_parameters_that_are_none(tmp_path, known):
    torch.save({"hyper_parameters": known}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="which task"):
        check_checkpoint(tmp_path / "x.ckpt", "frugalseg.papers.sfc.SFC")


@pytest.mark.parametrize("odd", ["x", None, [1], {}])
def test_means_that_are_no_numbers(odd):
    """From a package's config.json."""
    for mean, std in (([odd, 0, 0], [1, 1, 1]), ([0, 0, 0], [1, 1, odd])):
        with pytest.raises(ConfigError, match="numbers"):
            Normaliser(mean, std)


# ---------------------------------------------------------------------- structures that hypothesis makes up

QUIET = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LINES = st.lists(
    st.one_of(st.sampled_from(TEXTS), st.text(max_size=12), st.from_regex(r"P\d{4}_\d_1__\d\d?")), max_size=6
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TEXTS[:30]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["train", "class_path", "val", "a", ""]), inner, max_size=4)
    ),
    max_leaves=12,
)


def reads(read, *arguments):
    """Accepted, or one line."""
    try:
        return read(*arguments)
    except FrugalsegError as error:
        assert str(error).strip()
        return None


@QUIET
@given(LINES, st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_lists_of_any_lines(tmp_path, lines, encoding):
    path = tmp_path / "x.txt"
    path.write_bytes("\n".join(lines).encode(encoding, "surrogatepass"))
    text = reads(read_text_file, path)
    if text is not None:
        ids = reads(parse_ids, text, "x")
        assert ids is None or len(set(ids)) == len(ids)
        reads(parse_pairs, text, "x")
    rows = reads(read_episodes, path, 1, ["a"], [1], "val")
    assert rows is None or all(row.query == "a" for row in rows)


@QUIET
@given(JSON)
def test_json_of_any_form(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    reads(read_index, path)
    reads(texts.parse_instances, path)


@QUIET
@given(JSON)
def test_yaml_keeps_what_json_says(tmp_path, content):
    """Plain values come back as they were, or are refused; nothing else comes of them."""
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    found = reads(read_yaml, path)
    assert found is None or json.dumps(found) == json.dumps(load_yaml(path.read_text()))


# ---------------------------------------------------------------------- the tool


def attempts(name, attempt):
    return Kind(name, "", 1, lambda folder: None, attempt)


def hang(_seed, _place, _rng):
    time.sleep(600)


def odd(_seed, place, rng):
    number = rng.random()
    if number < 0.2:
        raise KeyError("x")
    if number < 0.4:
        raise DatasetError("said so")
    if number < 0.5:
        os._exit(3)
    if number < 0.6:
        (place / ".x.1.tmp").touch()


def test_every_end_is_counted():
    """A defect, a process that dies and a file that is half-written are failures, and the inputs behind them are tried."""
    row = run_kind(attempts("odd", odd), 60)
    told = [what for _, what in row.failures]
    assert row.inputs == 60 == row.accepted + row.refused + len(row.failures)
    assert row.accepted and row.refused
    assert any("KeyError" in what and "test_fuzz.py" in what for what in told)
    assert any("died" in what for what in told) and any("half-written" in what for what in told)


def test_hangs_are_failures(monkeypatch):
    monkeypatch.setattr("tests.fuzz.run.LIMIT", 0.5)
    row = run_kind(attempts("hang", hang), 2)
    assert [number for number, _ in row.failures] == [0, 1]
    assert "took more" in row.failures[0][1]


def test_memory_is_bounded():
    def grow(_seed, _place, _rng):
        bytearray(8 << 30)

    assert "MemoryError" in run_kind(attempts("grow", grow), 1).failures[0][1]


def test_the_same_seed_gives_the_same_damage():
    data, value = bytes(range(256)), {"a": [1, {"b": "x"}], "c": None}
    for make in (
        lambda rng: damaged(data, rng),
        lambda rng: damaged_text("a b\nc: 1", rng),
        lambda rng: repr(damaged_value(value, rng)),
    ):
        assert [make(Random(n)) for n in range(30)] == [make(Random(n)) for n in range(30)]
        assert len({make(Random(n)) for n in range(30)}) > 15
    assert value == {"a": [1, {"b": "x"}], "c": None}


def test_rows_go_to_files(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fuzz: begin (python -m tests.fuzz --into) -->\nold\n<!-- fuzz: end -->\nafter\n")
    assert main(["--only", "kept", "--count", "5", "--out", str(tmp_path / "x.json"), "--into", str(page)]) == 0
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["inputs"] == 5 and record["rows"][0]["failures"] == []
    text = page.read_text()
    assert "| kept | kept pixels | 5 |" in text and "| all |" in text and "old" not in text and text.endswith("after\n")
    capsys.readouterr()
    again = tmp_path / "again.md"
    again.write_text(text.replace("kept pixels", "gone"))
    assert main(["--kept", str(tmp_path / "x.json"), "--into", str(again)]) == 0
    assert again.read_text() == text


def test_the_kept_results_are_whole():
    """results/fuzz.json: at least 10,000 inputs, of all kinds, and no failure."""
    record = json.loads(Path(REPOSITORY, "results/fuzz.json").read_text())
    assert record["inputs"] >= 10_000
    assert {kind.name for kind in KINDS} <= {row["kind"] for row in record["rows"]}
    assert [row["kind"] for row in record["rows"] if row["failures"]] == []
    assert all(row["inputs"] == row["accepted"] + row["refused"] for row in record["rows"])
