"""What W&B's dashboards of the suite show: sections of panels for each paper, and keys that its stages really log.

This is data: `dashboard_build` makes W&B's objects of it, and without a key it goes to a file. Runs are grouped by
experiment; job types are stages; tags name the paper.
"""

from typing import Any, Literal, NamedTuple

STEP = "trainer/global_step"
Kind = Literal["lines", "bars", "classes", "comparer"]


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: above it.
        kind: `lines` over training steps, `bars` of last values with mean and deviation over seeds, `classes` of a
            table by class, `comparer` of settings.
        keys: of metrics; of a table by class its key and its column.
        group: setting whose values are told apart, besides the experiment's.
    """

    title: str
    kind: Kind
    keys: tuple[str, ...] = ()
    group: str = "run_experiment"


class Section(NamedTuple):
    """Panels under one heading."""

    name: str
    panels: tuple[Panel, ...]


class Page(NamedTuple):
    """A paper's report, and its part of the workspace.

    Attributes:
        paper: tag of its runs.
        title: of the report.
        text: what the page is to answer.
        sections: in order.
    """

    paper: str
    title: str
    text: str
    sections: tuple[Section, ...]


def _each(front: str, *ends: str) -> tuple[str, ...]:
    return tuple(front + end for end in ends)


def _of_classes(split: str, column: str) -> Panel:
    return Panel(f"IoU by class, {split}: {column}", "classes", (f"classes/{split}", column))


_GROUPS = ("_head", "_middle", "_tail")
_SEGMENTER = Section(
    "Segmenter",
    (
        Panel("loss", "lines", ("train/loss",)),
        Panel("mIoU on val", "lines", ("val/miou",)),
        Panel("final mIoU, without and with CRF", "bars", ("val/miou", "val/miou_crf")),
        Panel("head, middle and tail classes", "bars", _each("val/miou", *_GROUPS)),
        _of_classes("val", "iou"),
    ),
)
_AFFINITY = Section(
    "Affinity: IRN or PSA",
    (
        Panel("losses", "lines", _each("train/loss_", "total", "background", "foreground", "across", "different")),
        Panel("average precision of boundaries", "lines", ("val/boundary_ap",)),
    ),
)
_COMPARER = Section("Settings", (Panel("runs side by side", "comparer"),))

SFC = Page(
    "sfc",
    "SFC: shared feature calibration",
    "From tags to masks: do calibrated maps raise the tail, and how much of it reaches the segmenter?",
    (
        Section(
            "Classifier",
            (
                Panel("losses", "lines", _each("train/loss_", "total", "classification", "prototype", "scale")),
                Panel("mIoU of maps on the validation split", "lines", _each("val/miou_", "m0", "mw", "mp", "sum")),
            ),
        ),
        Section(
            "Maps",
            (
                Panel("mIoU by rule, train", "bars", _each("train/miou_", "m0", "mw", "mp", "sum", "seed", "walk")),
                Panel("head, middle and tail: M_W + M_P", "bars", _each("train/miou_sum", *_GROUPS)),
                Panel("head, middle and tail: classifier alone", "bars", _each("train/miou_m0", *_GROUPS)),
                Panel("false positives", "bars", _each("train/false_positive_", "m0", "mw", "mp", "sum")),
                _of_classes("train", "sum"),
            ),
        ),
        Section(
            "Labels",
            (Panel("seed to pseudo label", "bars", _each("train/miou_", "crf", "seed_labels", "refined", "pseudo")),),
        ),
        _AFFINITY,
        _SEGMENTER,
        _COMPARER,
    ),
)
CTI = Page(
    "cti",
    "CTI: class-token infusion",
    "From tags to masks: what do the background token and the two infusions add to the seed?",
    (
        Section(
            "Classifier",
            (
                Panel(
                    "losses", "lines",
                    _each("train/loss_", "total", "classification", "background", "intra", "cross"),
                ),
                Panel("mIoU of the seed, and its threshold", "lines", ("val/miou", "val/threshold")),
            ),
        ),
        Section(
            "Maps",
            (
                Panel("mIoU at the best threshold", "bars", _each("train/miou_", "cam_best", "r_best", "f_best")),
                Panel("head, middle and tail", "bars", _each("train/miou_cam_best", *_GROUPS)),
                Panel("false positives", "bars", _each("train/false_positive_", "cam_best", "r_best", "f_best")),
                _of_classes("train", "cam_best"),
            ),
        ),
        Section(
            "Labels",
            (Panel("seed to pseudo label", "bars", _each("train/miou_", "crf", "seed_labels", "psa", "refined")),),
        ),
        _AFFINITY,
        _SEGMENTER,
        _COMPARER,
    ),
)  # fmt: skip
DSMF = Page(
    "dsmf",
    "DSMF-Net: few-shot aerial segmentation",
    "New classes from one or five examples: by fold, by shot, and what a net and an episode cost.",
    (
        Section(
            "Training",
            (
                Panel("losses", "lines", _each("train/loss_", "total", "main", "auxiliary")),
                Panel("mIoU and FB-IoU of validation episodes", "lines", ("val/miou", "val/fb_iou")),
            ),
        ),
        Section(
            "Test episodes",
            (
                Panel("mIoU by experiment", "bars", ("test/miou",)),
                Panel("mIoU by shot", "bars", ("test/miou",), "run_stage"),
                Panel("mIoU by fold", "bars", ("test/miou",), "run_fold"),
                Panel("FB-IoU by shot", "bars", ("test/fb_iou",), "run_stage"),
                Panel("deviation over base seeds", "bars", ("test/miou_std", "test/fb_iou_std")),
                _of_classes("test", "iou"),
            ),
        ),
        Section(
            "Cost",
            (
                Panel("parameters", "bars", ("model/parameters", "model/parameters_trainable")),
                Panel("floating-point operations of an episode", "bars", ("model/flops",)),
                Panel("episodes per second", "bars", ("test/episodes_per_second",)),
            ),
        ),
        _COMPARER,
    ),
)
MEVT = Page(
    "mevt",
    "MEVT: dense pretraining without labels",
    "Are the features collapsing, and what do probes and clusters make of them?",
    (
        Section(
            "Pretraining",
            (
                Panel(
                    "losses", "lines", ("train/loss", *_each("train/loss_", "global", "pixel", "prototype", "masked"))
                ),
                Panel(
                    "signs of collapse", "lines",
                    _each("train/", "assignment_entropy", "row_entropy", "student_entropy", "embedding_std"),
                ),
            ),
        ),
        Section(
            "Probes and clusters",
            (
                Panel("mIoU on val", "lines", ("val/miou",)),
                Panel("mIoU by stage", "bars", ("val/miou",), "run_stage"),
                Panel("best mIoU of a probe", "bars", ("val/miou_best",)),
                Panel("pixel accuracy by stage", "bars", ("val/accuracy",), "run_stage"),
                Panel("deviation over seeds of k-means", "bars", ("val/miou_std",)),
            ),
        ),
        _COMPARER,
    ),
)  # fmt: skip
PAGES = (SFC, CTI, DSMF, MEVT)


def definition(entity: str, project: str) -> dict[str, Any]:
    """The dashboards as JSON-able data.

    Args:
        entity: W&B user or team.
        project: W&B project.
    """
    pages = [
        {
            "paper": page.paper,
            "title": page.title,
            "text": page.text,
            "runs": {"tag": page.paper, "group_by": ["run_experiment", "run_stage"]},
            "sections": [
                {"name": section.name, "panels": [panel._asdict() for panel in section.panels]}
                for section in page.sections
            ],
        }
        for page in PAGES
    ]
    return {"entity": entity, "project": project, "step": STEP, "pages": pages}
