"""Settled claims on the first page: what `frugalseg claims` writes is what the report shows."""

import pytest

from frugalseg.analysis.claims import parse_claims
from frugalseg.analysis.claims_rows import settle
from frugalseg.analysis.claims_runs import Runs
from frugalseg.analysis.claims_tables import HEADS, figures
from frugalseg.analysis.html import write_report
from frugalseg.analysis.html.claims import claims_grid
from frugalseg.cli import main
from tests.analysis.claim_runs import commit, entry, study, text_of
from tests.analysis.html.pages import Page, broken_links


@pytest.fixture
def house(tmp_path, monkeypatch):
    file = tmp_path / "experiments/claims/claims.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text_of(entry(), entry(id="cti-bg", paper="cti", treatment="bg")))
    commit(tmp_path, "2026-01-01T00:00:00+00:00")
    study(tmp_path / "runs", bank=(0.5, 0.52, 0.54, 0.51, 0.5), plain=(0.4, 0.43, 0.42, 0.41, 0.4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_that_of_the_claims(house):
    assert main(["claims"]) == 0
    others = []
    grid = claims_grid(house / "runs/claims/claims.json", others)
    rows = settle(parse_claims((house / "experiments/claims/claims.yaml").read_text(), ""), Runs(house / "runs"), {})
    assert others == [] and grid.columns[:2] == ["claim", "verdict"]
    told = [dict(zip(grid.columns, line, strict=True)) for line in grid.rows]
    assert [[line[head] for head in HEADS[1:]] for line in told] == [figures(row) for row in rows]
    assert [line["command"] for line in told] == [row.claim["command"] for row in rows]
    assert [line["equal, and what is not"] for line in told] == [row.claim["equal"] for row in rows]


def test_it_stands_on_the_first_page(house):
    assert main(["claims"]) == 0
    summary = write_report([], house / "runs", house / "report")
    page = Page(house / "report/index.html")
    assert "the bank raises M_W" in page.text and page.alts == ["forest plot"]
    assert summary.others == [] and broken_links(page.path) == []
    assert {entry.name for entry in summary.entries} == {"bank", "plain"}


def test_without_claims_there_is_no_table(house):
    assert claims_grid(house / "runs/claims/claims.json", []) is None
