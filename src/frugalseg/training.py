"""The Trainer's side of the command line: LightningCLI with run folders, checkpoints and loggers."""

import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.core import LightningDataModule, LightningModule

import frugalseg.commands.benchmarks  # noqa: F401 - makes the data modules known by their short names
from frugalseg.callbacks import LineProgress, RandomState
from frugalseg.callbacks.checkpoints import PREVIOUS, LastCheckpoint, Scores, is_dry
from frugalseg.callbacks.loggers import csv_logger, hush, wandb_logger
from frugalseg.callbacks.provenance import Provenance, describe
from frugalseg.callbacks.ranks import Ranks
from frugalseg.callbacks.wandb_runs import close_run, sweep_name
from frugalseg.callbacks.wandb_stages import finish_trained
from frugalseg.commands.checkpoints import check_checkpoint, find_start
from frugalseg.commands.parsing import check_parsed, check_words, one_line
from frugalseg.commands.ranks import claim
from frugalseg.commands.trainer_settings import check_precision
from frugalseg.data.episode_files import files_of
from frugalseg.errors import CheckpointError, ConfigError, DatasetNotFoundError
from frugalseg.run import Run, RunFolder, config_identity, data_digests, file_digest, folder_digest, write_arrays

COMMAND: list[str] = []
"""The words of the running command, for provenance."""


class UpToDate(Exception):  # noqa: N818 - not an error: it ends a command that has nothing to do
    """The stage has finished before with the same configuration and inputs."""


class SaveConfig(SaveConfigCallback):
    """Write the resolved configuration to the run folder, whatever the logger's folder is."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml` on rank 0."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)


class SuiteCLI(LightningCLI):
    """LightningCLI whose runs live in the folders of design.md section 4."""

    run_folder: RunFolder
    newest_row: int | None = -1
    """Last step whose rows in `metrics.csv` stay: others are written again. None for all."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Let errors of parsing reach us, to be told in one line."""
        kwargs.setdefault("exit_on_error", False)
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `run.*` and let the model take its number of classes from the data."""
        parser.add_class_arguments(Run, "run")
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        # for tasks that must keep away from the classes which a few-shot fold tests; others have no such argument
        parser.link_arguments("data.fold_classes", "model.init_args.novel", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # nothing in a checkpoint is executed
        parser.set_defaults({"weights_only": True})
        return parser

    def _parse_ckpt_path(self) -> None:
        """Check a checkpoint instead of taking settings from it: stages always pass their configuration."""
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if path is None and self.config.subcommand != "fit" and not _training_free(config["model"]["class_path"]):
            raise ConfigError(f"frugalseg {self.config.subcommand} needs a trained net; give --ckpt_path FILE")
        if path is not None:
            check_checkpoint(Path(path), str(config["model"]["class_path"]))

    def before_instantiate_classes(self) -> None:
        """Find and claim the run folder; continue from `last.ckpt` where a fit was interrupted."""
        config = self.config[self.subcommand]
        check_parsed(config)
        settings = config["run"]
        run = Run(**settings.as_dict() if isinstance(settings, Namespace) else settings)
        run.name = sweep_name(run.name)
        check_precision(config["trainer"])
        _check_fold(run, config["data"].get("init_args") or {})
        suffix = f"-{self.subcommand}" if self.subcommand in {"validate", "test"} else ""
        # a dry run must not move finished work aside
        suffix += "-dry" if config["trainer"].get("fast_dev_run") else ""
        folder = run.folder(int(config["seed_everything"]), suffix)
        self._dump_config()
        identity = config_identity(self.config_dump, self.subcommand == "fit")
        identity["inputs"] = _input_digests(config)
        self.run_settings = run
        self.run_folder = RunFolder(folder, run.experiment, run.stage + suffix, identity)
        config["trainer"]["default_root_dir"] = str(folder)
        if not claim(self.run_folder, config["trainer"], lambda: describe(int(config["seed_everything"]), COMMAND)):
            raise UpToDate(f"{folder}: up to date")
        if self.subcommand == "fit":
            # one in this folder is further on than one that is given, whose digest is part of the identity
            class_path = str(config["model"]["class_path"])
            start = find_start(self.run_folder.last_checkpoint, class_path, clear=_is_rank_zero())
            self.newest_row = start.newest
            if start.path is not None:
                config["ckpt_path"] = str(start.path)

    def instantiate_classes(self) -> None:
        """Build everything; a value that a class refuses is a setting to mend."""
        try:
            super().instantiate_classes()
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise ConfigError(one_line(str(error))) from error

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise ConfigError(one_line(str(error))) from error
        except CheckpointError as error:
            path = str(self.config[subcommand].get("ckpt_path") or "")
            raise CheckpointError(str(error) if str(error).startswith(path) else f"{path}: {error}") from error
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            path = self.config[subcommand].get("ckpt_path")
            raise CheckpointError(
                f"{path}: was trained with other settings of the net ({one_line(str(error))})"
            ) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has: checkpoints, loggers, provenance, progress."""
        run, folder = self.run_settings, self.run_folder.path
        settings = self._get(self.config_init, "trainer", default={})
        given = settings.get("logger")
        own = given in (None, True, False)
        kwargs["logger"] = [
            csv_logger(folder, self.newest_row),
            *([] if own else given if isinstance(given, list) else [given]),
        ]
        wanted = given in (None, True) and run.wandb and not settings.get("fast_dev_run")
        if wanted and _is_rank_zero() and (tracker := wandb_logger(folder)) is not None:
            kwargs["logger"].append(tracker)
        kwargs["callbacks"] = [*(settings.get("callbacks") or []), *self._own_callbacks(settings)]
        return super().instantiate_trainer(**kwargs)

    def _own_callbacks(self, settings: Any) -> list[Callback]:
        self.scores = Scores()
        callbacks: list[Callback] = [Ranks(), Provenance(self.config_dump), RandomState(), self.scores]
        run, checkpoints = self.run_settings, self.run_folder.path / "checkpoints"
        if self.subcommand == "fit" and settings.get("enable_checkpointing") is not False:
            monitor = getattr(self.model, "monitor", None)
            if monitor is not None:
                callbacks.append(
                    ModelCheckpoint(
                        checkpoints, filename="best", monitor=monitor, mode=getattr(self.model, "mode", "max"),
                        save_on_train_epoch_end=False, enable_version_counter=False,
                    )
                )  # fmt: skip
            callbacks.append(
                LastCheckpoint(
                    checkpoints, filename="last", every_n_train_steps=run.save_every, enable_version_counter=False
                )
            )
        if settings.get("enable_progress_bar") is not False:
            label = f"[{self.run_folder.path}]"
            callbacks.append(
                RichProgressBar()
                if sys.stderr.isatty() and not os.environ.get("FRUGALSEG_LINES")
                else LineProgress(label)
            )
        return callbacks

    def after_fit(self) -> None:
        """Keep the final weights and say that the stage is done."""
        trainer = self.trainer
        if trainer.interrupted or is_dry(trainer):
            return
        if trainer.checkpoint_callbacks:
            trainer.save_checkpoint(self.run_folder.last_checkpoint, weights_only=False)
            if trainer.is_global_zero:
                self.run_folder.last_checkpoint.with_name(PREVIOUS).unlink(missing_ok=True)
        self._finish()

    def after_validate(self) -> None:
        """Keep the exact counts and say that the stage is done."""
        self._write_counts()
        self._finish()

    def after_test(self) -> None:
        """Keep the exact counts and say that the stage is done."""
        self._write_counts()
        self._finish()

    def _write_counts(self) -> None:
        """Write the whole numbers that the scores were divided from; tasks count classes or episodes."""
        for method, file in (("confusion_counts", "confusion.npz"), ("episode_counts", "counts.npz")):
            counts = getattr(self.model, method, None)
            if counts is not None and self.trainer.is_global_zero and not is_dry(self.trainer):
                write_arrays(self.run_folder.path / file, counts())

    def validate(self, model: LightningModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        """Validate without Lightning's table, as `test`."""
        self.trainer.validate(model, datamodule=datamodule, **{**kwargs, "verbose": False})

    def test(self, model: LightningModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        """Test without Lightning's table: `metrics.json` holds the scores, `frugalseg report` shows them."""
        self.trainer.test(model, datamodule=datamodule, **{**kwargs, "verbose": False})

    def predict(self, model: LightningModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        """Predict without collecting the predictions in memory: callbacks write them."""
        kwargs["return_predictions"] = False
        self.trainer.predict(model, datamodule=datamodule, **kwargs)

    def after_predict(self) -> None:
        """Say that the stage is done."""
        self._finish()

    def _finish(self) -> None:
        if is_dry(self.trainer):
            return
        self.trainer.strategy.barrier()
        metrics = self.scores.all()
        if self.trainer.is_global_zero:
            self.run_folder.finish(metrics)
        self.trainer.strategy.barrier()  # the next stage asks for `done.json` on every rank
        if self.trainer.is_global_zero:
            names = getattr(self.datamodule, "class_names", None)
            finish_trained(self.trainer.loggers, self.run_folder.path, self.config_dump, names)


@rank_zero_only
def _yes() -> bool:
    return True


def _is_rank_zero() -> bool:
    return _yes() is True


def _check_fold(run: Run, data: Any) -> None:
    """Refuse a run folder that is called after another fold than that of the data."""
    fold = data.get("fold")
    if run.fold is not None and fold is not None and run.fold != fold:
        raise ConfigError(f"run.fold is {run.fold}, but data.init_args.fold is {fold}; set both to the same fold")


def _training_free(class_path: str) -> bool:
    """Whether a task has nothing to learn, and so no checkpoint."""
    return bool(getattr(pkgutil.resolve_name(class_path), "training_free", False))


def _input_digests(config: Namespace) -> dict[str, str]:
    """Digests of the files that a stage starts from: checkpoint, weights, and the lists of the data."""
    init = config["model"].get("init_args") or {}
    data = config["data"].get("init_args") or {}
    root = Path(str(data.get("root") or "."))
    if not root.is_dir():
        # before the run folder is claimed: a mistyped root must not move finished work aside
        raise DatasetNotFoundError(f"{root}: does not exist; set data.root to the folder of the data")
    given = {"ckpt_path": config.get("ckpt_path"), "tags": data.get("tags"), "index": data.get("index")}
    given |= {name: init.get(name) for name in ("weights", "stem_weights")}
    backbone = init.get("backbone")
    # of tasks that judge or adapt a net; others name their backbone by a word
    given["backbone.weights"] = backbone.get("weights") if isinstance(backbone, Namespace | dict) else None
    files = {name: Path(str(path)).expanduser() for name, path in given.items() if path}
    recipe = (data.get("recipe") or {}).get("init_args") or {}
    episodes = files_of(recipe.get("episodes_file"), recipe.get("test_seed") or 0)
    files |= {f"episodes of base seed {seed}": path for seed, path in episodes.items()}
    splits = [value for key, value in data.items() if key.endswith("_split")]
    splits += ["all"] if "shots" in recipe else []  # what DLRSD's episodes are of
    pseudo = Path(str(data.get("pseudo_labels") or ""))
    # of data without lists: what is in their folders
    inputs = getattr(pkgutil.resolve_name(config["data"]["class_path"]), "input_digest", None)
    return {
        **({"images": inputs(data)} if inputs else {}),
        **({"pseudo_labels": folder_digest(pseudo, "*.png")} if data.get("pseudo_labels") else {}),
        **{
            name: file_digest(Path(p).expanduser())
            for name, p in files.items()
            if p and Path(str(p)).expanduser().is_file()
        },
        **data_digests(Path(str(data.get("root", ""))), splits),
    }


def run_trainer(words: Sequence[str]) -> int:
    """Run fit, validate, test or predict.

    Returns:
        The exit code.
    """
    COMMAND[:] = ["frugalseg", *words]
    check_words(words)
    hush()
    try:
        SuiteCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False, "overwrite": True},
            # DDP starts further processes from sys.argv, which must therefore stay as it is
            args=None if sys.argv[1:] == list(words) else list(words),
        )
    except (ArgumentError, UnicodeDecodeError) as error:
        raise ConfigError(one_line(str(error)) + f"; see `frugalseg {words[0]} --help`") from error
    except UpToDate as reason:
        print(reason, file=sys.stderr)
    finally:
        close_run(code=1)  # a stage that finished has ended its run itself
    return 0
