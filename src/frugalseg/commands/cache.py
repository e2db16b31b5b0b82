"""`frugalseg cache`: frozen features of a training and a validation split, worked out once and kept on disk.

Takes the `model` and `data` sections of a linear probe's YAML (protocol `L-cached`, recipe without augmentation) and
further `--model...` and `--data...` settings, the very words that `frugalseg fit` takes after it:

    frugalseg cache --config FILE + fit --config FILE --data frugalseg.stages.probe.CachedFeatures
        --data.init_args.index runs/features/cache.json

It can stop anywhere; the same command goes on from there. Features of another net, split or size lie in folders of
their own, and are found again.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.utilities.seed import seed_everything

import frugalseg.commands.benchmarks  # noqa: F401 - makes the data modules known by their short names
from frugalseg.commands.data_settings import read_experiment
from frugalseg.commands.labelling import device_of
from frugalseg.commands.parsing import check_parsed, check_words, mendable, one_line
from frugalseg.commands.progress import counter
from frugalseg.data.base import Sample, samples_digest
from frugalseg.data.loader import EvaluationItems, Loader, quiet_worker
from frugalseg.data.module import SegmentationData
from frugalseg.data.team import Team
from frugalseg.errors import ConfigError
from frugalseg.keeping import leave, take
from frugalseg.run import digest_of, write_json
from frugalseg.stages.probe import CacheIndex, CacheWriter, LinearProbe, cache_digest
from frugalseg.stages.probe.cache import GIB, cache_bytes
from frugalseg.stages.probe.cached import work_out
from frugalseg.stages.probe.index import NAME

LIMIT = 128 * GIB
"""Bytes of both splits. mevt_s at 448 pixels takes 6.1 MiB an image: 72 GiB for VOC, 101 GiB for a tenth of COCO."""
ROLES = ("train", "val")


class Plan(NamedTuple):
    """What is to be kept.

    Attributes:
        model: its backbone makes the features.
        data: whose images.
        sizes: side of images and of masks.
        shape: (D, h, w) of an image's features.
        digests: role -> digest.
        backbone: digest of the net.
        device: where it works.
    """

    model: LinearProbe
    data: SegmentationData
    sizes: tuple[int, int]
    shape: tuple[int, ...]
    digests: dict[str, str]
    backbone: str
    device: torch.device


def run(argv: list[str]) -> int:
    """Fill both splits, then write the index."""
    parser = argparse.ArgumentParser(
        "frugalseg cache", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", default=[], help="experiment YAML; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/features"), help="folder; default: runs/features")
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"bytes of all features; default: {LIMIT} (128 GiB)")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto", help="auto: a GPU if there is one")
    options, rest = parser.parse_known_args(argv)
    plan = make_plan(options.config, rest, device_of(options.device))
    check_size(plan, options.limit)
    with Team() as team:
        # both take their place on the disk before hours go into the first
        team.begin(plan.digests, partial(_claim, plan, options), options.out)
        writers, filled = _writers(plan, options, begins=team.rank == 0), dict[int, bool]()
        for role, writer in writers.items():
            filled |= dict.fromkeys(_fill(plan, role, writer, team), True)
        if team.gather(filled, sum(len(plan.data.samples(role)) for role in ROLES)) is not None:
            for writer in writers.values():
                writer.finish()
            path = options.out / NAME
            write_json(path, _index(plan).content())
            leave(options.out)
            print(f"{path}: features of {' and '.join(f'{len(plan.data.samples(r))} images ({r})' for r in ROLES)}")
    return team.code


def _claim(plan: Plan, options: argparse.Namespace) -> int:
    """Let no other process fill the folder meanwhile; the number of splits."""
    options.out.mkdir(parents=True, exist_ok=True)
    take(options.out)
    return len(_writers(plan, options))


def make_plan(configs: list[str], words: list[str], device: torch.device) -> Plan:
    """Build what the settings name, and give everything its digest.

    Args:
        configs: YAML files; later ones win.
        words: further settings.
        device: where the backbone works.

    Raises:
        FrugalsegError: a setting is wrong, or what it names is not there.
    """
    model, data = _build(configs, words)
    if model.protocol.name != "L-cached" or model.input_size is None or model.grid is None:
        raise ConfigError(f"model.protocol is {model.protocol.name}; only L-cached keeps features")
    model.backbone.load()
    net, sizes = model.backbone.to(device), (model.input_size, model.grid)
    shape = tuple(net.dense(torch.zeros(1, 3, *sizes[:1] * 2, device=device))[0].shape)
    digests, backbone = {}, net.digest()
    for role in ROLES:
        scale = data.recipe.normaliser.mean, data.recipe.normaliser.std
        known = [samples_digest({"": data.samples(role)}), data.class_names, scale]
        digests[role] = cache_digest(backbone, digest_of(known), *sizes)
    return Plan(model, data, sizes, shape, digests, backbone, device)


def check_size(plan: Plan, limit: int) -> None:
    """Refuse more than the limit before anything is worked out.

    Raises:
        ConfigError: it is more.
    """
    images = sum(len(plan.data.samples(role)) for role in ROLES)
    if (size := cache_bytes(images, plan.shape, plan.sizes[1])) > limit:
        raise ConfigError(
            f"features of {images} images, {'x'.join(map(str, plan.shape))} in half precision, take {size} bytes "
            f"({size / GIB:.1f} GiB), more than --limit {limit}; raise it, lower data.limit, or use protocol L"
        )


def _build(configs: list[str], words: list[str]) -> tuple[LinearProbe, SegmentationData]:
    """Model and data as `frugalseg fit` would build them."""
    check_words(words)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_subclass_arguments(LinearProbe, "model", required=True, fail_untyped=False)
    parser.add_subclass_arguments(SegmentationData, "data", required=True)
    parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
    sections = [_ours(read_experiment(config)) for config in configs]
    given = [f"--config={yaml.safe_dump(section)}" for section in sections if section]
    try:
        parsed = parser.parse_args([*given, *words])
    except (ArgumentError, UnicodeDecodeError) as error:
        raise ConfigError(f"{one_line(str(error))}; see `frugalseg cache --help`") from error
    check_parsed(parsed)
    seed_everything(parsed.seed_everything, verbose=False)
    try:
        built = parser.instantiate(parsed)
    except (ValueError, TypeError) as error:
        raise mendable(error) from None
    return built.model, built.data


def _ours(content: dict[str, Any]) -> dict[str, Any]:
    return {key: content[key] for key in ("seed_everything", "model", "data") if content.get(key) is not None}


def _writers(plan: Plan, options: argparse.Namespace, begins: bool = True) -> dict[str, CacheWriter]:
    """Take the splits' features in; rank 0 begins, and makes the files."""

    def writer(role: str) -> CacheWriter:
        ids, split, digest = [each.id for each in plan.data.samples(role)], plan.data.splits[role], plan.digests[role]
        return CacheWriter(options.out, split, ids, plan.shape, plan.sizes[1], digest, options.limit, begins)

    return {role: writer(role) for role in ROLES}


def _fill(plan: Plan, role: str, writer: CacheWriter, team: Team) -> list[int]:
    """Work out what is missing of our share of a split.

    Returns:
        The images of our share, counted on over both splits.
    """
    samples, missing, ours = plan.data.samples(role), set(writer.missing()), list[int]()
    report = counter(f"cache {plan.data.splits[role]}")
    if not missing and team.rank == 0:
        print(f"{writer.final}: up to date", file=sys.stderr)

    def asked() -> Iterator[int]:
        """Positions of images, drawn when a worker is free to decode one."""
        for before, item in deal:
            ours.append(item)
            if samples[item].id in missing:
                yield item
            if team.rank == 0:
                report(before + 1, len(samples))

    deal = team.deal([0.0] * len(samples))  # all are of one size when the net sees them
    work_out(writer, plan.model.backbone, _loader(plan.data, samples, asked()), *plan.sizes, plan.device)
    ours.extend(item for _, item in deal)
    first = 0 if role == ROLES[0] else len(plan.data.samples(ROLES[0]))
    return [first + item for item in ours]


def _loader(data: SegmentationData, samples: list[Sample], order: Iterable[int]) -> Loader:
    """Whole images, one at a time, as in validation."""
    items = EvaluationItems(samples, data.recipe, data.num_classes)
    return Loader(
        items, batch_size=1, sampler=order, collate_fn=data.recipe.collate, num_workers=data.num_workers,
        worker_init_fn=quiet_worker,
    )  # fmt: skip


def _index(plan: Plan) -> CacheIndex:
    data = plan.data
    train, val = ((data.splits[role], plan.digests[role]) for role in ROLES)
    images = {role: len(data.samples(role)) for role in ROLES}
    return CacheIndex(
        train, val, type(data).__name__, data.class_names, plan.backbone, plan.model.backbone.width, *plan.sizes, images
    )
