"""Begin, continue and end W&B runs: offline unless a key is present, with one id for each run folder.

W&B is imported only where a run is begun, so that nothing else pays for it.
"""

import logging
import netrc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from frugalseg.callbacks.wandb_names import read_facts
from frugalseg.errors import ConfigError

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

Mode = Literal["disabled", "offline", "online"]
RECORD = "wandb-id.txt"
"""Holds the id of a folder's run; a folder that has it is followed by W&B."""
PROJECT = "frugalseg"
STEP = "trainer/global_step"
_MODES: dict[str, Mode] = {
    "disabled": "disabled",
    "offline": "offline",
    "dryrun": "offline",
    "online": "online",
    "run": "online",
    "shared": "online",
}
_PATIENCE = 30
"""Seconds that a run may wait for W&B's server before it goes on offline."""


def has_key() -> bool:
    """Whether W&B could log in without asking: an environment variable, or an entry of netrc for its host."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "")).hostname
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    # a server of one's own may be called anything
    return any(name == host if host else "wandb" in name for name in hosts)


def wandb_mode() -> Mode:
    """What `WANDB_MODE` asks for; without it online where there is a key, else offline.

    Raises:
        ConfigError: no such mode, or online without a key.
    """
    asked = os.environ.get("WANDB_MODE", "")
    if not asked:
        return "online" if has_key() else "offline"
    if asked not in _MODES:
        raise ConfigError(f"WANDB_MODE is {asked!r}; set it to online, offline or disabled")
    mode = _MODES[asked]
    if mode == "online" and not has_key():
        raise ConfigError("WANDB_MODE is online, but there is no key; set WANDB_API_KEY, or WANDB_MODE=offline")
    return mode


def sweep_run() -> str:
    """Id of the run that a W&B sweep's agent has started this process for; "" for every other process."""
    return os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""


def sweep_name(name: str) -> str:
    """A name of an experiment's variant that no other run of a sweep has: its runs may go on side by side.

    Args:
        name: of the variant, perhaps "".

    Returns:
        The name itself outside a sweep.
    """
    return "-".join(part for part in (name, sweep_run()) if part)


def open_run(folder: Path) -> "Run | None":
    """Begin or continue the W&B run of a claimed run folder.

    Args:
        folder: W&B writes to its `wandb/`; the id is kept in `wandb-id.txt`.

    Returns:
        None where W&B is disabled.

    Raises:
        ConfigError: see `wandb_mode`.
    """
    mode = wandb_mode()
    if mode == "disabled":
        return None
    import wandb

    close_run()  # of a stage before this one in the same process
    facts, record = read_facts(folder), folder / RECORD
    known = record.read_text().strip() if record.is_file() else ""
    identity = sweep_run() or known or wandb.sdk.lib.runid.generate_id()
    record.write_text(identity + "\n")
    arguments: dict[str, Any] = {
        "dir": str(folder),
        "project": os.environ.get("WANDB_PROJECT", PROJECT),
        "id": identity,
        "resume": "allow",
        "name": facts.name,
        "group": facts.group,
        "job_type": facts.stage,
        "tags": facts.tags,
        "config": facts.settings,
    }
    run = _begin(arguments, mode)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    return run


def _begin(arguments: dict[str, Any], mode: Mode) -> "Run":
    """Offline where the server cannot be reached or refuses: a run is not to be lost for its tracker."""
    import wandb

    settings = wandb.Settings(silent=True, init_timeout=_PATIENCE)
    if mode == "online":
        try:
            run = wandb.init(**arguments, mode=mode, settings=settings, allow_val_change=True)
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())[:160]
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # would tell the same of W&B's telemetry
            wandb.teardown()  # its service still holds the id of the run that failed
            log.warning("W&B: %s; this run is kept offline, send it later with `frugalseg sync`", reason)
        else:
            log.info("W&B: %s", run.url)
            return run
    return wandb.init(**arguments, mode="offline", settings=settings, allow_val_change=True)


def close_run(code: int = 0) -> None:
    """End the W&B run of this process, where there is one.

    Args:
        code: 0 when all went well.
    """
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=code)
