"""The file of claims: what is read from it, what is refused, and that the project's own can be read."""

import re

import pytest

from frugalseg.analysis.claims import Side, parse_claims, read_claims
from frugalseg.errors import ConfigError
from tests.analysis.claim_runs import SEEDS, entry, text_of
from tests.conftest import REPOSITORY


def one(**changes):
    (claim,) = parse_claims(text_of(entry(**changes)), "claims.yaml")
    return claim


def test_a_difference_of_two_runs():
    claim = one()
    assert claim.kind == "difference" and claim.seeds == SEEDS and (claim.scale, claim.margin) == (100.0, 0.0)
    assert claim.terms == {
        "treatment": Side("bank", ("score",), ("train/miou_mw",), None),
        "baseline": Side("plain", ("score",), ("train/miou_mw",), None),
    }
    assert claim.sign == 1.0 and one(better="lower").sign == -1.0


def test_an_interaction_and_what_a_side_may_have_of_its_own():
    control = {"treatment": {"run": "bank-b", "metric": ["a", "b"]}, "baseline": "plain-b"}
    claim = one(kind="interaction", control=control, fold="any", needs=["warm"], seeds=[3, 1])
    assert list(claim.terms) == ["treatment", "baseline", "control treatment", "control baseline"]
    assert claim.terms["control treatment"] == Side("bank-b", ("score",), ("a", "b"), "any")
    assert claim.runs == ("bank", "plain", "bank-b", "plain-b", "warm") and claim.seeds == (3, 1)


def test_two_stages_of_one_run():
    sides = {"treatment": {"stage": "5shot-test"}, "baseline": {"stage": "1shot-test"}}
    claim = one(kind="within", run="full", stage=None, fold="mean", **sides)
    assert claim.terms["treatment"] == Side("full", ("5shot-test",), ("train/miou_mw",), "mean")
    assert claim.runs == ("full",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"treatmnt": "x"}, r"claim 1: unknown key treatmnt; known are id, "),
        ({"unit": None}, r"claim 1: lacks the key unit"),
        ({"id": "bank"}, r"\(bank\): id must be sfc- and small letters"),
        ({"paper": "moco"}, r"paper 'moco' is none of sfc, cti"),
        ({"kind": "ratio"}, r"kind 'ratio' is none of"),
        ({"better": "more"}, r"better 'more' is none of higher, lower"),
        ({"statement": " "}, r"statement ' ' is no text"),
        ({"scale": 0}, r"scale 0 is no number above 0"),
        ({"scale": float("inf")}, r"scale inf is no number"),
        ({"margin": -1}, r"margin -1 is no number 0 or more"),
        ({"margin": True}, r"margin True is no number"),
        ({"stage": None}, r"treatment: no stage here nor in the claim"),
        ({"metric": []}, r"metric \[\] is no key or list"),
        ({"stage": ["../x"]}, r"stage '\.\./x' is no name"),
        ({"treatment": "../bank"}, r"treatment: run '\.\./bank' is no name"),
        ({"treatment": {"row": "x"}}, r"treatment: unknown key row"),
        ({"treatment": 3}, r"treatment: 3 is no section"),
        ({"treatment": "plain"}, r"two sides are the same numbers"),
        ({"treatment": {"run": "plain", "metric": "m"}}, r"kind difference compares two runs"),
        ({"kind": "within"}, r"kind within compares one run"),
        ({"run": "x"}, r"run belongs to kind within"),
        ({"control": {"treatment": "a", "baseline": "b"}}, r"a control belongs to kind interaction"),
        ({"kind": "interaction"}, r"a control belongs to kind interaction"),
        ({"kind": "interaction", "control": {"treatment": "a"}}, r"control: lacks the key baseline"),
        ({"fold": "all"}, r"fold 'all' is no number, any or mean"),
        ({"fold": -1}, r"fold -1 is no number"),
        ({"controls": ["sfc-none"]}, r"claim sfc-bank: controls names sfc-none"),
        ({"controls": ["sfc-bank"]}, r"controls names sfc-bank, which is no other"),
        ({"needs": "warm"}, r"needs 'warm' is no list"),
        ({"seeds": []}, r"seeds \[\] is no list"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\] is no list of different"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=r"claims.yaml: .*" + message) as caught:
        one(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [1]", "must have the keys"),
        ("seeds: [1]\nclaims: []\nclaim: []", "must have the keys"),
        ("seeds: [1]\nclaims: {}", "must have the keys"),
        ("seeds: [1\n", "no YAML"),
        ("seeds: [1]\nseeds: [2]\nclaims: []", "key seeds twice"),
        (text_of(entry(), entry()), "has the id sfc-bank twice"),
        (text_of(seeds=[1.5]), r"seeds \[1.5\]"),
        ("seeds: [1]\nclaims: [3]", "claim 1: 3 is no section"),
    ],
)
def test_a_file_that_is_none_is_refused(text, message):
    with pytest.raises(ConfigError, match=rf"^claims.yaml: .*{message}") as caught:
        parse_claims(text, "claims.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: not readable .* --file"):
        read_claims(tmp_path / "none.yaml")


def test_the_digest_is_of_what_decides():
    words = {"statement": "x", "source": "x", "equal": "x", "command": "x", "unit": "x", "needs": ["x"]}
    assert one(**words).digest == one().digest
    decisive = [{"metric": "m"}, {"margin": 1}, {"better": "lower"}, {"seeds": [1]}, {"treatment": "x"}, {"scale": 1}]
    digests = {one(**change).digest for change in decisive} | {one().digest}
    assert len(digests) == len(decisive) + 1


def test_the_projects_claims_can_be_read_and_name_their_commands():
    claims = read_claims(REPOSITORY / "experiments/claims/claims.yaml")
    assert all(re.match(r"make claims\b", claim.command) for claim in claims)
    assert all(len(claim.seeds) >= 5 for claim in claims)
