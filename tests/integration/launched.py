"""Commands on several ranks, as launchers start them: what `test_ddp_launch` and `test_ddp_faults` run."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from lightning.pytorch import Callback

from tests.conftest import REPOSITORY

SLURM = REPOSITORY / "experiments/_base/slurm"
STUBS = {
    # two "nodes" on this machine
    "srun": """for node in 0 1; do
  SLURM_NODEID=$node SLURM_PROCID=$node SLURM_LOCALID=0 SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS_PER_NODE=1 SLURM_STEP_TASKS_PER_NODE=1 "${@:2}" &
  pids+=($!)
done
code=0
for pid in "${pids[@]}"; do wait "$pid" || { code=$?; kill "${pids[@]}" 2> /dev/null; }; done
exit $code
""",
    "scontrol": """if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$NOTES"; fi
""",
}
"""What stands in for SLURM's commands."""


class Die(Callback):
    """Ends one rank before a step of its training; a restarted one, and any other rank, goes on.

    Args:
        rank: which.
        step: before which step.
        how: `kill`, `exit` or `error`.
        once: a file that says it has happened.
    """

    def __init__(self, rank: int, step: int, how: str, once: str) -> None:
        self.rank, self.step, self.how, self.once = rank, step, how, Path(once)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank != self.rank or trainer.global_step != self.step or self.once.exists():
            return
        self.once.touch()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(7)
        raise ValueError("the disk of this rank is gone")


def dying(folder, rank, how, step=3):
    """Words that let a rank die once."""
    given = {"rank": rank, "step": step, "how": how, "once": folder / f"{how}{rank}"}
    values = [f"--trainer.callbacks.{key}={value}" for key, value in given.items()]
    return ["--trainer.callbacks+=tests.integration.launched.Die", "--allow=tests", *values]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(REPOSITORY), **more}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def frugalseg(words, timeout=300, **more):
    """The command, whose other ranks Lightning starts."""
    command = [sys.executable, "-m", "frugalseg", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(**more), capture_output=True, text=True, timeout=timeout
    )


def torchrun(words, ranks=2, restarts=0, timeout=300, folders=None):
    """The command under one agent of torchrun; every rank in a folder of its own, `<folders>/<rank>`, if there are any."""
    launcher = ["--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    started = ["-m", "frugalseg", *words]
    if folders is not None:
        inside = 'cd "$0/$RANK" && exec "$1" "${@:2}"'
        started = ["--no-python", "bash", "-c", inside, str(folders), sys.executable, *started]
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, *started]
    # as Make starts it: with torchrun's own store a restarted rank may read the addresses of the ranks before
    given = environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    return subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True, timeout=timeout)


def sbatch(script, words, folder, srun=STUBS["srun"]):
    """A batch script with two nodes on this machine, and stubs of what SLURM would bring; it is started at once."""
    stubs = folder / "stubs"
    stubs.mkdir(parents=True, exist_ok=True)
    for name, text in (STUBS | {"srun": srun}).items():
        (stubs / name).write_text(f"#!/bin/bash\n{text}")
        (stubs / name).chmod(0o755)
    job = str(free_port())  # the port of the meeting is made of it
    given = {
        "PATH": f"{stubs}:{os.environ['PATH']}", "PYTHON": sys.executable, "NOTES": str(folder / "notes"),
        "SLURM_JOB_ID": job, "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "127.0.0.1",
        "SLURM_JOB_NAME": "frugalseg", "DEVICES": "1", "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", str(SLURM / script), *words], cwd=REPOSITORY, env=environment(**given), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def errors(stderr):
    """Lines by which the command says what was wrong."""
    return [line for line in stderr.splitlines() if "frugalseg: error:" in line]
