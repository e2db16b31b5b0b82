"""Commands as forked children of one process that has imported everything: a second each instead of ten.

Each child is a process group of its own, so that a kill takes its workers too.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def load() -> None:
    """Import what commands need, once and before anything is forked; nothing is computed, as threads do not survive."""
    import torch

    import frugalseg.commands.cache
    import frugalseg.commands.crf
    import frugalseg.commands.evaluate
    import frugalseg.commands.walk
    import frugalseg.papers.cti
    import frugalseg.papers.dsmf
    import frugalseg.papers.mevt
    import frugalseg.papers.sfc
    import frugalseg.stages.cluster
    import frugalseg.stages.deeplab
    import frugalseg.stages.finetune
    import frugalseg.stages.irn
    import frugalseg.stages.probe
    import frugalseg.stages.psa
    import frugalseg.stages.retrieval
    import frugalseg.stages.tags
    import frugalseg.training  # noqa: F401

    torch.set_num_threads(1)


@dataclass
class Child:
    """A command that runs.

    Attributes:
        process: its id, which is that of its group.
        log: what it prints.
        began: when it was forked, by the monotonic clock.
    """

    process: int
    log: Path
    began: float
    _code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        if self._code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, seconds: float = 300.0) -> int:
        """Its exit code; one that takes longer is killed."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.005)
        return code

    def kill(self) -> bool:
        """Kill its group; False where it had ended."""
        alive = self.poll() is None
        try:
            os.killpg(self.process, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if self._code is None:
            _, status = os.waitpid(self.process, 0)
            self._code = os.waitstatus_to_exitcode(status)
        return alive and self._code == -signal.SIGKILL

    def printed(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")


def start(words: Sequence[str], folder: Path, log: Path, before: Callable[[], None] | None = None) -> Child:
    """Fork a child that runs `frugalseg` with these words.

    Args:
        words: of the command line.
        folder: to work in.
        log: file for both of its streams; it is begun anew.
        before: is called in the child first, to lay faults.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _become(words, folder, log, before)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(process, process)  # here too: a kill may come before the child has done it
    return Child(process, log, time.monotonic())


def _become(words: Sequence[str], folder: Path, log: Path, before: Callable[[], None] | None) -> None:
    """Be the command; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.chdir(folder)
        sys.argv = ["frugalseg", *words]
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
        import frugalseg.cli as cli

        if before is not None:
            before()
        code = cli.main()  # as from a shell, by sys.argv
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
