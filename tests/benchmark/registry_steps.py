"""Rows that all four papers have: speed, memory and shares of a training step, growth of costs, ranks, the loop, a GPU."""

from tests.benchmark.measure import Group, Row

NAMES = {"sfc": "SFC", "cti": "CTI", "dsmf": "DSMF-Net", "mevt": "MEVT"}
CPU = "on one CPU core, at the size of the row on its bare network"
ON_GPU = {
    "sfc": "16 fresh and 4 bank images of 256x256",
    "cti": "64 images of 224x224, two views",
    "dsmf": "8 one-shot episodes of 256x256",
    "mevt": "mevt_s, 64 images of 2 x 224 + 8 x 96",
}
MODES = {"fp32": "fp32 (convolutions TF32)", "bf16": "bf16", "compiled": "bf16, torch.compile, channels last"}
GROWTH = {
    "sfc_pixels": "SFC's step, side of the crops",
    "cti_pixels": "CTI's step, side of the images",
    "dsmf_pixels": "DSMF-Net's step, side of the images",
    "mevt_pixels": "MEVT's step, side of its views",
    "crf_pixels": "dense CRF, 10 iterations, 3 labels",
    "walk_pixels": "random walk, 256 steps, 3 channels",
    "sfc_classes": "SFC's step, number of classes",
    "cti_classes": "CTI's step, number of classes",
    "dsmf_shots": "DSMF-Net's answer to an episode, nothing kept",
    "mevt_crops": "MEVT's step, local views beside two global ones",
}
LOOP = "Trainer.fit with the callbacks of a run and a CSV log every 10 steps, over a plain loop; SFC,"


def of_steps(paper: str) -> list[Group]:
    """On a CPU."""
    name = NAMES[paper]
    return [
        Group(
            "tests.benchmark.papers:speed",
            Row(f"{paper}.step_images_per_s", f"{name}'s step {CPU}, per CPU second", "images/s", "higher"),
            Row(f"{paper}.step_peak_memory", f"memory that a first such step adds, {name}", "MB"),
            of=paper,
        ),
        Group(
            "tests.benchmark.shares:three_largest",
            *(Row(f"{paper}.share_{n}", f"share of {name}'s step, number {n} by size", "%") for n in (1, 2, 3)),
            of=paper,
        ),
    ]


def on_gpu(paper: str) -> list[Group]:
    """Three ways to run a step, side by side; what is compiled is a part of its own."""
    rows = {mode: _of_mode(paper, mode) for mode in MODES}
    first = Row(f"{paper}.gpu_bottleneck", f"share of the first bottleneck of {NAMES[paper]}'s step, bf16", "%")
    return [
        Group("tests.benchmark.gpu_papers:eager", *rows["fp32"], *rows["bf16"], first, of=paper),
        Group("tests.benchmark.gpu_papers:compiled", *rows["compiled"], of=paper),
    ]


def _of_mode(paper: str, mode: str) -> list[Row]:
    what = f"{NAMES[paper]}'s step on a GPU, {MODES[mode]}, {ON_GPU[paper]}"
    rows = [
        Row(f"{paper}.gpu_{mode}_images_per_s", what, "images/s", "higher"),
        Row(f"{paper}.gpu_{mode}_peak_memory", f"peak memory of {what}", "MB"),
        Row(f"{paper}.gpu_{mode}_utilisation", f"operations over the card's matrix rates, {what}", "%", "higher"),
    ]
    over = Row(f"{paper}.gpu_{mode}_over_fp32", f"images/s over those of fp32, {what}", better="higher")
    return rows if mode == "fp32" else [*rows, over]


STEP_GROUPS = [
    *(group for paper in NAMES for group in of_steps(paper)),
    Group(
        "tests.benchmark.trainer:over_plain_loop",
        Row("trainer.over_plain_loop", f"{LOOP} miniature", bound=1.03),
        Row("trainer.over_plain_loop_wandb", f"{LOOP} miniature, with W&B offline", bound=1.03),
    ),
    Group(
        "tests.benchmark.trainer:over_plain_loop_large",
        Row("trainer.over_plain_loop_large", f"{LOOP} ResNet-50, 2 fresh + 4 bank images of 256x256", bound=1.03),
    ),
    Group(
        "tests.benchmark.ranks:two_over_one",
        Row("ddp.two_over_one", "images/s of SFC's step, ResNet-50, 256x256, on 2 processes (gloo) over 1", better="higher"),
    ),
    *(
        Group(
            "tests.benchmark.growth:measure", Row(f"growth.{name}", f"exponent of the cost of {what}", "exponent"), of=name
        )
        for name, what in GROWTH.items()
    ),
    Group(
        "tests.benchmark.gpu_rates:rates",
        *(
            Row(f"gpu.matrix_rate_{p}", f"multiplications and additions of square products, {p}", "TFLOP/s", "higher")
            for p in ("bf16", "tf32", "fp32")
        ),
    ),
    *(group for paper in NAMES for group in on_gpu(paper)),
]  # fmt: skip
