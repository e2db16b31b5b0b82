import io

import pytest
from rich.console import Console

from frugalseg.analysis.chain import LINKS, chain_lines, chain_rows, chain_table, is_chain
from frugalseg.analysis.seeds import aggregate


def score(number, split):
    return (2 * number + (split == "val")) / 40


@pytest.fixture
def stages():
    """Scores of two seeds whose number says where they come from."""
    return {
        f"{stage}-{split}": aggregate(
            {
                seed: {
                    f"{split}/{link.key}": score(number, split) + 0.01 * seed
                    for number, link in enumerate(LINKS)
                    if link.stage == stage
                }
                for seed in (0, 1)
            }
        )
        for stage in ("score", "score-labels", "score-segment")
        for split in ("train", "val")
    }


def test_every_link_finds_its_own_score(stages):
    """`miou_crf` is a key of two stages."""
    rows = chain_rows(stages)
    assert [label for label, _ in rows] == [link.label for link in LINKS]
    for number, (_, scores) in enumerate(rows):
        for split in ("train", "val"):
            assert scores[split]["value"]["mean"] == pytest.approx(score(number, split) + 0.005)
            assert scores[split]["value"]["n"] == 2


def test_links_and_splits_without_a_score_are_left_open(stages):
    for gone in ("score-labels-val", "score-segment-train", "score-segment-val"):
        del stages[gone]
    rows = chain_rows(stages)
    assert [label for label, _ in rows] == [link.label for link in LINKS if link.stage != "score-segment"]
    console = Console(file=io.StringIO(), width=100)
    console.print(chain_table("x", stages))
    line = next(line for line in console.file.getvalue().splitlines() if "pseudo label" in line)
    assert f"{100 * score(len(LINKS) - 3, 'train') + 0.5:.1f} ±0.7" in line and line.rstrip(" │").endswith("-")


def test_a_folder_with_maps_alone_is_no_chain(stages):
    maps = {stage: rows for stage, rows in stages.items() if stage in ("score-train", "score-val")}
    assert is_chain(stages) and not is_chain(maps)
    assert chain_lines({"x": maps}) == []
    lines = chain_lines({"x": maps, "y": stages})
    assert len(lines) == 3 + len(LINKS)
    assert lines[3] == "| y | M0 classifier | 0.5 ±0.7 | 3.0 ±0.7 |" and lines[2].count("---") == 4


def test_other_segmenters_have_rows_of_their_own(stages):
    stages["score-segment-r38-val"] = stages["score-segment-val"]
    labels = [label for label, _ in chain_rows(stages)]
    assert labels[-4:] == [
        "segmentation network",
        "segmentation network (r38)",
        "segmentation network + CRF",
        "segmentation network + CRF (r38)",
    ]
    assert set(chain_rows(stages)[-1][1]) == {"val"}


def test_labels_of_another_affinity_have_a_row_of_their_own(stages):
    stages["score-labels-psa-train"] = aggregate({0: {"train/miou_refined": 0.5}})
    rows = chain_rows(stages)
    assert len(rows) == len(LINKS) + 1
    place = [link.key for link in LINKS].index("miou_refined")
    assert rows[place + 1] == (
        f"{LINKS[place].label} (psa)",
        {"train": {"value": stages["score-labels-psa-train"]["train/miou_refined"]}},
    )


# ---------------------------------------------------------------------- CTI's

TOKEN_ROWS = {
    "seed map, best threshold": ("score", "miou_cam_best"),
    "seed map at a constant threshold, CRF": ("score-labels", "miou_crf"),
    "seed labels: two thresholds, CRF, unknown as background": ("score-labels", "miou_seed_labels"),
    "refined: seed map, random walk": ("score-labels", "miou_refined"),
    "segmentation network": ("score-segment", "miou"),
    "segmentation network + CRF": ("score-segment", "miou_crf"),
}


@pytest.fixture
def tokens():
    """Scores of a chain whose maps are CTI's; what else `evaluate` scores beside them is no link."""
    others = {"score": ("miou_tags", "miou_r_best", "iou_cam_best/cat"), "score-labels": ("miou_pseudo",)}
    stages = {}
    for stage in ("score", "score-labels", "score-segment"):
        for split in ("train", "val"):
            found = {f"{split}/{key}": 0.99 for key in others.get(stage, ())}
            for number, (of, key) in enumerate(TOKEN_ROWS.values()):
                if of == stage:
                    found[f"{split}/{key}"] = score(number, split)
            stages[f"{stage}-{split}"] = aggregate({0: found})
    return stages


def test_a_chain_of_seed_maps_has_rows_of_its_own(tokens):
    rows = chain_rows(tokens)
    assert [label for label, _ in rows] == list(TOKEN_ROWS)
    for number, (_, scores) in enumerate(rows):
        for split in ("train", "val"):
            assert scores[split]["value"]["mean"] == pytest.approx(score(number, split))
    assert is_chain(tokens) and len(chain_lines({"cti": tokens})) == 3 + len(TOKEN_ROWS)


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_scored_split_says_whose_chain_it_is(tokens, split):
    del tokens[f"score-{split}"]
    assert [label for label, _ in chain_rows(tokens)] == list(TOKEN_ROWS)


def test_variants_of_a_chain_of_seed_maps(tokens):
    tokens["score-labels-psa-train"] = aggregate({0: {"train/miou_refined": 0.5}})
    tokens["score-segment-r38-val"] = tokens["score-segment-val"]
    labels = [label for label, _ in chain_rows(tokens)]
    assert labels[3:] == [
        "refined: seed map, random walk",
        "refined: seed map, random walk (psa)",
        "segmentation network",
        "segmentation network (r38)",
        "segmentation network + CRF",
        "segmentation network + CRF (r38)",
    ]


def test_each_chain_of_a_page_keeps_its_own_links(stages, tokens):
    lines = chain_lines({"sfc": stages, "cti": tokens})[3:]
    assert lines[: len(LINKS)] == chain_lines({"sfc": stages})[3:]
    assert [line.split(" | ")[1] for line in lines[len(LINKS) :]] == list(TOKEN_ROWS)


def test_links_of_sfc_are_these(stages):
    """Pages of SFC hold them, so that they may not change unnoticed."""
    assert [label for label, _ in chain_rows(stages)] == [
        "M0 classifier",
        "M_W refined",
        "M_P prototype",
        "M_W + M_P",
        "M_W + M_P, CRF",
        "M_W + 0.7 M_P",
        "seed labels: M_W + 0.7 M_P, CRF, unknown as background",
        "M_W + 0.3 M_P",
        "refined: M_W + 0.3 M_P, random walk by the plain rule",
        "pseudo label: M_W + 0.3 M_P, SFC's two walks",
        "segmentation network",
        "segmentation network + CRF",
    ]
