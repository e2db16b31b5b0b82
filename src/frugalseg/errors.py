"""Errors that a user can cause.

Every message is one line: what is wrong (with the file or the key), then how to mend it.
`frugalseg.cli.main` prints the line and exits with code 2; a traceback means a defect of the package.
"""

import re

_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Signs that a terminal would act upon; line ends and tabs are not among them."""


class FrugalsegError(Exception):
    """Base of all errors that a user can cause."""


class ConfigError(FrugalsegError):
    """A setting is missing, unknown or contradicts another one."""


class DatasetNotFoundError(FrugalsegError):
    """A data set's root or one of its folders is not where the configuration says."""


class DatasetError(FrugalsegError):
    """The data are there, but something in them is wrong: missing ids, an empty split, no labels."""


class ImageError(DatasetError):
    """One image cannot be read."""


class MaskError(DatasetError):
    """One mask cannot be read, has the wrong encoding, size or class ids."""


class WeightsError(FrugalsegError):
    """A weights file cannot be read or does not fit the model."""


class CheckpointError(FrugalsegError):
    """A checkpoint is missing, damaged, or belongs to another paper."""


class RunFolderError(FrugalsegError):
    """A run folder belongs to another experiment, or lacks what the next stage needs."""


class MapsError(FrugalsegError):
    """A folder of class maps is incomplete or one of its files is damaged."""


class DownloadError(FrugalsegError):
    """A file cannot be fetched, or what came is not what was published."""


class DiskFullError(FrugalsegError):
    """The disk is full."""


def printable(text: str) -> str:
    """A text for a terminal: file names may hold signs that move its cursor, change its colours or its title.

    Args:
        text: may hold line ends.

    Returns:
        Control signs, marks that turn the direction of writing, and bytes that are no text, spelt out with a backslash.
    """
    return _ODD.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)
