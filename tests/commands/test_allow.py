"""Settings name classes of four packages, and of others only with --allow; the proof is a module that leaves a file."""

import pickle
import sys

import pytest
import torch
import yaml

from frugalseg import limits, training
from frugalseg.cli import main
from frugalseg.commands.parsing import check_parsed, guard, one_line
from frugalseg.errors import ConfigError
from frugalseg.miniature.voc import write_voc_world
from tests.conftest import REPOSITORY

CONFIGS = [REPOSITORY / "experiments/_base/trainer.yaml", REPOSITORY / "experiments/miniature/sfc/classify.yaml"]
MODULE = "sly_module"
SLY = f"{MODULE}.Thing"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_voc_world(tmp_path_factory.mktemp("world") / "VOC2012", images_train=4, images_val=2, seed=3)


@pytest.fixture
def sly(tmp_path, monkeypatch):
    """A module on the path whose import leaves a file; gives that file, which must not be there at the end."""
    ran = tmp_path / "ran"
    (tmp_path / f"{MODULE}.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom lightning.pytorch import Callback\nclass Thing(Callback): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield ran
    sys.modules.pop(MODULE, None)


def refused(capsys, words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("frugalseg: error:")]) == 1
    assert not [line for line in lines if "Traceback" in line]
    return lines[-1]


def fit(world, tmp_path, *words):
    configs = [word for config in CONFIGS for word in ("--config", config)]
    return ["fit", *configs, "--data.init_args.root", world, "--run.root", tmp_path / "runs", *words]


WORDS = [
    f"--model={SLY}", f"--model.class_path={SLY}", f"--model={{class_path: {SLY}}}", f'--model={{"class_path": "{SLY}"}}',
    f"--data={SLY}", f"--data.class_path={SLY}", f"--data.init_args.recipe={SLY}", f"--data.init_args.recipe.class_path={SLY}",
    f"--trainer.callbacks={SLY}", f"--trainer.callbacks+={SLY}", f"--trainer.callbacks=[{{class_path: {SLY}}}]",
    f"--trainer.logger={SLY}", f"--trainer.plugins={SLY}", f"--trainer.strategy={{class_path: {SLY}}}",
    f"--model.init_args.lr={{class_path: {SLY}}}", f"--model.help={SLY}", f"--data.help={SLY}", f"--trainer.callbacks.help={SLY}",
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_words(capsys, world, tmp_path, sly, word):
    line = refused(capsys, fit(world, tmp_path, word))
    assert SLY in line and f"--allow {MODULE}" in line
    assert not sly.exists() and MODULE not in sys.modules
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_other_commands(capsys, world, tmp_path, sly, command):
    words = fit(world, tmp_path, f"--trainer.callbacks+={SLY}")
    assert f"--allow {MODULE}" in refused(capsys, [command, *words[1:]])
    assert not sly.exists()


NESTED = {
    "callbacks": {"trainer": {"callbacks": [{"class_path": SLY}]}},
    "recipe": {"data": {"init_args": {"recipe": {"class_path": SLY}}}},
    "deep": {"model": {"init_args": {"changes": {"a": [{"b": {"class_path": SLY, "init_args": {}}}]}}}},
}


@pytest.mark.parametrize("kind", NESTED)
def test_files(capsys, world, tmp_path, sly, kind):
    """A file of --config, and a file that such a file names."""
    path, outer = tmp_path / "inner.yaml", tmp_path / "outer.yaml"
    path.write_text(yaml.safe_dump(NESTED[kind]))
    line = refused(capsys, fit(world, tmp_path, "--config", path))
    assert str(path) in line and "class_path" in line and SLY in line
    outer.write_text("config: inner.yaml\n")
    assert SLY in refused(capsys, fit(world, tmp_path, f"--config={outer}"))
    assert not sly.exists()


def test_a_file_as_value(capsys, world, tmp_path, sly):
    (tmp_path / "data.yaml").write_text(f"class_path: {SLY}\n")
    assert SLY in refused(capsys, fit(world, tmp_path, f"--data={tmp_path / 'data.yaml'}"))
    (tmp_path / "all.yaml").write_text("data: data.yaml\n")
    assert SLY in refused(capsys, fit(world, tmp_path, f"--config={tmp_path / 'all.yaml'}"))
    assert not sly.exists()


def test_verbs(capsys, world, tmp_path, sly):
    """Every verb that builds classes from settings."""
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": SLY}, "crf": {}, "walk": {}}))
    maps = ["--maps", tmp_path, "--out", tmp_path / "out"]
    for verb, more in {
        "show": [],
        "crf": maps,
        "walk": [*maps, "--edges", tmp_path],
        "cache": [],
        "episodes": [],
    }.items():
        line = refused(
            capsys,
            [verb, *more, "--config", path] + (["--out", tmp_path / "o"] if verb in ("show", "episodes") else []),
        )
        assert SLY in line and "--allow" in line, verb
    assert SLY in refused(capsys, ["show", f"--data={SLY}", "--out", tmp_path / "o"])
    assert not sly.exists()


def test_a_backbone_by_its_dotted_path(capsys, world, tmp_path, sly):
    config = REPOSITORY / "experiments/miniature/mevt/probe.yaml"
    words = [
        "fit",
        "--config",
        CONFIGS[0],
        "--config",
        config,
        "--data.init_args.root",
        world,
        "--run.root",
        tmp_path / "runs",
    ]
    for name, part in (
        (f"{MODULE}:Thing", "--allow"),
        ("torch.hub:load", "no class of nets"),
        ("os:system", "--allow"),
    ):
        line = refused(capsys, [*words, f"--model.init_args.backbone.name={name}", "--trainer.devices=1"])
        assert name in line and part in line
    assert not sly.exists()


@pytest.mark.parametrize(
    "path", ["torch.load", "torch.hub.load", "torch.utils.cpp_extension.load", "lightning.pytorch.Trainer"]
)
def test_callables_of_allowed_packages(capsys, world, tmp_path, path):
    """A parameter that takes any callable takes none that settings name: calling it is running what they say."""
    callback = "--trainer.callbacks+=lightning.pytorch.callbacks.LambdaCallback"
    line = refused(capsys, fit(world, tmp_path, callback, f"--trainer.callbacks.init_args.on_fit_start={path}"))
    assert path in line or "on_fit_start" in line
    assert not (tmp_path / "runs").exists()


def test_what_an_allowed_module_has_imported(capsys, world, tmp_path):
    """`frugalseg.cli.os` is `os`."""
    for path in ("frugalseg.cli.os.system", "frugalseg.cli.importlib.import_module"):
        assert "error" in refused(capsys, fit(world, tmp_path, f"--data={path}"))


def test_a_function_that_returns_the_class(world, tmp_path):
    with pytest.raises(ConfigError, match="no class that settings can build"):
        check_parsed({"model": {"class_path": "frugalseg.papers.sfc.SFC.load_from_checkpoint"}})
    with pytest.raises(ConfigError, match=r"callbacks\[0\].*torch.hub.load"):
        check_parsed({"callbacks": [{"init_args": {"on_fit_start": torch.hub.load}}]})
    check_parsed({"model": {"class_path": "frugalseg.papers.sfc.SFC"}, "lr": 0.1, "names": ("a", None)})


def test_allow(capsys, world, tmp_path, sly, monkeypatch):
    """One package more, until the next command; the run is the same run, and says how it was started."""
    seen = []

    def stop(folder, _config, describe):
        seen.append((folder.digest, describe()["command"]))
        return False

    monkeypatch.setattr(training, "claim", stop)
    words = [str(word) for word in fit(world, tmp_path)]
    assert main(words) == 0
    assert main([words[0], "--allow", f"{MODULE},another.package", *words[1:], "--allow=third"]) == 0
    (first, _), (second, command) = seen
    assert first == second
    assert command[-3:] == ["--allow", f"{MODULE},another.package", "--allow=third"]
    assert not sly.exists()
    assert main([*words, f"--trainer.callbacks+={SLY}", "--allow", MODULE]) == 0
    assert sly.exists()
    assert SLY in refused(capsys, [*words, f"--trainer.callbacks+={SLY}"])


def test_allow_narrows_and_widens(monkeypatch):
    """What one command allowed, or a part of it, never decides for the next one."""
    from jsonargparse._common import denying_import_path_entry

    for names, path, denied in (
        (("a.b",), "a.b.C", False), ((), "a.b.C", True), (("a",), "a.b.C", False), (("os",), "os.system", False), ((), "os.system", True),
    ):  # fmt: skip
        before = limits.use(limits.Limits(allowed=names))
        try:
            guard()
            assert (denying_import_path_entry(path) is not None) is denied, (names, path)
        finally:
            limits.use(before)
    guard()


@pytest.mark.parametrize(
    "words", [["--allow"], ["--allow", ""], ["--allow=a-b"], ["--allow=a,,b"], ["--allow=jsonargparse"], ["--allow=a."]]
)
def test_names_that_cannot_be_allowed(capsys, words):
    assert "--allow" in refused(capsys, ["show", *words])


def test_short_names_and_the_usual_experiments_pass(world, tmp_path, monkeypatch):
    """Callbacks, strategies and loggers of Lightning, and nested classes of ours."""
    monkeypatch.setattr(training, "claim", lambda *_: False)
    more = [
        "--trainer.strategy={class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {find_unused_parameters: true}}",
        "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x", "--data=VOC", "--data.recipe=Tags",
        "--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=x", "--trainer.profiler=simple",
        "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: a.b}}",
    ]  # fmt: skip
    assert main([str(word) for word in fit(world, tmp_path, *more)]) == 0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, "stands for more than"),
        ("a: " + "[" * 100 + "]" * 100, "levels deep"),
        ("a: &a [*a]\n", "inside what it stands for"),
        ("trainer: !!python/object/apply:os.system [ls]\n", "asks for an object"),
        ("trainer: !!python/name:os.system\n", "asks for an object"),
        ("a: 0x" + "f" * 9000, "characters without quotes"),
        ("a: 2026-13-45\n", "cannot be read"),
        ("trainer: {max_steps: 1\n", "not readable"),
        ("a: \0\n", "not readable"),
    ],
)
def test_yaml_of_ill_will(capsys, world, tmp_path, text, part):
    """Bombs and tags, in a file for a Trainer's command and for a verb, and as a word."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    line = refused(capsys, fit(world, tmp_path, "--config", path))
    assert part in line and str(path) in line
    assert part in refused(capsys, ["show", "--config", path, "--out", tmp_path / "o"])
    if "\0" not in text:
        refused(capsys, fit(world, tmp_path, f"--data={text}"))


def test_a_large_yaml(capsys, world, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# " + "x" * (3 << 20))
    assert "bytes" in refused(capsys, fit(world, tmp_path, "--config", path))


def test_settings_that_are_not_utf8(capsys, world, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes("trainer: {max_steps: 1}\n".encode("utf-16"))
    refused(capsys, fit(world, tmp_path, "--config", path))
    refused(capsys, fit(world, tmp_path, f"--data={path}"))
    path.write_bytes(b"\xff\xfe\xfd")
    refused(capsys, ["show", f"--data={path}", "--out", tmp_path / "o"])


def test_names_in_checkpoints_are_never_imported(capsys, world, tmp_path, sly):
    path = tmp_path / "x.ckpt"
    torch.save({"hyper_parameters": {"_class_path": SLY, "_instantiator": SLY}, "state_dict": {}}, path)
    words = fit(world, tmp_path, "--ckpt_path", path)
    assert SLY in refused(capsys, ["predict", *words[1:]])
    assert "error" in refused(capsys, ["package", path, "--out", tmp_path / "o"])
    path.write_bytes(pickle.dumps({"hyper_parameters": {"_class_path": SLY}}))
    assert "readable" in refused(capsys, ["predict", *words[1:]])
    assert not sly.exists()


def test_follow_leaves_words_to_its_command(tmp_path):
    """`--allow` behind `--` is another command's."""
    words = [
        "follow",
        "--stages",
        tmp_path / "x",
        "--log",
        tmp_path / "log",
        "--",
        sys.executable,
        "-c",
        "import sys; print(sys.argv)",
    ]
    assert main([str(word) for word in [*words, "--allow", "x", "--max-pixels", "5"]]) == 0
    assert "'--allow', 'x', '--max-pixels', '5'" in (tmp_path / "log").read_text()


def test_the_help_names_both(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "--allow NAME" in shown and f"{limits.MAX_PIXELS}" in shown


def test_messages_keep_to_the_key():
    told = "Parser key \"data\": x\n  Importing 'evil.X' is not allowed, denied by the '*' entry of the list."
    assert one_line(told).startswith("data: evil.X is not of frugalseg, torch, lightning, albumentations")
