"""Tables and the forest plot of settled claims, and the verb that makes them."""

import csv
import io
import json

import pytest
from PIL import Image

from frugalseg.analysis.claims import parse_claims
from frugalseg.analysis.claims_rows import settle
from frugalseg.analysis.claims_runs import Runs
from frugalseg.analysis.claims_tables import HEADS, claims_csv, claims_lines, clock, plain, signed
from frugalseg.cli import main
from tests.analysis.claim_runs import SEEDS, commit, entry, finish, study, text_of
from tests.analysis.test_claims_rows import BANK, PLAIN
from tests.analysis.test_markdown import cells_of

CONTROL = {"treatment": "bank-b", "baseline": "plain-b"}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A checkout with claims that are older than their runs."""
    file = tmp_path / "experiments/claims/claims.yaml"
    file.parent.mkdir(parents=True)
    lacking = entry(id="cti-bg", paper="cti", treatment="bg", unit="% | of", better="lower", margin=2)
    both = entry(id="sfc-both", kind="interaction", control=CONTROL, controls=["sfc-bank"])
    file.write_text(text_of(entry(), both, lacking))
    commit(tmp_path, "2026-01-01T00:00:00+00:00")
    study(tmp_path / "runs", bank=BANK, plain=PLAIN, **{"bank-b": PLAIN, "plain-b": BANK})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rows(house):
    return settle(parse_claims((house / "experiments/claims/claims.yaml").read_text(), ""), Runs(house / "runs"), {})


def test_numbers_keep_two_digits():
    assert [signed(value) for value in (12.3456, -0.5, 0.0123, 0.0, None)] == [
        "+12.35",
        "-0.50",
        "+0.012",
        "+0.00",
        "-",
    ]
    assert [plain(value) for value in (12.3456, -0.5, None)] == ["12.35", "-0.50", "-"]
    assert [clock(value) for value in (None, 59.4, 60, 5400)] == ["-", "59 s", "1.0 min", "1.5 h"]


def test_lines_of_a_page(rows):
    head, rule, bank, both, lacking, *rest = claims_lines(rows, 3, 600.0)
    assert cells_of(head) == list(HEADS) and rule.count("|") == head.count("|")
    row = rows[0]
    assert cells_of(bank) == [
        "**sfc-bank**: the bank raises M_W (Table 5)", "51.60", "56.20",
        f"+4.60 [+{row.low:.2f}, +{row.high:.2f}] points of mIoU", "5 of 5 higher", "holds",
        f"{row.p_adjusted:.3f}"[1:], "10.0 min",
    ]  # fmt: skip
    assert cells_of(both)[1:3] == ["51.60 (56.20)", "56.20 (51.60)"] and cells_of(both)[3].startswith("+9.20 [")
    assert cells_of(lacking)[3:7] == ["-, margin 2", "0 of 0 lower", "incomplete (0 of 5 seeds)", "-"]
    text = "\n".join(rest)
    assert "corrects for all 3 claims" in text and "All together 10.0 min." in text
    assert "cti-bg: seeds 11, 12, 13, 14, 15 lacking (bg score)." in text
    assert "- **sfc-both** (`make claims ONLY=sfc-bank`): all but the bank. Read beside sfc-bank." in text


def test_csv_has_a_line_per_claim_and_a_column_per_seed(rows):
    lines = list(csv.DictReader(io.StringIO(claims_csv(rows))))
    assert [line["id"] for line in lines] == ["sfc-bank", "sfc-both", "cti-bg"]
    for line, row in zip(lines, rows, strict=True):
        assert {s: float(line[f"seed{s}"]) for s in SEEDS if line[f"seed{s}"]} == {
            int(s): value for s, value in row.differences.items()
        }
        assert line["verdict"] == row.verdict and line["mean"] == ("" if row.mean is None else str(row.mean))
    assert float(lines[1]["control baseline"]) == pytest.approx(56.2)


def claims(capsys, *words):
    code = main(["claims", *words])
    return code, capsys.readouterr()


def test_the_verb_writes_all_forms(house, capsys):
    code, told = claims(capsys)
    assert code == 0 and "5 of 5 higher" in told.out
    assert "first run started 2026-01-02T00:00:00+00:00: each claim is older" in " ".join(told.out.split())
    folder = house / "runs/claims"
    content = json.loads((folder / "claims.json").read_text())
    assert content["claims"] == 3 and [row["claim"]["id"] for row in content["rows"]] == [
        "sfc-bank",
        "sfc-both",
        "cti-bg",
    ]
    assert content["rows"][0]["fixed"] == "2026-01-01T00:00:00+00:00"
    assert content["rows"][0]["standing"] == "before the runs"
    assert content["rows"][0]["values"]["treatment"] == {str(s): v for s, v in zip(SEEDS, BANK, strict=True)}
    record = content["runs"]["bank"]["seed11/score"]
    assert (record["digest"], record["commit"], record["seconds"]) == ("bank/seed11/score", "c0ffee", 60.0)
    assert content["command"] == "frugalseg claims" and content["git"]["commit"] and content["versions"]["torch"]
    with Image.open(folder / "claims.png") as image:
        assert image.size[0] > 800 and len(image.convert("L").getcolors()) > 20
    assert {path.name for path in folder.iterdir()} == {f"claims.{end}" for end in ("json", "csv", "md", "png")}


def test_claims_that_are_younger_than_their_runs_are_told(house, capsys):
    finish(house / "runs", "bank/seed11/classify", started="2025-12-31T00:00:00+00:00")
    file = house / "experiments/claims/claims.yaml"
    file.write_text(file.read_text().replace("margin: 2", "margin: 3"))
    _, told = claims(capsys)
    said = (
        "started 2025-12-31T00:00:00+00:00; fixed after the first run started: sfc-bank, sfc-both; not known of cti-bg."
    )
    assert said in " ".join(told.out.split())


def test_what_is_shown_is_chosen_and_what_is_written_is_not(house, capsys):
    _, told = claims(capsys, "--only", "cti", "--json", "one.json")
    assert "cti-bg" in told.out and "sfc-bank" not in told.out and "for all 3 claims" in " ".join(told.out.split())
    assert len(json.loads((house / "runs/claims/claims.json").read_text())["rows"]) == 3
    one = json.loads((house / "one.json").read_text())
    assert [row["claim"]["id"] for row in one["rows"]] == ["cti-bg"] and one["claims"] == 3
    assert set(one["runs"]) == {"plain"}


def test_a_page_is_the_rendering_of_its_record(house, capsys):
    page = house / "README.md"
    page.write_text("a\n<!-- claims: begin (frugalseg report --into) -->\n<!-- claims: end -->\nb\n")
    assert claims(capsys, "--into", "README.md", "--json", "results/claims.json")[0] == 0
    assert claims_lines([], 0, 0.0)[0] in page.read_text() and page.read_text().endswith("<!-- claims: end -->\nb\n")
    assert main(["results", "--check"]) == 0
    page.write_text(page.read_text().replace("51.60", "51.61", 1))
    assert main(["results", "--check"]) == 2 and "README.md (results/claims.json)" in capsys.readouterr().err
    assert main(["results"]) == 0 and "51.61" not in page.read_text() and main(["results", "--check"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "mevt"], "--only 'mevt': no claim"),
        (["--file", "none.yaml"], "none.yaml: not readable"),
        (["--runs", "nowhere"], "nowhere: holds no finished run of any claim"),
        (["--into", "page.md"], "page.md: has no lines `<!-- claims: begin"),
        (["--into", "/dev/null/x.md"], "has no lines"),
    ],
)
def test_errors_are_one_line(house, capsys, words, told):
    code, printed = claims(capsys, *words)
    assert code == 2 and told in printed.err and len(printed.err.strip().splitlines()) == 1
    assert not (house / "runs/claims").exists()


def test_a_file_without_claims(house, capsys):
    (house / "empty.yaml").write_text(text_of())
    assert claims(capsys, "--file", "empty.yaml")[0] == 2


def test_a_study_without_any_pair_can_be_drawn(house, capsys):
    for seed in SEEDS:
        (house / f"runs/bank/seed{seed}/score/done.json").unlink()
    code, told = claims(capsys)
    assert code == 0 and "incomplete (0 of 5 seeds)" in " ".join(told.out.split())
