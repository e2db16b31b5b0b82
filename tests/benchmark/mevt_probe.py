"""Linear probe on kept features over the same probe without them: protocol L-cached, ten epochs, data read from disk."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer

from frugalseg.data.ade20k import ADE20K
from frugalseg.data.loader import EvaluationItems, Loader
from frugalseg.data.recipes import Segment
from frugalseg.miniature.ade20k import write_ade20k_world
from frugalseg.nn.features import Backbone
from frugalseg.run import write_json
from frugalseg.stages.probe import CachedFeatures, CacheIndex, CacheWriter, LinearProbe, cache_digest, fill
from frugalseg.stages.probe.protocols import Name
from tests.benchmark.measure import Measured

EPOCHS, BATCH, PICTURE = 10, 4, 96


def make_probe(data: ADE20K, protocol: Name, quick: bool) -> LinearProbe:
    """The protocols' sizes, 448 pixels and a grid of 100; `mevt_s` with random weights."""
    torch.manual_seed(0)
    preset, sizes = ("mevt_tiny", (64, 16)) if quick else ("mevt_s", (None, None))
    backbone = Backbone("frugalseg.papers.mevt.model:create", options={"preset": preset})
    return LinearProbe(data.num_classes, backbone, protocol, input_size=sizes[0], grid=sizes[1])


def make_data(root: Path, images: int) -> ADE20K:
    """A world's first images, un-augmented."""
    recipe = Segment(crop=PICTURE, scale=None, flip=0.0)
    return ADE20K(root, recipe, batch_size=BATCH, num_workers=0, limit=images, seed=0)


def keep(probe: LinearProbe, data: ADE20K, root: Path) -> Path:
    """Features of the training images, and the index that names them; nothing is validated here."""
    data.setup("fit")
    samples, (side, grid) = data.samples("train"), (probe.input_size or 0, probe.grid or 0)
    shape = probe.backbone.dense(torch.zeros(1, 3, side, side))[0].shape
    digest = cache_digest(probe.backbone.digest(), "benchmark", side, grid)
    writer = CacheWriter(root, "train", [sample.id for sample in samples], shape, grid, digest, 1 << 40)
    items = EvaluationItems(samples, data.recipe, data.num_classes)
    fill(writer, probe.backbone, Loader(items, batch_size=1, collate_fn=data.recipe.collate), side, grid)
    split = ("train", digest)
    names, width = data.class_names, probe.backbone.width
    index = CacheIndex(
        split, split, "ADE20K", names, probe.backbone.digest(), width, side, grid, {"train": len(samples)}
    )
    write_json(root / "cache.json", index.content())
    return root / "cache.json"


def fit(probe: LinearProbe, data: LightningDataModule, epochs: int) -> LinearProbe:
    """The Trainer's own loop; nothing is validated, logged or saved."""
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, limit_val_batches=0, enable_checkpointing=False, **silent
    )  # type: ignore[arg-type]
    trainer.fit(probe, datamodule=data)
    return probe


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def cached_over_uncached(quick: bool) -> dict[str, Measured]:
    """One round: the side without a cache takes most of a minute, and the ratio is far from its bound."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    images = BATCH if quick else 8
    with tempfile.TemporaryDirectory() as folder:
        root = write_ade20k_world(Path(folder) / "world", max(images, 6), 6, size=PICTURE)
        data, index = make_data(root, images), Path(folder) / "features" / "cache.json"
        data.setup("fit")
        # without augmentation, L is L-cached without the cache
        probes = {"uncached": make_probe(data, "L", quick), "cached": make_probe(data, "L-cached", quick)}
        probes["uncached"].backbone.dense(torch.zeros(1, 3, 64, 64))  # libraries loaded and set up
        times = {
            "filling": seconds(lambda: keep(probes["cached"], data, index.parent)),
            "cached": seconds(lambda: fit(probes["cached"], CachedFeatures(index, BATCH, seed=0), EPOCHS)),
            "uncached": seconds(lambda: fit(probes["uncached"], make_data(root, images), EPOCHS)),
        }
        _check(*(probe.head for probe in probes.values()))
    note = f"{images} images in batches of {BATCH}"
    sums = {"probe_cached": ("filling", "cached"), "probe_ready_cache": ("cached",)}
    rows = {}
    for name, parts in sums.items():
        wall, cpu = (times["uncached"][clock] / sum(times[part][clock] for part in parts) for clock in (0, 1))
        extra = {"cpu_value": round(cpu, 4), "seconds": {part: round(wall, 3) for part, (wall, _) in times.items()}}
        rows[f"mevt.{name}_over_uncached"] = Measured(wall, note, extra)
    return rows


def _check(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Refuse to compare probes that have learned different things."""
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)
