"""`frugalseg dashboard --entity E --project P`: a W&B workspace, and a report for each paper.

Without a key what they would show is written to a file, and nothing is sent.
"""

import argparse
import importlib
import sys
from pathlib import Path

from frugalseg.analysis.dashboard import definition
from frugalseg.callbacks.wandb_runs import PROJECT, wandb_mode
from frugalseg.commands.sync import check_server
from frugalseg.errors import ConfigError, FrugalsegError
from frugalseg.run import write_json

OUT = Path("runs/dashboard.json")
_LETTERS = 200
"""Of W&B's reason in an error."""


def run(argv: list[str]) -> int:
    """Build the dashboards, or write their definition."""
    parser = argparse.ArgumentParser("frugalseg dashboard", description=__doc__, allow_abbrev=False)
    parser.add_argument("--entity", default="", help="W&B user or team")
    parser.add_argument("--project", default=PROJECT, help=f"W&B project; default: {PROJECT}")
    parser.add_argument("--out", type=Path, help=f"write the definition there, key or no key; without a key: {OUT}")
    options = parser.parse_args(argv)
    online = wandb_mode() == "online"
    if not options.project or (online and not options.entity):
        raise ConfigError("--entity and --project: one is missing; make dashboard ENTITY=<user or team> PROJECT=<name>")
    if options.out is not None or not online:
        out = options.out or OUT
        write_json(out, definition(options.entity or "<entity>", options.project))
        hint = "" if online else "; nothing was sent: with WANDB_API_KEY set the same command builds them"
        print(f"{out}: definition of the dashboards{hint}", file=sys.stderr)
    for url in _save(options.entity, options.project) if online else []:
        print(url)
    return 0


def _save(entity: str, project: str) -> list[str]:
    """Build through wandb-workspaces, whose errors have no common class."""
    try:
        build = importlib.import_module("frugalseg.analysis.dashboard_build")
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'frugalseg[dashboards]'") from error
    check_server()
    try:
        urls: list[str] = build.save(entity, project)
    except Exception as error:
        reason = " ".join(str(error).split())[:_LETTERS]
        raise FrugalsegError(f"W&B refused {entity}/{project}: {reason}; look at the names and the key") from error
    return urls
