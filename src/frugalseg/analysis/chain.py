"""The whole weakly supervised chain in one table: the score of every intermediate, from maps to segmenter.

SFC and CTI have links of their own, since their maps and labels differ; the scores themselves say whose chain it is.
"""

from typing import NamedTuple

from rich.table import Table

from frugalseg.analysis.names import in_page, shown
from frugalseg.analysis.seeds import Aggregate
from frugalseg.analysis.tables import cell


class Link(NamedTuple):
    """One row: what is scored, in which stage, and under which key `<split>/<key>`."""

    label: str
    stage: str
    key: str


SEGMENTER = (
    Link("segmentation network", "score-segment", "miou"),
    Link("segmentation network + CRF", "score-segment", "miou_crf"),
)
LINKS = (
    Link("M0 classifier", "score", "miou_m0"),
    Link("M_W refined", "score", "miou_mw"),
    Link("M_P prototype", "score", "miou_mp"),
    Link("M_W + M_P", "score", "miou_sum"),
    Link("M_W + M_P, CRF", "score-labels", "miou_crf"),
    Link("M_W + 0.7 M_P", "score", "miou_seed"),
    Link("seed labels: M_W + 0.7 M_P, CRF, unknown as background", "score-labels", "miou_seed_labels"),
    Link("M_W + 0.3 M_P", "score", "miou_walk"),
    Link("refined: M_W + 0.3 M_P, random walk by the plain rule", "score-labels", "miou_refined"),
    Link("pseudo label: M_W + 0.3 M_P, SFC's two walks", "score-labels", "miou_pseudo"),
    *SEGMENTER,
)
"""SFC's, in the order of the chain, what a refinement starts from before it; keys as in design.md section 7. Some links
share a key but not a stage."""
TOKEN_LINKS = (
    Link("seed map, best threshold", "score", "miou_cam_best"),
    Link("seed map at a constant threshold, CRF", "score-labels", "miou_crf"),
    Link("seed labels: two thresholds, CRF, unknown as background", "score-labels", "miou_seed_labels"),
    Link("seed labels: CRFs of two alphas, unknown as background", "score-labels", "miou_psa"),
    Link("refined: seed map, random walk", "score-labels", "miou_refined"),
    *SEGMENTER,
)
"""CTI's."""
SPLITS = ("train", "val")


def links_of(stages: dict[str, Aggregate]) -> tuple[Link, ...]:
    """CTI's links where its seed map has been scored, else SFC's."""
    seed = TOKEN_LINKS[0]
    swept = any(f"{split}/{seed.key}" in stages.get(f"{seed.stage}-{split}", {}) for split in SPLITS)
    return TOKEN_LINKS if swept else LINKS


def chain_rows(stages: dict[str, Aggregate]) -> list[tuple[str, dict[str, Aggregate]]]:
    """Links that have been scored.

    Args:
        stages: stage -> aggregate, as `write_aggregates` gives them; `score-labels-train` holds keys `train/...`.

    Returns:
        (label, split -> {"value": row of the aggregate}) of every link with a score on any split.
    """
    found = []
    for link, variant in ((each, name) for each in links_of(stages) for name in _variants(each, stages)):
        scores = {
            split: {"value": rows[f"{split}/{link.key}"]}
            for split in SPLITS
            if f"{split}/{link.key}" in (rows := stages.get(f"{link.stage}{variant}-{split}", {}))
        }
        if scores:
            found.append((link.label + (f" ({variant[1:]})" if variant else ""), scores))
    return found


def _variants(link: Link, stages: dict[str, Aggregate]) -> list[str]:
    """What else made the same link, such as `-r38` of `score-segment-r38-val` and `-psa` of `score-labels-psa-val`."""
    if link.stage == "score":
        return [""]
    names = (stage.rsplit("-", 1)[0] for stage in stages if stage.startswith(link.stage))
    return sorted({name.removeprefix(link.stage) for name in names} | {""})


def is_chain(stages: dict[str, Aggregate]) -> bool:
    """Whether more than the maps has been scored."""
    return any(stage.startswith(("score-labels", "score-segment")) for stage in stages)


def chain_table(name: str, stages: dict[str, Aggregate]) -> Table:
    """Mean IoU of every intermediate on train and val."""
    table = Table(title=f"{shown(name)}: mIoU in % along the chain")
    table.add_column("after")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for label, scores in chain_rows(stages):
        table.add_row(shown(label), *[cell(scores.get(split, {}), "value") for split in SPLITS])
    return table


def chain_lines(results: dict[str, dict[str, Aggregate]]) -> list[str]:
    """The same as lines of a markdown table, for several experiments below one another; empty where there is none.

    Args:
        results: experiment -> stage -> aggregate.
    """
    lines = ["", f"| experiment | after | {' | '.join(f'{split} mIoU %' for split in SPLITS)} |", "|---|---|---|---|"]
    for name, stages in results.items():
        for label, scores in chain_rows(stages) if is_chain(stages) else []:
            cells = " | ".join(cell(scores.get(split, {}), "value") for split in SPLITS)
            lines.append(f"| {in_page(name)} | {in_page(label)} | {cells} |")
    return lines if len(lines) > 3 else []
