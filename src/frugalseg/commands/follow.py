"""`frugalseg follow --stages FILE... -- COMMAND...`: run a command that makes many stages, and say how far they are.

`make demo` and `make claims` use it: stages that run side by side write to one log, and the terminal shows the stage of
how many, what is running, and the time left. Ctrl-C stops all; as every stage continues, so does the whole.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from frugalseg.analysis.stage_times import Stages, clock
from frugalseg.errors import ConfigError
from frugalseg.run import read_json, write_json

POLL, LINES_EVERY, TAIL = 0.5, 15.0, 15
"""Seconds between looks at the folders, seconds between lines without a terminal, lines of the log after a failure."""
PATIENCE = 30.0
"""Seconds that stages have to stop: a checkpoint may be under way."""


def run(argv: list[str]) -> int:
    """Run the command behind `--`.

    Returns:
        The command's exit code; 130 after Ctrl-C.

    Raises:
        ConfigError: no command, or one that cannot be started.
    """
    parser = argparse.ArgumentParser("frugalseg follow", description=__doc__)
    parser.add_argument("--title", default="stages", help="what is made")
    parser.add_argument("--stages", nargs="+", required=True, type=Path, metavar="FILE", help="files that say done")
    parser.add_argument("--log", required=True, type=Path, help="what the command prints is added to this file")
    parser.add_argument("--jobs", type=int, default=2, help="stages that run side by side; default: 2")
    parser.add_argument("--expected", type=Path, help="JSON of seconds per stage, for the time left; need not be there")
    parser.add_argument("--remember", type=Path, help="write the seconds of these stages, as --expected reads them")
    own, command = _split(argv)
    options = parser.parse_args(own)
    expected = read_json(options.expected) if options.expected and options.expected.is_file() else {}
    stages = Stages(options.stages, {name: float(seconds) for name, seconds in expected.items()}, options.jobs)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    code = _watch(command, stages, options.title, options.log)
    if code == 0 and options.remember:
        write_json(options.remember, {**expected, **stages.measured()})
    return code


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Words before and after the first `--`."""
    place = argv.index("--") if "--" in argv else len(argv)
    if not argv[place + 1 :] and "-h" not in argv and "--help" not in argv:
        raise ConfigError("follow: no command is given; write it behind `--`")
    return argv[:place], argv[place + 1 :]


def _watch(command: list[str], stages: Stages, title: str, log: Path) -> int:
    """Start the command, show progress until it ends, and say how it ended."""
    console = Console(stderr=True)
    with log.open("ab") as output:
        began = output.tell()
        try:
            # a group of its own, so that Ctrl-C is passed on once and not twice
            child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603
        except OSError as error:
            raise ConfigError(f"{command[0]}: cannot be started ({error.strerror})") from None
        # a terminal that is closed, or a polite kill, stops the stages too: they would go on unseen. What the caller
        # has us ignore, as `nohup` does, stays ignored
        before = {
            number: signal.signal(number, signal.default_int_handler)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN
        }
        try:
            _show(child, stages, title, console)
        except KeyboardInterrupt:
            _stop(child)
            console.print(f"{title}: stopped with {stages.summary()}; the same command goes on from here")
            return 130
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if child.returncode:
        tail = log.read_bytes()[began:].decode(errors="replace").splitlines()[-TAIL:]
        print("\n".join(tail), file=sys.stderr)
        console.print(f"{title}: failed with {stages.summary()}; all that was printed is in {log}", highlight=False)
    else:
        console.print(f"{title}: {stages.summary()}", highlight=False)
    return child.returncode


def _show(child: "subprocess.Popen[bytes]", stages: Stages, title: str, console: Console) -> None:
    """Until the command ends: a live panel on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        last = float("-inf")
        while child.poll() is None:
            stages.look()
            if time.monotonic() - last >= LINES_EVERY:
                last = time.monotonic()
                print(f"{title}: {stages.line()}", file=sys.stderr, flush=True)
            time.sleep(POLL)
    else:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while child.poll() is None:
                stages.look()
                live.update(_panel(stages, title))
                time.sleep(POLL)
    stages.look()


def _panel(stages: Stages, title: str) -> RenderableType:
    """A bar, the time left, and what is running."""
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(stages.total_seconds, 1e-6), completed=stages.done_seconds, width=40)
    head.add_row(f"[bold]{title}[/bold]", bar, f"stage {stages.done} of {len(stages.files)}, {stages.left_text()}")
    now = Table.grid(padding=(0, 1))
    for name, seconds in stages.running():
        now.add_row("  running", name, clock(seconds))
    return Group(head, now)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """Interrupt the whole group, as Ctrl-C in a terminal would, and wait; what does not heed it is ended less politely.

    Children of a background job of a script are born deaf to the interrupt. A second Ctrl-C does not wait.
    """
    for number, patience in ((signal.SIGINT, PATIENCE), (signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
        except ProcessLookupError:
            child.wait()
        return
