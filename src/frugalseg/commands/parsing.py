"""What the settings' parser has to say, in one line."""

from frugalseg.errors import ConfigError, FrugalsegError

_NOISE = (
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value type",
    "Given value: Namespace(",
    "Given value: NestedArg(",
    "Problem with given class_path",
)


def one_line(message: str) -> str:
    """The telling lines of a parser's message: which key, and why; not the listing of all types it tried.

    Args:
        message: many lines.
    """
    lines = (line.strip(" -") for line in message.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))[:500]


def mendable(error: BaseException) -> BaseException:
    """What to raise in place of an error in building objects from settings.

    jsonargparse tells what a class raised in a ValueError of its own, many lines long, and keeps the original as cause.

    Args:
        error: what `ArgumentParser.instantiate` raised.

    Returns:
        A ConfigError for the ValueError or TypeError of a class that refuses its settings, else the original itself:
        it says what to mend, or it is a defect whose traceback is wanted.
    """
    original = error
    while original.__cause__ is not None and not isinstance(original, FrugalsegError):
        original = original.__cause__
    if isinstance(original, ValueError | TypeError):
        return ConfigError(f"{one_line(str(original))}; mend the setting, or see `frugalseg show --help`")
    return original
