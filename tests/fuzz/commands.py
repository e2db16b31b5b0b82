"""Settings and run folders, through the command line itself: code 0, or code 2 and one line."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from frugalseg import cli, training
from frugalseg.commands.data_settings import build_data
from frugalseg.miniature.voc import write_voc_world
from tests.analysis import few_shot_runs
from tests.analysis.html.runs import write_experiment
from tests.conftest import REPOSITORY
from tests.fuzz.kind import Kind, Refused
from tests.fuzz.mutate import TEXTS, damaged, damaged_text, damaged_value

FORBIDDEN = "a_module_that_nobody_allows"
"""On the path while settings are tried; its import leaves a file."""
LEADS = re.compile(r"(href|src)\s*=\s*[\"']?\s*(javascript|data:text)", re.I)
"""Addresses that run a script."""
ODD_WORDS = (
    f"--model={FORBIDDEN}.Thing", f"--data={FORBIDDEN}.Thing", f"--trainer.callbacks+={FORBIDDEN}.Thing", "--trainer.callbacks=[]",
    f"--data.init_args.recipe={FORBIDDEN}.Thing", "--model=torch.load", "--data=os.system", "--trainer.callbacks+=torch.hub.load",
    f"--trainer.logger={{class_path: {FORBIDDEN}.Thing}}", "--trainer=3", "--model", "--data={}", "--data=[]", "--config=/dev/null",
    "--trainer.max_steps=nan", "--trainer.devices=-2", "--trainer.precision=3", "--seed_everything=x", "--run.root=", "--run=3",
    "--trainer.callbacks+=lightning.pytorch.callbacks.LambdaCallback", "--data.init_args.batch_size=0", "--data.init_args.limit=-1",
    "--data.init_args=3", "--model.init_args=", "--allow", "--allow=x-y", "--max-pixels=0", "--max-pixels=1e9", "--print_config=x", "+",
    "--trainer.strategy={class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {x: 1}}", "--data.init_args.root=/nowhere",
)  # fmt: skip


@contextlib.contextmanager
def _silent() -> Iterator[io.StringIO]:
    """Nothing is printed; gives what went to the error stream."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        yield errors


def command(words: list[str]) -> None:
    """Run a command; code 2 must come with exactly one line that says why."""
    with _silent() as errors:
        code = cli.main(words)
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("frugalseg: error: ")]
    assert code in (0, 2), f"code {code}"
    assert len(lines) == (code == 2), f"{len(lines)} lines with code {code}: {errors.getvalue()[-300:]}"
    assert "Traceback" not in errors.getvalue()
    if code == 2:
        raise Refused(lines[0])


def settings(folder: Path) -> dict[str, Any]:
    import sys

    world = write_voc_world(folder / "VOC2012", images_train=4, images_val=2, seed=0)
    (folder / f"{FORBIDDEN}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Thing: pass\n")
    sys.path.insert(0, str(folder))
    # everything is parsed, checked and named; then the command is told that its work has been done
    training.claim = lambda *_a, **_k: False
    texts = [
        path.read_text()
        for path in sorted((REPOSITORY / "experiments").rglob("*.yaml"))
        if "claims.yaml" not in path.name
    ]
    texts = [text for text in texts if "data:" in text and "frugalseg.data.VOC" in text]
    labels = [text for text in texts if "\ncrf:" in text or "\nwalk:" in text]
    return {"world": world, "texts": texts, "labels": labels, "ran": folder / "ran"}


def _damaged_settings(text: str, rng: Random) -> bytes:
    if rng.random() < 0.5:
        return damaged_text(text, rng)
    value = damaged_value(yaml.safe_load(text), rng)
    if rng.random() < 0.2:
        value = {
            **(value if isinstance(value, dict) else {}),
            rng.choice(("data", "model", "trainer")): {
                "class_path": rng.choice((f"{FORBIDDEN}.Thing", "os.system", "torch.load", *TEXTS))
            },
        }
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def try_settings(seed: dict[str, Any], place: Path, rng: Random) -> None:
    path = place / "x.yaml"
    text = rng.choice(seed["texts"])
    path.write_bytes(_damaged_settings(text, rng))
    if rng.random() < 0.1:
        path.write_text(text)
    words = [f"--config={path}", f"--data.init_args.root={seed['world']}"]
    words += rng.sample(ODD_WORDS, rng.choice((0, 0, 1, 2)))
    kind = rng.random()
    if kind < 0.6:
        with _silent():
            build_data([str(path)], [word for word in words if word.startswith("--data")])
    else:
        base = ["--config", str(REPOSITORY / "experiments/_base/trainer.yaml")]
        command([rng.choice(("fit", "fit", "validate", "predict")), *base, *words, "--run.root", str(place / "runs")])
    assert not seed["ran"].exists(), "a module was imported"


def folders(folder: Path) -> Path:
    write_experiment(folder / "runs", "mini-sfc", seeds=(0,))
    few_shot_runs.write_test(folder / "runs", "mini-dsmf", fold=0)
    return folder / "runs"


def try_runs(seed: Path, place: Path, rng: Random) -> None:
    name = rng.choice(("mini-sfc", "mini-sfc", "mini-dsmf"))
    shutil.copytree(seed / name, place / "runs" / name)
    files = sorted(
        path for path in (place / "runs").rglob("*") if path.suffix in (".json", ".csv", ".yaml", ".npz", ".png")
    )
    for path in rng.sample(files, rng.choice((1, 1, 2))):
        data = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.7:
            data = json.dumps(damaged_value(json.loads(data), rng)).encode("utf-8", "surrogatepass")
        elif path.suffix in (".json", ".csv", ".yaml"):
            data = damaged_text(data.decode(), rng)
        else:
            data = damaged(data, rng)
        path.write_bytes(data)
    folder = place / "runs" / name
    if rng.random() < 0.5:
        command(["report", str(folder), "--classes"])
        return
    command(["report", "--html", str(place / "out"), "--runs", str(place / "runs")])
    for page in (place / "out").rglob("*.html"):
        text = page.read_text()
        assert "<script>alert" not in text and not LEADS.search(text), f"{page.name} is not escaped"


KINDS = (
    Kind("settings", "YAML and words of the command line", 900, settings, try_settings),
    Kind("runs", "run folders: records, metrics, curves, pictures", 600, folders, try_runs),
)
