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
