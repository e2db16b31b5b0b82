"""Make's plan for a user's own photos."""

import os
import shutil
import subprocess
from collections import Counter
from itertools import pairwise

import pytest

from tests.conftest import REPOSITORY
from tests.test_makefile import commands

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
FILES = ["-f", "Makefile"]
if "experiments/folder.mk" not in (REPOSITORY / "Makefile").read_text():
    FILES += ["-f", "experiments/folder.mk"]


def make(*words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    line = ["make", "-C", str(REPOSITORY), *FILES, *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)


def planned(*words):
    done = make("-n", *words)
    assert done.returncode == 0, done.stderr
    return commands(done.stdout)


@pytest.fixture(autouse=True)
def no_leftovers():
    """`make -n` writes what Make cannot see as files."""
    yield
    for folder in (REPOSITORY / "runs").glob("folder-*-planned"):
        shutil.rmtree(folder)


@pytest.mark.parametrize(("method", "pseudo"), [("sfc", "pseudo"), ("cti", "refined")])
def test_the_plan_goes_from_tags_to_masks(method, pseudo):
    found = planned("folder-masks", "ROOT=/photos", f"METHOD={method}", "RUN=planned", "SEED=3", "ARGS_classify=--x 1")
    assert Counter(verb for verb, _ in found) == {"fit": 3, "predict": 3, "crf": 1, "walk": 1}
    assert all("/photos" in line for _, line in found)
    top = f"runs/folder-{method}-planned/seed3"
    order = ["--run.stage classify", "--run.stage cam-tagged", f"--out {top}/seeds-tagged", "--run.stage irn",
             "--run.stage edges-tagged", f"--out {top}/labels-tagged", "--run.stage segment", "--run.stage predict-all"]  # fmt: skip
    assert [word in line for word, (_, line) in zip(order, found, strict=True)] == [True] * 8
    assert f"--data.init_args.pseudo_labels {top}/labels-tagged/{pseudo} " in found[6][1] + " "
    assert [("--x 1" in line) for _, line in found] == [True, True] + [False] * 6
    # what lies over a file of VOC comes behind it
    for _, line in found:
        configs = [word for before, word in pairwise(line.split()) if before == "--config"]
        over = [place for place, name in enumerate(configs) if name.startswith("experiments/folder/")]
        assert len(over) == 1 and configs[over[0] - 1].split("/")[2] == "voc"
        assert all((REPOSITORY / name).is_file() for name in configs)


def test_scores_and_new_photos_come_behind_the_chain():
    found = planned("folder-scores", "ROOT=/photos", "RUN=planned")
    assert [verb for verb, _ in found][-2:] == ["evaluate", "report"] and "--split masked" in found[-2][1]
    plan = make("-n", "folder-segment", "ROOT=/photos", "NEW=/more", "RUN=planned", "OUT=/masks").stdout.replace(
        "\\\n", " "
    )
    (line,) = [line for line in plan.splitlines() if "frugalseg segment" in line]
    assert "segment /more --checkpoint runs/folder-sfc-planned/seed0/segment/checkpoints/last.ckpt" in line
    assert line.split("--out ")[1].startswith("/masks")
    assert "predict-all" not in plan


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["folder-masks"], "ROOT= is not set"),
        (["folder-masks", "ROOT=a b"], "Make knows no paths with spaces"),
        (["folder-masks", "ROOT=/photos", "METHOD=irn"], "METHOD=irn: write sfc or cti"),
        (["folder-masks", "ROOT=/photos", "METHOD=sfc cti"], "write sfc or cti"),
        (["folder-segment", "ROOT=/photos", "RUN=planned"], "NEW= is not set"),
    ],
)
def test_what_is_missing_is_said(words, said):
    done = make("-n", *words)
    assert done.returncode == 2 and said in done.stderr


def test_photos_to_segment_are_asked_for_before_anything_is_made():
    done = make("-n", "folder-segment", "ROOT=/photos", "RUN=planned")
    assert "NEW= is not set" in done.stderr and "runs/" not in done.stdout


def test_seeds_do_not_share_a_folder_and_none_fails_unheard(tmp_path):
    """The recipe itself runs, with a program that fails once for frugalseg."""
    words = ["folder-segment", "ROOT=/photos", "NEW=/more", "RUN=planned", "SEEDS=0 1", "OUT=/masks"]
    plan = make("-n", *words).stdout.replace("\\\n", " ")
    (line,) = [line for line in plan.splitlines() if "frugalseg segment" in line]
    assert [part.split(";")[0] for part in line.split("--out ")[1:]] == ["/masks/seed0", "/masks/seed1"]
    program, count = line.split(" segment ")[0].split()[-1], tmp_path / "count"
    script = f'fails() {{ echo x >> "{count}"; [ $(wc -l < "{count}") -gt 1 ]; }}; ' + line.replace(program, "fails")
    assert subprocess.run(["sh", "-c", script], timeout=60, check=False).returncode == 1
    assert count.read_text() == "x\n"


def test_new_photos_and_masks_make_masks_and_scores_stale_and_no_net(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    names = REPOSITORY / "runs/folder-sfc-planned/.photos"
    plan = make("-n", "-p", "folder-scores", f"ROOT={tmp_path}", "RUN=planned").stdout
    rules = [line.split(":")[0].split("/")[-2] for line in plan.splitlines() if ".photos" in line.split(":", 1)[-1]
             and line.startswith("runs/folder-sfc-planned/seed0/")]  # fmt: skip
    assert sorted(rules) == ["predict-all", "score-masked"]
    before = names.read_text(), names.stat().st_mtime_ns
    assert before[0].split() == ["5", f"{tmp_path}/a.jpg"]
    make("-n", "folder-scores", f"ROOT={tmp_path}", "RUN=planned")
    assert (names.read_text(), names.stat().st_mtime_ns) == before
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(b"1")
    make("-n", "folder-scores", f"ROOT={tmp_path}", "RUN=planned")
    assert sorted(line.split()[0] for line in names.read_text().splitlines()) == ["1", "5"]
    assert [path.name for path in names.parent.iterdir() if path.name.startswith(".photos")] == [".photos"]


def test_others_targets_do_not_look_at_it():
    assert make("-n", "mevt-pretrain", "METHOD=dino", "ROOT=/images").returncode == 0
    assert make("help").returncode == 0


def test_new_tags_make_the_chain_stale(tmp_path):
    (tmp_path / "tags.csv").write_text("image,tags\n")
    plan = make("-n", "-p", "folder-masks", f"ROOT={tmp_path}", "RUN=planned").stdout
    (rule,) = [
        line for line in plan.splitlines() if line.startswith("runs/folder-sfc-planned/seed0/classify/done.json:")
    ]
    assert f" {tmp_path}/tags.csv" in rule
