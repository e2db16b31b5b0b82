"""The command line: fit, validate, test and predict through LightningCLI, and the verbs of `commands/`.

`main(args)` is what tests call; it returns the exit code. An error that a user can cause ends in one line and code 2.
"""

import errno
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from frugalseg import limits
from frugalseg._version import __version__
from frugalseg.commands import SHARED, VERBS
from frugalseg.data.meeting import find_place
from frugalseg.data.team import alone
from frugalseg.errors import ConfigError, FrugalsegError, printable

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: command-line words; None takes them from the shell.

    Returns:
        0 when all went well, 2 for an error that the user can mend, 130 after Ctrl-C.

    Raises:
        OSError: one that names no file; an error of the system about a file (rights, wrong kind) is the user's to mend.
    """
    words = list(sys.argv[1:] if args is None else args)
    _log_to_stderr()
    if not words or words[0] in {"-h", "--help"}:
        print(_usage())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    program, before = list(sys.argv), limits.now()
    try:
        return _run_chain(words, from_shell=args is None)
    except KeyboardInterrupt:
        return _stopped()
    except SystemExit as leaving:
        # Lightning's answer to Ctrl-C; from then on it ignores the signal
        if isinstance(leaving.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return _stopped()
        raise
    except FrugalsegError as error:
        return _fail(str(error))
    except RuntimeError as error:
        if (reason := _lost_rank(error)) is None:
            raise
        return _fail(reason)
    except OSError as error:
        if error.errno is None or not isinstance(error.filename, str | bytes):
            raise  # a pipe, a socket, a defect: no file that a user could mend
        return _fail(_of_file(error))
    finally:
        sys.argv = program
        limits.use(before)


MENDS = {
    errno.EACCES: "give yourself the right to it, or name another place",
    errno.EPERM: "give yourself the right to it, or name another place",
    errno.EROFS: "name a place on another disk",
    errno.EISDIR: "a file is wanted here: name another path, or move the folder away",
    errno.ENOTDIR: "a folder is wanted here, but a file is in its place: name another path, or move the file away",
    errno.EEXIST: "a folder is wanted here, but a file is in its place: name another path, or move the file away",
    errno.ENOENT: "restore it, or mend the path",
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some space and run the command again",
    errno.ENAMETOOLONG: "take a shorter name",
}
"""What to do about an error of the operating system."""


def _run_chain(words: Sequence[str], from_shell: bool) -> int:
    """Run the commands that `+` joins until one fails."""
    for part in split_chain(words):
        if from_shell:
            # Lightning starts the other ranks of this very command from sys.argv
            sys.argv = [sys.argv[0], *part]
        environment = dict(os.environ)
        if code := _dispatch(part):
            return code
        _leave_process_group(environment)
    return 0


def _stopped() -> int:
    print("frugalseg: stopped; the same command goes on from here", file=sys.stderr)
    return 130


def _lost_rank(error: RuntimeError) -> str | None:
    """What to say of an error that is another rank's end; see `commands.ranks`."""
    if "torch.distributed" not in sys.modules:
        return None
    from frugalseg.commands.ranks import lost_rank

    return lost_rank(error)


def _fail(message: str) -> int:
    print(f"frugalseg: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _of_file(error: OSError) -> str:
    """The file, what is wrong with it, and how to mend it."""
    # the second name is the target of a renaming; a temporary name stands for the file that is being written
    name = os.fsdecode(error.filename2 or error.filename)
    name = re.sub(r"(^|/)\.([^/]+)\.\d+\.tmp$", r"\1\2", name)
    mend = MENDS.get(error.errno or 0, "mend the path, or name another place")
    return f"{name}: {error.strerror or type(error).__name__}; {mend}"


def _leave_process_group(environment: dict[str, str]) -> None:
    """Undo what DDP left behind, or the next command would wait for ranks that have gone.

    Ranks that torchrun or srun has started do not go: they run the next command together, in the same group. A second
    one would read the first one's addresses from torchrun's store.
    """
    if (watch := sys.modules.get("frugalseg.callbacks.ranks")) is not None:
        watch.let_go()
    if find_place(environment).world > 1:
        return
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            os.environ.pop(name, None)
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def split_chain(words: Sequence[str]) -> list[list[str]]:
    """Split `fit ... + predict ... + evaluate ...` at lone plus signs: commands that share one process.

    Importing Lightning takes longer than a small stage; joined stages pay for it once.

    Raises:
        ConfigError: nothing stands before or after a plus sign.
    """
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "+":
            parts.append([])
        else:
            parts[-1].append(word)
    if not all(parts):
        raise ConfigError("a command is missing beside `+`; write e.g. `frugalseg fit ... + predict ...`")
    return parts


class _Stderr(logging.Handler):
    """Prints to what is the error stream now; logging's own handler keeps the one it began with, even a closed one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print(printable(self.format(record)), file=sys.stderr)


def _log_to_stderr() -> None:
    """Show the package's own log; other libraries keep theirs."""
    log = logging.getLogger("frugalseg")
    if not log.handlers:
        log.addHandler(_Stderr())
        log.setLevel(logging.INFO)


def console() -> None:
    """Entry point of the `frugalseg` script."""
    sys.exit(main())


def _dispatch(words: list[str]) -> int:
    if words[0] != "follow":  # whose words are another command's
        words = [words[0], *limits.take(words[1:])]
    if words[0] in VERBS:
        verb = partial(importlib.import_module(f"frugalseg.commands.{words[0]}").run, words[1:])
        code: int = verb() if words[0] in SHARED else alone(verb)
        return code
    if words[0] not in TRAINER_COMMANDS:
        print(_usage(), file=sys.stderr)
        raise FrugalsegError(f"no such command: {words[0]!r}; see `frugalseg --help`")
    # Lightning and timm take seconds to import: only commands that train pay for them
    from frugalseg.training import run_trainer

    return run_trainer(words)


_SHARED_WORDS = f"""every command:
  --allow NAME[,NAME]   packages whose classes settings may name, beside {", ".join(limits.PACKAGES)}
  --max-pixels N        largest image that is decoded, height times width; default: {limits.MAX_PIXELS}"""


def _usage() -> str:
    verbs: dict[str, Any] = {
        "fit": "train a task",
        "validate": "score a checkpoint on the validation split",
        "test": "score a checkpoint on the test split",
        "predict": "write predictions of a checkpoint",
        **VERBS,
    }
    rows = "\n".join(f"  {name:<10} {text}" for name, text in verbs.items())
    return f"usage: frugalseg COMMAND [--help] ... [+ COMMAND ...]\n\n{rows}\n\n{_SHARED_WORDS}"
