"""DSMF-Net: a training step over its frozen backbone, kept supports over new ones, graph layers, chunks of the prior.

`python -m tests.benchmark.dsmf full|chunked SHOTS [--quick]` prints the peak memory of the prior map in bytes.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from frugalseg.batch import EpisodeBatch
from frugalseg.ops.prototypes import prior_mask
from frugalseg.optim import fused, trainable
from frugalseg.papers.dsmf.graph import GraphUnit
from frugalseg.papers.dsmf.task import DSMF
from tests.benchmark.device import AS_IT_IS, Context
from tests.benchmark.measure import Measured, in_fresh_process, interleave, peak_memory, ratio

Work = Callable[[], object]
BATCH, TILES, CLASSES, SHOTS, SEEDS = 2, 12, 3, 5, 5
QUICK: dict[str, Any] = {
    "backbone": "resnet18", "dim": 8, "nodes": 4, "states": 6,
    "backbone_options": {"strides": (2, 2, 2), "options": {"layers": (1, 1, 1, 1), "channels": (4, 6, 8, 10)}},
}  # fmt: skip
"""A net whose step takes no time."""
CHUNK = 400
"""Support places compared at a time, a ninth of a 60x60 grid."""


def make_task(**settings: Any) -> DSMF:
    """The default net on ResNet-50 with random weights; or other settings."""
    torch.manual_seed(0)
    # timm starts residual branches at zero, and the graph units begin as the identity: both are woken up
    task = DSMF(**{"weights": None, "backbone_options": {"options": {"zero_init_last": False}}} | settings)
    for name, parameter in task.net.named_parameters():
        if name.startswith("backbone.") and name.endswith("bn3.weight"):
            parameter.data.fill_(0.2)
        if name.startswith("graphs.") and name.endswith("norm.weight"):
            parameter.data.fill_(0.5)
    return task


# ---------------------------------------------------------------------- training


def make_batch(size: int, device: str = "cpu", episodes: int = BATCH, shots: int = 1) -> EpisodeBatch:
    """Episodes whose class covers a quarter of each image."""
    random = torch.Generator().manual_seed(1)
    images = torch.randn(1 + shots, episodes, 3, size, size, generator=random).to(device)
    mask = torch.zeros(episodes, size, size, dtype=torch.int64, device=device)
    mask[:, size // 4 : size * 3 // 4, size // 8 : size * 5 // 8] = 1
    names = [str(number) for number in range(episodes)]
    return {
        "id": names, "query_image": images[0], "query_mask": mask,
        "support_images": images[1:].transpose(0, 1), "support_masks": mask[:, None].repeat(1, shots, 1, 1),
        "support_id": [[f"{name}-{shot}" for shot in range(shots)] for name in names],
        "class_id": torch.ones(episodes, dtype=torch.int64), "number": torch.arange(episodes),
    }  # fmt: skip


def task_step(task: DSMF, batch: EpisodeBatch, context: Context = AS_IT_IS) -> Work:
    """The full training step of the task, without Lightning; `context` is around forward pass and losses."""
    parameters = trainable(task.parameters())
    # a rate near zero: random weights must not run away, and a step costs the same at any rate
    optimiser = fused(torch.optim.SGD(parameters, lr=1e-9, momentum=0.9, weight_decay=1e-4))

    def run() -> None:
        with context:
            episode = task.net(batch["query_image"], batch["support_images"], batch["support_masks"])
            total = task.losses(episode, batch["query_mask"]).total
        total.backward()
        clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return run


def all_stages(task: DSMF, batch: EpisodeBatch) -> Work:
    """All four stages of queries and supports."""

    def run() -> None:
        task.net.backbone(batch["query_image"])
        task.net.backbone(batch["support_images"].flatten(0, 1))

    return run


def needed_stages(task: DSMF, batch: EpisodeBatch) -> Work:
    """What the step needs that does not learn: queries, three stages of supports, the last of their masked third."""

    def run() -> None:
        task.net.query_features(batch["query_image"])
        supports = task.net.support_features(batch["support_images"].flatten(0, 1))
        with torch.no_grad():
            task.net.masked_last(supports, batch["support_masks"].flatten(0, 1))

    return run


def step_over_backbone(quick: bool) -> dict[str, Measured]:
    task, batch = make_task().train(), make_batch(64 if quick else 256)
    sides = {"step": task_step(task, batch), "all": all_stages(task, batch), "needed": needed_stages(task, batch)}
    times = interleave(sides, 1 if quick else 5)
    return {
        "dsmf.step_over_backbone": ratio(times, "step", "all"),
        "dsmf.step_over_needed": ratio(times, "step", "needed"),
    }


# ---------------------------------------------------------------------- evaluation


def make_episodes(size: int) -> list[EpisodeBatch]:
    """An episode of each class for each base seed, from tiles that show every class."""
    random = torch.Generator().manual_seed(2)
    tiles = torch.randn(TILES, 3, size, size, generator=random)
    masks = torch.zeros(TILES, CLASSES, size, size, dtype=torch.int64)
    for tile, label in torch.cartesian_prod(torch.arange(TILES), torch.arange(CLASSES)).tolist():
        y, x, height, width = (torch.rand(4, generator=random) * size / 2).long().tolist()
        masks[tile, label, y : y + height + size // 8, x : x + width + size // 8] = 1
    return [_episode(tiles, masks, label, random) for _ in range(SEEDS) for label in range(CLASSES)]


def _episode(tiles: Tensor, masks: Tensor, label: int, random: torch.Generator) -> EpisodeBatch:
    query, *supports = torch.randperm(len(tiles), generator=random)[: 1 + SHOTS].tolist()
    return {
        "id": [str(query)], "query_image": tiles[[query]], "query_mask": masks[[query], label],
        "support_images": tiles[supports][None], "support_masks": masks[supports, label][None],
        "support_id": [[str(tile) for tile in supports]],
        "class_id": torch.tensor([label + 1]), "number": torch.tensor([0]),
    }  # fmt: skip


def cache_over_cold(quick: bool) -> dict[str, Measured]:
    """One timed round: a side takes many seconds, and the ratio is far from its bound."""
    task, episodes = make_task().eval(), make_episodes(64 if quick else 128)
    full, answers = task.cache.limit, {}

    @torch.no_grad()
    def evaluate(name: str, limit: int, keep: bool = False) -> None:
        task.cache.limit = limit
        if not keep:
            task.cache.clear()
        answers[name] = torch.cat([task.answer(batch).logits for batch in episodes])

    sides: dict[str, Work] = {
        "cold": lambda: evaluate("cold", 0),
        "filling": lambda: evaluate("filling", full),
        "warm": lambda: evaluate("warm", full, keep=True),
    }
    times = interleave(sides, 1)
    _check_forward(task, episodes[0], answers["cold"][:1])
    for name, logits in answers.items():
        if not torch.equal(logits, answers["cold"]):
            raise RuntimeError(f"answers with a {name} cache differ from those without")
    kept, used = len({(n, int(b["class_id"])) for b in episodes for n in b["support_id"][0]}), task.cache.used
    note = f"{len(episodes)} episodes, {kept} supports in {used / 1e6:.1f} MB"
    found = {"dsmf.cache_over_cold": "warm", "dsmf.cache_filling_over_cold": "filling"}
    rows = {row: ratio(times, "cold", side) for row, side in found.items()}
    return {row: Measured(one.value, note, one.extra | {"bytes": used}) for row, one in rows.items()}


@torch.no_grad()
def _check_forward(task: DSMF, batch: EpisodeBatch, expected: Tensor) -> None:
    """Refuse to measure answers that are not those of the net's own forward pass."""
    logits = task.net(batch["query_image"], batch["support_images"], batch["support_masks"]).logits
    torch.testing.assert_close(expected, logits, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- graph layers


def graph_step(unit: GraphUnit, x: Tensor, goal: Tensor) -> Callable[[], list[Tensor]]:
    """Forward and backward; the map and all gradients."""

    def run() -> list[Tensor]:
        unit.zero_grad()
        y = unit(x)
        y.backward(goal)
        return [y.detach(), *(p.grad for p in unit.parameters() if p.grad is not None)]

    return run


def pyg_over_einsum(quick: bool) -> dict[str, Measured]:
    dim, nodes, states, side = (16, 8, 12, 6) if quick else (256, 64, 128, 64)
    torch.manual_seed(0)
    units = {impl: GraphUnit(dim, nodes, states, impl) for impl in ("einsum", "pyg")}
    torch.nn.init.constant_(units["einsum"].norm.weight, 0.5)
    units["pyg"].load_state_dict(units["einsum"].state_dict())
    x, goal = torch.randn(4, dim, side, side), torch.randn(4, dim, side, side) / side
    sides = {impl: graph_step(unit, x, goal) for impl, unit in units.items()}
    for mine, theirs in zip(sides["einsum"](), sides["pyg"](), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-4)
    times = interleave(sides, 1 if quick else 11)
    return {"dsmf.pyg_over_einsum": ratio(times, "pyg", "einsum")}


# ---------------------------------------------------------------------- prior map


def make_prior(shots: int, chunk: int | None, quick: bool) -> Callable[[], Tensor]:
    """The prior map of one episode where every place is foreground, the worst case."""
    side, depth = (6, 8) if quick else (60, 2048)
    random = torch.Generator().manual_seed(3)
    # behind a rectifier, as the last stage is
    query = torch.randn(1, depth, side, side, generator=random).relu_()
    support = torch.randn(1, shots, depth, side, side, generator=random).relu_()
    mask = torch.ones(1, shots, side, side)
    return lambda: prior_mask(query, support, mask, chunk)


def prior_chunked_over_full(quick: bool) -> dict[str, Measured]:
    rows = {}
    for shots in (1, 5):
        chunk = 5 if quick else CHUNK
        sides = {"chunked": make_prior(shots, chunk, quick), "full": make_prior(shots, None, quick)}
        torch.testing.assert_close(sides["chunked"](), sides["full"](), rtol=0, atol=1e-5)
        rows[f"dsmf.prior_chunked_over_full_{shots}"] = ratio(interleave(sides, 1 if quick else 3), "chunked", "full")
    return rows


def prior_memory(quick: bool) -> dict[str, Measured]:
    option = ["--quick"] if quick else []
    return {
        f"dsmf.prior_{side}_memory_{shots}": Measured(
            in_fresh_process("tests.benchmark.dsmf", side, str(shots), *option) / 1e6
        )
        for side in ("full", "chunked")
        for shots in (1, 5)
    }


def main(side: str, shots: int, quick: bool) -> None:
    torch.set_num_threads(1)
    make_prior(1, None, quick=True)()  # libraries loaded and set up
    print(peak_memory(make_prior(shots, None if side == "full" else 5 if quick else CHUNK, quick)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "--quick" in sys.argv)
