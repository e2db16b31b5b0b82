"""Make's plan, without running it."""

import os
import shutil
import subprocess
from collections import Counter

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-C", str(REPOSITORY), *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_prints_help():
    listed = make()
    for target in ("help", "setup", "demo", "test", "test-slow", "check", "benchmark", "clean", "sfc-voc", "mini-sfc"):
        assert f"\n  {target} " in f"\n{listed}", target


VERBS = ("fit", "predict", "crf", "walk", "evaluate", "report")


def commands(plan):
    """(verb, whole line) of every command of the suite, joined lines taken apart."""
    lines = plan.replace("\\\n", " ").splitlines()
    parts = [part for line in lines if "frugalseg " in line for part in line.split("frugalseg ", 1)[1].split(" + ")]
    return [(part.split()[0], part) for part in parts if part.split()[0] in VERBS]


def test_the_plan_of_the_chain_runs_every_stage_of_every_seed_in_order():
    plan = make("-n", "sfc-voc", "ROOT=/nowhere", "SEEDS=3 4", "RUN=planned", "ARGS=--trainer.max_steps 7")
    found = commands(plan)
    assert found[-1] == ("report", "report runs/sfc-voc-planned")
    for seed in (3, 4):
        folder = f"runs/sfc-voc-planned/seed{seed}"
        mine = [(verb, line) for verb, line in found if folder in line or f"--seed_everything {seed} " in line]
        assert Counter(verb for verb, _ in mine) == {"fit": 3, "predict": 6, "crf": 2, "walk": 2, "evaluate": 6}
        assert all("/nowhere" in line for _, line in mine)
        assert all(("--trainer.max_steps 7" in line) == (verb in ("fit", "predict")) for verb, line in mine)
        text = "\n".join(line for _, line in mine)
        order = [
            "--run.stage classify",
            "cam-trainaug/maps",
            "--run.stage irn",
            "edges-trainaug/edges",
            "--run.stage segment",
        ]
        assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
        assert f"--data.init_args.pseudo_labels {folder}/seeds-trainaug/seed_labels" in text
        assert f"--data.init_args.pseudo_labels {folder}/labels-trainaug/pseudo" in text
        # maps of trainaug serve the score on train, which is a part of it
        assert any(
            "--split train " in line and "cam-trainaug/maps" in line for verb, line in mine if verb == "evaluate"
        )


def test_coco_learns_from_seed_labels_without_an_affinity_network():
    found = commands(make("-n", "sfc-coco", "ROOT=/nowhere", "SPLITS=val"))
    assert Counter(verb for verb, _ in found) == {"fit": 2, "predict": 3, "crf": 2, "evaluate": 3, "report": 1}
    assert any(
        "--data.init_args.pseudo_labels runs/sfc-coco/seed0/seeds-train/seed_labels" in line for _, line in found
    )


def test_another_segmenter_has_folders_of_its_own():
    found = commands(
        make("-n", "sfc-voc", "ROOT=/nowhere", "SEGMENT=segment-r38", "ARGS_segment=--trainer.max_steps 9")
    )
    lines = [line for verb, line in found if "--trainer.max_steps 9" in line]
    assert [("--run.stage segment-r38 " in line, "--run.stage predict-r38-" in line) for line in lines] == [
        (True, False), (False, True), (False, True)
    ]  # fmt: skip
    assert sum("score-segment-r38-val" in line for _, line in found) == 1


def test_seeds_worlds_and_methods_of_the_miniature():
    plan = make("-n", "mini-sfc", "SEEDS=8 9", "MINI_WORLDS=longtail")
    fits = [line for verb, line in commands(plan) if verb == "fit" and "/sfc/classify" in line]
    assert len(fits) == 4
    assert sum("baseline.yaml" in line for line in fits) == 2
    assert plan.count(" --root runs/worlds/voc-longtail-seed8 ") == 3  # the world itself and two scores


def test_the_miniature_goes_through_the_whole_chain():
    found = commands(make("-n", "mini-sfc", "SEEDS=8", "MINI_WORLDS=longtail", "MINI_METHODS=sfc"))
    # pre-training is common to all seeds and may have been done
    chain = Counter(verb for verb, line in found if "pretrain.yaml" not in line)
    # beside the chain: the classifier, its 240 maps and their score
    assert chain == {"fit": 3, "predict": 7, "crf": 2, "walk": 2, "evaluate": 7, "report": 1}
    assert [line.split("--stage ")[1].split()[0] for verb, line in found if verb == "evaluate" and "--stage" in line] == [
        "score-train", "score-val", "score-labels-train", "score-labels-val", "score-segment-train", "score-segment-val"
    ]  # fmt: skip


def test_psa_follows_the_miniature_chain():
    """A fit, affinities, walk and score of both splits, from the chain's own maps and seed labels."""
    found = [line for _, line in commands(make("-n", "mini-psa", "SEEDS=8")) if "psa" in line or "affinity" in line]
    folder = "runs/mini-sfc-longtail-sfc/seed8"
    assert f"--data.init_args.pseudo_labels {folder}/seeds-train/seed_labels" in next(
        line for line in found if "psa.yaml" in line
    )
    walks = [line for line in found if "labels-psa.yaml" in line]
    assert [line.split("--maps ")[1].split()[0] for line in walks] == [
        f"{folder}/cam-{split}/maps" for split in ("train", "val")
    ]
    assert [line.split("--edges ")[1].split()[0] for line in walks] == [
        f"{folder}/affinity-{split}/affinities" for split in ("train", "val")
    ]  # fmt: skip
    assert all(f"--masks refined={folder}/labels-psa-{split}/refined" in "".join(found) for split in ("train", "val"))


def test_a_segmenter_that_is_not_there_is_refused_before_anything_runs():
    refused = subprocess.run(
        ["make", "-n", "sfc-coco", "SEGMENT=segment-r38"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "experiments/sfc/coco/segment-r38.yaml" in refused.stderr
    assert "frugalseg" not in refused.stdout
