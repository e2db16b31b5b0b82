"""`frugalseg data get`: fetch a benchmark's files or the backbones' weights, or print what a person has to do."""

import argparse
import errno
import re
import shutil
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from textwrap import indent
from typing import BinaryIO

from frugalseg.commands.progress import counter
from frugalseg.data.fetch import fetch, in_units, writing
from frugalseg.data.io import write_atomic
from frugalseg.data.sources import NEXT, SOURCES, STEPS, Source, steps
from frugalseg.data.unpack import SUFFIXES, Bounds, unpack
from frugalseg.errors import ConfigError, DownloadError
from frugalseg.run import file_digest

MODELS = {
    "resnet50.tv_in1k": "SFC, DSMF-Net",
    "deit_small_patch16_224.fb_in1k": "CTI",
    "vgg16_bn.tv_in1k": "DSMF-Net",
    "resnet101.tv_in1k": "DSMF-Net",
}
"""timm's names of the backbones that the papers start from; MEVT starts from random numbers."""


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `get` to the actions of `frugalseg data`.

    Args:
        actions: what `add_subparsers` gave.
    """
    models = ", ".join(f"{name} ({papers})" for name, papers in MODELS.items())
    get = actions.add_parser(
        "get",
        help="fetch, check and unpack a benchmark's files, or fetch the backbones' weights",
        description="Fetch, check and unpack what needs no login; print the steps for what does. An interrupted command"
        " continues where it stopped. `weights` fetches the backbones for machines without network.",
    )
    get.add_argument("benchmark", choices=[*sorted({*SOURCES, *STEPS}), "weights"])
    get.add_argument("--root", required=True, type=Path, help="folder for the data; archives go to ROOT/archives")
    get.add_argument("--list", action="store_true", help="only say what there is to fetch and what is there already")
    data = get.add_argument_group("benchmarks")
    data.add_argument("--only", nargs="+", metavar="FILE", help="only these files")
    data.add_argument(
        "--max-bytes", type=int, default=Bounds().size, help="of all files of an archive; default: %(default)s"
    )
    data.add_argument("--max-files", type=int, default=Bounds().files, help="in an archive; default: %(default)s")
    data.add_argument("--remove-archives", action="store_true", help="delete an archive when it is unpacked")
    weights = get.add_argument_group("weights")
    weights.add_argument("--model", nargs="+", metavar="NAME", help=f"timm's names; default: {models}")
    weights.add_argument("--revision", help="commit or tag of the hub's repositories")
    weights.add_argument("--endpoint", help="address of another hub, such as a mirror")


def run_get(options: argparse.Namespace) -> int:
    """Fetch a benchmark or weights.

    Args:
        options: what the parser of `add_parser` gave.

    Returns:
        0; also where all that could be done was to print steps.

    Raises:
        ConfigError: an option that does not belong to what is fetched, an unknown file or model.
        DownloadError: see `fetch` and `unpack`.
        DiskFullError: the files do not fit.
    """
    weights = options.benchmark == "weights"
    foreign = ("only", "remove_archives") if weights else ("model", "revision", "endpoint")
    if wrong := [name for name in foreign if getattr(options, name)]:
        raise ConfigError(f"--{wrong[0].replace('_', '-')} has no meaning for {options.benchmark}; leave it out")
    if weights:
        get_weights(options.root, options.model or list(MODELS), options.list, options.revision, options.endpoint)
    else:
        bounds = Bounds(options.max_bytes, options.max_files)
        get_files(options.benchmark, options.root, options.only, options.list, options.remove_archives, bounds)
    return 0


# ---------------------------------------------------------------------- benchmarks


def get_files(
    benchmark: str,
    root: Path,
    only: Sequence[str] | None = None,
    list_only: bool = False,
    remove_archives: bool = False,
    bounds: Bounds | None = None,
) -> None:
    """Fetch, check and unpack a benchmark's files, and print what remains to be done.

    Args:
        benchmark: key of `SOURCES` or `STEPS`.
        root: folder in which the official layout appears; archives go to its folder `archives`.
        only: names of files; None for all.
        list_only: say what would be done.
        remove_archives: delete each archive when it is unpacked, and leave a note that it was.
        bounds: how much an archive may hold.

    Raises:
        ConfigError: `only` names a file that the benchmark does not have.
        DownloadError: see `fetch` and `unpack`.
        DiskFullError: the files do not fit.
    """
    sources = _chosen(benchmark, only)
    if sources:
        _say(f"{benchmark}: {_total(sources)}, to {root}")
    for source in sources:
        if list_only:
            _say(f"  {source.name}: {_size(source)}, {_state(source, root)}, {source.digest or 'no checksum'}")
            _say(f"    {source.url}")
        else:
            _get_file(source, root, remove_archives, bounds)
    if benchmark in STEPS:
        _say(f"{benchmark}: what follows needs a login or a choice, so it is yours to do:")
        _say(steps(benchmark, str(root)))
    elif not list_only:
        _say(f"next:\n{indent(NEXT[benchmark].format(root=root), '  ')}")


def _say(line: str) -> None:
    print(line, flush=True)  # before a long transfer, also where the output goes to a file


def _chosen(benchmark: str, only: Sequence[str] | None) -> list[Source]:
    known = {source.name: source for source in SOURCES.get(benchmark, ())}
    if unknown := [name for name in only or () if name not in known]:
        raise ConfigError(f"--only {unknown[0]}: {benchmark} has {', '.join(known) or 'no file to fetch'}")
    return [source for name, source in known.items() if not only or name in only]


def _get_file(source: Source, root: Path, remove_archive: bool, bounds: Bounds | None) -> None:
    if _note(source, root).is_file():
        _say(f"{source.name}: there already, unpacked; to fetch it again delete {_note(source, root)}")
        return
    folder = _folder(source, root)
    if (folder / source.name).is_file():
        _say(f"{source.name}: is there, checking")
    else:
        _say(f"{source.name}: {_size(source)} from {source.url}")
    path = fetch(source, folder, _megabytes(source.name))
    if source.digest:
        _say(f"{source.name}: {source.digest.partition(':')[0]} is right")
    else:
        _say(f"{source.name}: no checksum is published for it; what came has sha256 {file_digest(path)}")
    if source.name.endswith(SUFFIXES):
        target = root / source.unpack
        count = unpack(path, target, counter(f"unpack {source.name}"), bounds)
        _say(f"{source.name}: {f'{count:,} files unpacked' if count else 'every file is there already'} in {target}")
        if remove_archive:
            with writing(folder):
                _note(source, root).write_text(f"{source.url}\n{source.digest}\n")
                path.unlink()


def _folder(source: Source, root: Path) -> Path:
    return root / ("archives" if source.name.endswith(SUFFIXES) else source.unpack)


def _note(source: Source, root: Path) -> Path:
    """The file that says that an archive was unpacked and then deleted."""
    return _folder(source, root) / f"{source.name}.unpacked"


def _state(source: Source, root: Path) -> str:
    path = _folder(source, root) / source.name
    part = path.with_name(f"{path.name}.part")
    if _note(source, root).is_file():
        return "unpacked"
    if path.is_file():
        return "there"
    return f"{in_units(part.stat().st_size)} there" if part.is_file() else "not there"


def _size(source: Source) -> str:
    return in_units(source.size) if source.size else "size not published"


def _total(sources: Sequence[Source]) -> str:
    unknown = sum(source.size is None for source in sources)
    known = in_units(sum(source.size or 0 for source in sources)) if unknown < len(sources) else ""
    without = f"{unknown} of unpublished size" if unknown else ""
    return f"files {len(sources)}, {' and '.join(filter(None, (known, without)))}"


def _megabytes(name: str) -> Callable[[int, int], None]:
    report = counter(f"{name}, MB")
    return lambda done, total: report(done // 10**6, total // 10**6)


# ---------------------------------------------------------------------- weights


def get_weights(
    root: Path,
    models: Sequence[str],
    list_only: bool = False,
    revision: str | None = None,
    endpoint: str | None = None,
) -> None:
    """Fetch timm's weights as `ROOT/<model>.safetensors`, through the hub's own cache.

    Args:
        root: folder for the files.
        models: timm's names with their tags.
        list_only: say what would be done.
        revision: commit or tag; None for the newest.
        endpoint: address of the hub; None for the public one, or HF_ENDPOINT.

    Raises:
        ConfigError: timm knows no weights of that name.
        DownloadError: the hub cannot be reached, or what came is not what was published.
        DiskFullError: the file does not fit.
    """
    repositories = {name: _repository(name) for name in models}
    for name, repository in repositories.items():
        target = root / f"{name}.safetensors"
        if list_only:
            _say(f"  {name}: {repository}, {'there' if target.is_file() else 'not there'}")
            continue
        if target.is_file():
            _say(f"{name}: there already; to fetch it again delete it")
        else:
            _say(f"{name}: from {repository}")
            cached = _download(repository, revision, endpoint)
            with writing(root):
                write_atomic(target, _copier(cached))
        _say(f"  --model.init_args.weights {target}")


def _repository(name: str) -> str:
    """The hub's repository of a timm model."""
    import timm  # takes seconds, which the other actions need not wait for

    known = timm.list_pretrained()
    config = timm.get_pretrained_cfg(name) if name in known else None
    if config is None or not config.hf_hub_id:
        near = get_close_matches(name, known, 4) or [n for n in known if n.startswith(name.partition(".")[0])][:4]
        mend = f"near are {', '.join(near)}" if near else "timm.list_pretrained() lists all names"
        raise ConfigError(f"--model {name}: timm has no weights of that name; {mend}")
    return str(config.hf_hub_id)


def _download(repository: str, revision: str | None, endpoint: str | None) -> Path:
    """Fetch a repository's safetensors into the hub's cache and check them."""
    from huggingface_hub import constants, hf_hub_download
    from safetensors import safe_open

    try:
        path = Path(hf_hub_download(repository, "model.safetensors", revision=revision, endpoint=endpoint))
        published = path.readlink().name if path.is_symlink() else ""  # the cache names its blobs by their ETag
        if re.fullmatch("[0-9a-f]{64}", published) and file_digest(path) != published:
            raise ValueError(f"the sha256 of {path.resolve()} is not {published}; delete it")
        with safe_open(path, "pt"):
            pass  # a cut or foreign file does not open
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            with writing(Path(constants.HF_HUB_CACHE)):
                raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DownloadError(
            f"{repository}: model.safetensors cannot be fetched ({reason}); check the network, HF_HUB_OFFLINE and"
            " --revision, and run the command again"
        ) from None
    return path


def _copier(source: Path) -> Callable[[BinaryIO], None]:
    def copy(target: BinaryIO) -> None:
        with source.open("rb") as stream:
            shutil.copyfileobj(stream, target)

    return copy
