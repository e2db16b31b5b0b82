"""Make's plan, without running it."""

import os
import shutil
import subprocess
from collections import Counter
from itertools import pairwise

import pytest
import yaml

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
    targets = ("help", "setup", "demo", "test", "test-slow", "check", "benchmark", "clean", "sfc-voc", "mini-sfc")
    for target in (*targets, "cti-voc", "cti-coco", "cti-ablation"):
        assert f"\n  {target} " in f"\n{listed}", target


VERBS = ("fit", "validate", "predict", "crf", "walk", "evaluate", "report", "cache", "pictures", "package")


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


def test_pictures_of_cti_come_from_its_classifier():
    found = commands(make("-n", "cti-pictures", "ROOT=/nowhere", "OF=cti-coco", "PICTURES=3", "RUN=planned"))
    assert [verb for verb, _ in found] == ["fit", "predict", "evaluate"]
    predict, evaluate = found[1][1], found[2][1]
    assert "save_parts true" in predict and "coco/classify.yaml" in predict
    assert "--maps runs/cti-coco-planned/seed0/cam-parts/maps" in evaluate and "--pictures 3" in evaluate


def test_rows_of_the_miniature_cti_fork_from_the_first_phase_of_their_seed():
    found = commands(make("-n", "mini-cti", "SEEDS=8 9", "CTI_ROWS=baseline full"))
    fits = [line for verb, line in found if verb == "fit" and "/cti/classify.yaml" in line]
    warm = [line for line in fits if "warm.yaml" in line]
    assert len(warm) == 2 and len(fits) == 6
    for seed in (8, 9):
        start = f"--model.init_args.weights runs/mini-cti-warm/seed{seed}/classify/checkpoints/last.ckpt"
        forks = [line for line in fits if start in line]
        assert len(forks) == 2 and sum("baseline.yaml" in line for line in forks) == 1
        assert all(f"runs/worlds/voc-balanced-seed{seed} " in line for line in forks)
    assert found[-1] == ("report", "report runs/mini-cti-baseline runs/mini-cti-full")


def test_the_seeds_of_the_miniature_cti_become_masks():
    found = commands(make("-n", "mini-cti-chain", "SEEDS=8"))
    chain = [(verb, line) for verb, line in found if "mini-cti" in line and "warm" not in line]
    stages = [line.split("--stage ")[1].split()[0] for verb, line in chain if verb == "evaluate" and "--stage" in line]
    seeds_and_labels = [f"{name}-{s}" for name in ("score", "score-labels") for s in ("train", "val")]
    # the demo stops behind the masks of val, which therefore come first
    assert stages == [*seeds_and_labels, "score-segment-val", "score-segment-train"]
    assert (
        sum("--data.init_args.pseudo_labels runs/mini-cti-full/seed8/labels-train/refined" in line for _, line in chain)
        == 1
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("sfc-coco SEGMENT=segment-r38", "experiments/sfc/coco/segment-r38.yaml"),
        ("cti-voc AFFINITY=amn", "AFFINITY=amn"),
        ("cti-voc AFFINITY=", "write irn or psa"),
        ("cti-coco AFFINITY=psa", "experiments/cti/coco/seeds-psa.yaml"),
        ("sfc-voc AFFINITY=psa", "experiments/sfc/voc/seeds-psa.yaml"),
        ("cti-ablation ROWS=infusion-3", "experiments/cti/voc/ablation/infusion-3.yaml"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line_before_anything_runs(words, named):
    refused = subprocess.run(
        ["make", "-n", *words.split()], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "frugalseg" not in refused.stdout


def outputs(found, folder):
    """Stage folders that a plan writes."""
    trained = [line.split("--run.stage ")[1].split()[0] for verb, line in found if verb in ("fit", "predict")]
    written = [line.split("--out ")[1].split()[0].removeprefix(f"{folder}/") for _, line in found if "--out " in line]
    return [*trained, *written]


LABELLING = {
    "irn": ("seeds-{}/seed_labels", "irn", "edges-{}/edges", "labels-{}"),
    "psa": ("seeds-psa-{}/psa", "psa", "affinity-{}/affinities", "labels-psa-{}"),
}


@pytest.mark.parametrize("net", LABELLING)
def test_either_affinity_network_of_cti_has_stages_of_its_own(net):
    found = commands(make("-n", "cti-voc", "ROOT=/nowhere", "RUN=planned", f"AFFINITY={net}", f"ARGS_{net}=--mine 7"))
    folder, end = "runs/cti-voc-planned/seed0", "-psa" if net == "psa" else ""
    assert Counter(verb for verb, _ in found) == {
        "fit": 3,
        "predict": 6,
        "crf": 2,
        "walk": 2,
        "evaluate": 6,
        "report": 1,
    }
    seeds, fit, edges, labels = LABELLING[net]
    splits = ("trainaug", "val")
    expected = {"classify", fit, f"segment{end}"}
    expected |= {form.format(split).split("/")[0] for form in ("cam-{}", seeds, edges, labels) for split in splits}
    expected |= {
        f"{stage}-{s}" for stage in ("score", f"score-labels{end}", f"score-segment{end}") for s in ("train", "val")
    }
    expected |= {f"predict{end}-{split}" for split in ("train", "val")}
    assert sorted(outputs(found, folder)) == sorted(expected)
    learned = [line.split("pseudo_labels ")[1] for verb, line in found if verb == "fit" and "pseudo_labels" in line]
    assert learned == [f"{folder}/{seeds}".format("trainaug"), f"{folder}/{labels}/refined".format("trainaug")]
    for split, line in zip(splits, sorted(line for verb, line in found if verb == "walk"), strict=True):
        assert f"--maps {folder}/cam-{split}/maps" in line and f"--edges {folder}/{edges}".format(split) in line
    assert sum("--mine 7" in line for _, line in found) == 3  # the fit and its two predictions
    assert sum("--sweep cam " in line for _, line in found) == 2
    scored = next(line for verb, line in found if verb == "evaluate" and f"/score-labels{end}-train" in line)
    assert f"--masks refined={folder}/{labels}/refined".format("trainaug") in scored


def test_both_affinity_networks_share_classifier_and_maps_alone():
    folder = "runs/cti-voc-planned/seed0"
    plans = [commands(make("-n", "cti-voc", "RUN=planned", f"AFFINITY={net}")) for net in LABELLING]
    common = set(outputs(plans[0], folder)) & set(outputs(plans[1], folder))
    assert common == {"classify", "cam-trainaug", "cam-val", "score-train", "score-val"}


def test_cti_on_coco_has_irn():
    found = commands(make("-n", "cti-coco", "RUN=planned", "SPLITS=val"))
    assert Counter(verb for verb, _ in found) == {
        "fit": 3, "predict": 5, "crf": 2, "walk": 2, "evaluate": 3, "report": 1
    }  # fmt: skip
    assert any("--data.init_args.pseudo_labels runs/cti-coco-planned/seed0/labels-train/refined" in t for _, t in found)


def test_the_ablation_trains_and_scores_each_row_and_ends_in_one_table():
    rows = "full infusion-10"
    found = commands(
        make("-n", "cti-ablation", "RUN=planned", f"ROWS={rows}", "SEEDS=1 2", "ROOT=/nowhere", "ARGS=--a 1")
    )
    assert Counter(verb for verb, _ in found) == {"fit": 4, "predict": 4, "evaluate": 4, "report": 1}
    assert found[-1] == ("report", "report runs/cti-ablation-full-planned runs/cti-ablation-infusion-10-planned")
    for row in rows.split():
        for seed in (1, 2):
            folder = f"runs/cti-ablation-{row}-planned/seed{seed}"
            fit, predict, evaluate = [
                line for _, line in found if folder in line or (f"--run.name {row}-planned " in line and f"everything {seed} " in line)
            ]  # fmt: skip
            assert all(f"--config experiments/cti/voc/ablation/{row}.yaml" in line for line in (fit, predict))
            assert all("--a 1" in line and "/nowhere" in line for line in (fit, predict))
            assert f"{folder}/classify/checkpoints/best.ckpt" in predict
            assert "predict_split train " in predict  # 1,464 images, not trainaug
            assert f"--maps {folder}/cam-train/maps --sweep cam " in evaluate


def test_cti_plans_use_every_file_of_its_experiments():
    words = ["cti-voc"], ["cti-voc", "AFFINITY=psa"], ["cti-coco"], ["cti-ablation"]
    plans = " ".join(make("-n", *each, "RUN=planned") for each in words).split()
    used = {name for word, name in pairwise(plans) if word == "--config" and "/cti/" in name}
    here = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "experiments/cti").rglob("*.yaml")}
    assert used == here


def test_rows_of_the_ablation_say_what_they_are():
    """The name of a run's folder, and the switches: what is added to the row before, or the infused block."""
    rows = {
        path.stem: yaml.safe_load(path.read_text()) for path in (REPOSITORY / "experiments/cti/voc/ablation").iterdir()
    }
    assert all(row["run"] == {"experiment": "cti-ablation", "name": name} for name, row in rows.items())
    settings = {name: row.get("model", {}).get("init_args", {}) for name, row in rows.items()}
    infused = {name: found for name, found in settings.items() if name.startswith("infusion-")}
    assert infused == {f"infusion-{n}": {"infusion": n} for n in range(2, 11) if n != 3}  # 3 is `full`
    off = [set(settings[name]) for name in ("baseline", "bg", "intra", "full")]
    assert off[1] == {"intra_weight", "cross_weight"} and off[0] - off[1] == {"background_token", "background_weight"}
    assert off[2] == {"cross_weight"} and off[3] == set()
    assert not any(value for name in ("baseline", "bg", "intra") for value in settings[name].values())
