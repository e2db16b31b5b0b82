"""Cutting iSAID into the tiles of iSAID-5i, on all cores; can be stopped and continued."""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from frugalseg.data import folders
from frugalseg.data.base import first_five
from frugalseg.data.io import remove_leftovers, write_atomic
from frugalseg.data.isaid5i import COUNTS, FOLDS, SUFFIX, fold_classes
from frugalseg.data.meeting import Place, cores
from frugalseg.data.parallel import Progress, each_dealt
from frugalseg.data.team import Team
from frugalseg.data.tiles import FOREGROUND, STEP, TILE, Cut, Kept, tile_boxes, tile_scene
from frugalseg.errors import DatasetError, DatasetNotFoundError, DiskFullError, FrugalsegError

__all__ = ["Cut", "tile_boxes", "tile_dataset", "tile_scene"]


class _Job(NamedTuple):
    """One scene to cut."""

    image: Path
    mask: Path
    folder: Path
    cut: Cut

    @property
    def record(self) -> Path:
        return self.folder / ".tiled" / f"{self.image.stem}.json"

    @property
    def sizes(self) -> list[int]:
        return [path.stat().st_size for path in (self.image, self.mask)]


def tile_dataset(
    raw: str | Path,
    root: str | Path,
    tile: int = TILE,
    step: int = STEP,
    foreground: float = FOREGROUND,
    workers: int | None = None,
    progress: Progress | None = None,
    lists: bool = False,
    min_pixels: int | None = None,
    team: Team | None = None,
) -> dict[str, int]:
    """Cut all scenes of iSAID that are there.

    A run that was stopped is continued by the same call: ROOT/<split>/.tiled holds one small record per finished scene,
    and scenes are skipped whose record and tiles are all there and whose files still have the size in bytes that they
    had.

    Args:
        raw: folder that holds {train,val}/images/P0000.png and the masks P0000_instance_color_RGB.png beside them or in
            {train,val}/Semantic_masks/images.
        root: another folder, which gets the tiles.
        tile: side of a tile in pixels.
        step: distance of neighbouring tiles in pixels.
        foreground: share of foreground pixels that a tile must exceed.
        workers: processes; None for all cores, 1 for none besides this one.
        progress: called with (scenes done, scenes in all).
        lists: also write the few-shot lists <split>_list/split{0,1,2}_<split>.txt; else the packaged, official lists
            apply, which name the tiles of the default settings.
        min_pixels: pixels of a class that put a tile on its list; None for 1024 at 256x256, in proportion to the area.
        team: processes that share the work; None for this one alone.

    Returns:
        Split -> tiles in it; nothing where another process tells.

    Raises:
        ConfigError: a setting is out of range.
        DatasetNotFoundError: `raw` holds no scenes.
        DatasetError: masks are missing; ROOT holds tiles of other settings; scenes could not be cut (the others are);
            or the root cannot be written to.
        DiskFullError: there is no room; the same call continues.
    """
    cut = Cut(tile, step, foreground)
    cut.check()
    least = round(1024 * tile**2 / TILE**2) if min_pixels is None else min_pixels
    raw = Path(raw)
    if not (there := [split for split in COUNTS if (raw / split / "images").is_dir()]):
        raise DatasetNotFoundError(
            f"{raw}: has no train/images or val/images; give the folder that holds iSAID's scenes"
        )
    splits = {split: _jobs(raw / split, Path(root) / split, cut) for split in there}
    jobs = [job for found in splits.values() for job in found]
    team = team or Team(Place())
    try:
        todo = team.begin(_identity(cut, jobs), partial(_claim_all, Path(root), splits, cut), Path(root))
        if not _cut_all([jobs[place] for place in todo], len(jobs) - len(todo), workers, progress, team):
            return {}
        kept = {split: _all_kept(jobs) for split, jobs in splits.items()}
        for split, tiles in kept.items() if lists else ():
            _write_lists(Path(root) / split, tiles, max(1, least))
    except OSError as error:  # what is read has its own errors
        raise DatasetError(
            f"{root}: cannot be written to ({error.strerror or error}); nothing there is half-written: mend that, then"
            " run the same command again to continue"
        ) from None
    return {split: len(tiles) for split, tiles in kept.items()}


def _identity(cut: Cut, jobs: list[_Job]) -> dict[str, Any]:
    """What all processes must see alike."""
    return {"settings": cut._asdict(), "scenes": [[job.folder.name, job.image.name, *job.sizes] for job in jobs]}


def _claim_all(root: Path, splits: dict[str, list[_Job]], cut: Cut) -> list[int]:
    """Make the folders of the tiles ours; positions of the scenes that are not cut."""
    for split in splits:
        _claim(root / split, cut)
    listing = folders.Listing()
    jobs = (job for found in splits.values() for job in found)
    return [place for place, job in enumerate(jobs) if not _is_done(job, listing)]


def _jobs(source: Path, folder: Path, cut: Cut) -> list[_Job]:
    listing = folders.Listing()
    images, masks = source / "images", source / "Semantic_masks" / "images"
    names = [name.removesuffix(".png") for name in sorted(listing.names(images)) if name.endswith(".png")]
    scenes = [name for name in names if not name.endswith(SUFFIX)]
    found = {name: listing.first(place / f"{name}{SUFFIX}.png" for place in (masks, images)) for name in scenes}
    if missing := [name for name, mask in found.items() if mask is None]:
        raise DatasetError(
            f"{source}: {len(missing)} of {len(scenes)} scenes have no mask <scene>{SUFFIX}.png in"
            f" Semantic_masks/images or images, first {first_five(missing)}; unpack the masks, or take the scenes away"
        )
    return [_Job(images / f"{name}.png", mask, folder, cut) for name, mask in found.items() if mask is not None]


def _claim(folder: Path, cut: Cut) -> None:
    """Mark a folder as filled by a tiling with these settings, or refuse one that is not."""
    marker, wanted = folder / ".tiled" / "settings.json", cut._asdict()
    if (found := _read(marker)) is None:
        if any((folder / "images").glob("*")):
            raise DatasetError(f"{folder}/images: holds files that no tiling made; give an empty folder for the tiles")
        write_atomic(marker, lambda stream: stream.write(json.dumps(wanted).encode()))
    elif found != wanted:
        raise DatasetError(f"{folder}: holds tiles cut with {found}, not {wanted}; give another folder for the tiles")
    for part in ("images", "semantic_png", ".tiled"):
        remove_leftovers(folder / part)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content


def _is_done(job: _Job, listing: folders.Listing) -> bool:
    record = _read(job.record)
    return record is not None and record["bytes"] == job.sizes and all(
        job.folder / "images" / f"{stem}.png" in listing
        and job.folder / "semantic_png" / f"{stem}{SUFFIX}.png" in listing
        for stem in record["tiles"]
    )  # fmt: skip


def _cut_all(todo: list[_Job], done: int, workers: int | None, progress: Progress | None, team: Team) -> bool:
    """Cut those scenes that are dealt to this process; whether it is the one that knows of all."""
    report = None if progress is None or team.rank else partial(_report, progress, done)
    if report and done:
        report(0, len(todo))
    deal = team.deal([job.sizes[0] for job in todo])
    known = team.gather(each_dealt(_attempt, todo, deal, workers or cores(team.place), report), len(todo))
    if failures := [failure for failure in (known or {}).values() if failure]:
        more = f" (and {len(failures) - 1} more scenes failed)" if len(failures) > 1 else ""
        raise DatasetError(f"{failures[0]}{more}; the other scenes are cut, run the same command again for the rest")
    return known is not None


def _report(progress: Progress, before: int, done: int, total: int) -> None:
    progress(before + done, before + total)


def _attempt(job: _Job) -> str | None:
    try:
        kept = tile_scene(job.image, job.mask, job.folder, job.cut)
    except DiskFullError:  # no other scene would fare better
        raise
    except FrugalsegError as error:
        return str(error)
    for stem in (_read(job.record) or {"tiles": {}})["tiles"].keys() - kept.keys():  # of an earlier mask
        (job.folder / "images" / f"{stem}.png").unlink(missing_ok=True)
        (job.folder / "semantic_png" / f"{stem}{SUFFIX}.png").unlink(missing_ok=True)
    record = {"bytes": job.sizes, "tiles": kept}
    write_atomic(job.record, lambda stream: stream.write(json.dumps(record).encode()))  # last: now the scene is done
    return None


def _all_kept(jobs: list[_Job]) -> Kept:
    records = [_read(job.record) or {"tiles": {}} for job in jobs]
    return {
        stem: {int(class_id): pixels for class_id, pixels in counts.items()}
        for record in records
        for stem, counts in record["tiles"].items()
    }


def _write_lists(folder: Path, kept: Kept, min_pixels: int) -> None:
    for fold in range(FOLDS):
        lines = [
            f"{stem}{SUFFIX}.png_{class_id:02}\n"
            for stem, counts in kept.items()
            for class_id in fold_classes(fold)
            if counts.get(class_id, 0) >= min_pixels
        ]
        text = "".join(lines).encode()
        path = folder / f"{folder.name}_list" / f"split{fold}_{folder.name}.txt"
        write_atomic(path, lambda stream, text=text: stream.write(text))  # type: ignore[misc]
