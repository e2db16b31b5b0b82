"""Where the time of a training step goes: the profiler's operators, put together by kind."""

from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from tests.benchmark.measure import Measured
from tests.benchmark.papers import STEPS, Work

STEP = "benchmark.step"
OUTSIDE = "Python and autograd around operators"
KINDS = {
    "convolution": ("conv2d", "convolution"),
    "attention": ("attention",),
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "einsum"),
    "normalisation": ("norm",),
    "resampling": ("upsample", "grid_sampler", "interpolate"),
    "softmax and losses": ("softmax", "logsumexp", "loss", "entropy"),
    "pooling": ("pool",),
    "gathering and scattering": ("index", "gather", "scatter", "sort", "topk", "nonzero", "where", "masked"),
    "copies and memory": ("copy", "clone", "empty", "cat", "fill", "zero", "contiguous", "to", "repeat", "stack"),
    "sums": ("sum", "mean", "max", "min", "amax", "cumsum", "std", "var"),
}
"""Kind -> what an operator's name holds; the first that fits counts. Whole words where they have three letters or less."""
OTHER = "elementwise"


def kind_of(name: str) -> str:
    """The kind of an operator such as `aten::addmm`."""
    plain = name.rpartition("::")[2].strip("_")
    words = plain.split("_")
    for kind, parts in KINDS.items():
        if any(part in words or (len(part) > 3 and part in plain) for part in parts):
            return f"{kind}, {'backward' if 'backward' in words else 'forward'}" if kind == "convolution" else kind
    return OTHER


def measure(work: Work, steps: int) -> tuple[Counter[str], Counter[str]]:
    """Profile some steps.

    Returns:
        Seconds of one step by kind, and by operator; each operator without those that it calls.
    """
    work()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            with record_function(STEP):
                work()
    kinds, operators = Counter[str](), Counter[str]()
    for event in seen.events() or []:
        name, seconds = str(event.name), event.self_cpu_time_total / 1e6 / steps
        is_operator = name.startswith(("aten::", "torch"))
        kinds["optimiser" if _in_optimiser(event) else kind_of(name) if is_operator else OUTSIDE] += seconds
        operators[name if is_operator else OUTSIDE] += seconds
    return kinds, operators


def _in_optimiser(event: Any) -> bool:
    while event is not None:
        if str(event.name).startswith("Optimizer."):
            return True
        event = event.cpu_parent
    return False


def three_largest(paper: str, quick: bool) -> dict[str, Measured]:
    """Shares of a paper's step, the largest first."""
    kinds, operators = measure(STEPS[paper](quick).work, 1 if quick else 2)
    total = sum(kinds.values())
    shares = {kind: round(100 * seconds / total, 2) for kind, seconds in kinds.most_common()}
    extra = {
        "shares": shares,
        "operators": {name: round(100 * seconds / total, 2) for name, seconds in operators.most_common(12)},
        "seconds": {"step, profiled": round(total, 4)},
    }
    rows = {}
    for place, (kind, share) in enumerate(list(shares.items())[:3], start=1):
        rows[f"{paper}.share_{place}"] = Measured(share, kind, extra if place == 1 else {})
    return rows
