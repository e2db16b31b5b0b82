"""All sources, and finding out which one a file is of."""

from frugalseg.convert.reading import RawFile
from frugalseg.convert.resnets import AuthorsIRN, AuthorsSFC, TorchvisionResNet
from frugalseg.convert.source import Source, same_class
from frugalseg.convert.transformers import DINO, AuthorsCTI, DeiT
from frugalseg.convert.wide import ConvertedResNet38
from frugalseg.errors import CheckpointError, ConfigError

SOURCES: dict[str, Source] = {
    source.name: source
    # those with names of their own first: a CTI is a ViT too, and an SFC a ResNet
    for source in (AuthorsCTI(), AuthorsSFC(), AuthorsIRN(), ConvertedResNet38(), DeiT(), DINO(), TorchvisionResNet())
}


def source_named(name: str) -> Source:
    """A source by its word.

    Raises:
        ConfigError: there is none.
    """
    if name not in SOURCES:
        raise ConfigError(f"--from {name}: is no source of checkpoints; write one of {', '.join(SOURCES)}")
    return SOURCES[name]


def find_source(raw: RawFile, name: str | None) -> tuple[Source, str]:
    """The source of a file, and what shows it.

    Args:
        raw: the file.
        name: what the user says, or None.

    Raises:
        ConfigError: there is no such source.
        CheckpointError: the file is of another source, or of none that is known.
    """
    signs = {source.name: sign for source in SOURCES.values() if (sign := source.sign(raw.tensors, raw.wrapper))}
    if name is not None:
        source = source_named(name)
        if signs and not {name, *source.kin} & set(signs):
            other, sign = next(iter(signs.items()))
            raise CheckpointError(f"{raw.path}: looks like {other} ({sign}), not {name}; leave --from out, or mend it")
        return source, "as --from says"
    if not signs:
        some = ", ".join(list(raw.tensors)[:3])
        raise CheckpointError(f"{raw.path}: is of no known source (first tensors: {some}); see --help, or give --from")
    name, sign = next(iter(signs.items()))
    return SOURCES[name], f"it holds {sign}"


def class_path_of(source: Source, task: str | None) -> str | None:
    """Key of `source.tasks` for a short name or a class path.

    Raises:
        ConfigError: files of the source do not become that.
    """
    if task is None:
        return None
    for short, path in source.tasks.items():
        if task.lower() == short or (path is not None and same_class(task, path)):
            return short
    raise ConfigError(f"--task {task}: a file of {source.name} becomes one of {', '.join(source.tasks)}")
