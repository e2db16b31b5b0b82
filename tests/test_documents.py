"""What the pages say: links lead somewhere, and commands do what they are said to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def pages():
    """Markdown files of the repository, as Git knows them; all below a copy without Git."""
    if (REPOSITORY / ".git").exists():
        listed = subprocess.run(
            ["git", "-C", str(REPOSITORY), "ls-files", "*.md"], capture_output=True, text=True, check=True
        ).stdout.split()
    else:
        skipped = {".venv", "runs", "build"}
        listed = [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*.md")]
        listed = [name for name in listed if not skipped & set(Path(name).parts)]
    return sorted(listed)


def prose(text):
    """A page without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchor(heading):
    """As GitHub makes them of headings."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@pytest.mark.parametrize("page", pages())
def test_links_of_a_page_lead_somewhere(page):
    path = REPOSITORY / page
    lost = []
    for target in LINK.findall(prose(path.read_text())):
        if re.match(r"[a-z]+:", target):
            if not re.match(r"https://[\w.-]+\.\w+(/|$)", target):
                lost.append(target)
            continue
        name, _, place = target.partition("#")
        there = path if not name else (path.parent / name)
        outside = not there.exists() or REPOSITORY not in there.resolve().parents
        if outside or (place and place not in {anchor(h) for h in HEADING.findall(FENCE.sub("", there.read_text()))}):
            lost.append(target)
    assert not lost, f"{page}: {lost}"


def test_the_readme_has_links_and_pictures_that_this_can_find():
    found = LINK.findall(prose((REPOSITORY / "README.md").read_text()))
    assert len(found) >= 8
    assert "results/demo.png" in found


def readme_commands(first):
    """Lines of the README's blocks that begin with a word, without their comments; joined where a line goes on."""
    text = (REPOSITORY / "README.md").read_text()
    lines = [line.split("   #")[0].strip() for _, block in FENCE.findall(text) for line in block.splitlines()]
    return [line for line in lines if line.split() and line.split()[0] == first]


def spans():
    """`make ...` in the README's running text and tables; dots stand for a folder."""
    text = FENCE.sub("", (REPOSITORY / "README.md").read_text())
    return sorted({span.replace("...", "/nowhere") for span in re.findall(r"`(make [a-z][^`]*)`", text)})


MAKE_LINES = sorted({*readme_commands("make"), *spans()})
CHILD = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("line", MAKE_LINES)
def test_make_commands_of_the_readme_have_a_plan(line):
    words = line.removeprefix("make ")
    done = subprocess.run(
        ["bash", "-c", f"make -n -C {REPOSITORY} {words}"], env=CHILD, capture_output=True, text=True, timeout=120
    )
    if line == "make mevt-table" and done.returncode:
        # a table of finished runs, of which a fresh clone has none
        assert "nothing has finished yet" in done.stderr
        return
    if line.startswith("make cti-official"):
        # of a file that the authors released, which is not there
        assert "CKPT=FILE: there is no such file" in done.stderr
        return
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip()


def test_the_readme_names_the_two_commands_and_every_paper_has_a_target():
    assert {"make demo", "make test"} <= set(MAKE_LINES)
    for start in ("make sfc-", "make cti-", "make dsmf-", "make mevt-", "make claims"):
        assert any(line.startswith(start) for line in MAKE_LINES), start


def suite(words, folder):
    """Run the suite's own command in a folder, through a shell, as a reader would."""
    environment = {**CHILD, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "WANDB_MODE": "disabled"}
    return subprocess.run(
        ["bash", "-c", words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_the_tour_of_the_readme_runs_as_it_stands(tmp_path):
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    lines = readme_commands("frugalseg")
    assert len(lines) >= 10
    for line in lines:
        done = suite(line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr[-800:]}"
    for name in (
        "grid.png",
        "pictures/pca.png",
        "package/model.safetensors",
        "report/index.html",
        "seed0/score/metrics.json",
        "features.pt2",
        "segmented/areas.json",
        "official.pth",
    ):
        assert (tmp_path / "runs" / "tour" / name).stat().st_size > 0, name


@pytest.mark.slow
def test_the_job_of_the_readme_has_settings_that_exist(tmp_path):
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    (line,) = readme_commands("srun")
    words = line.removeprefix("srun ").replace(".venv/bin/frugalseg", "frugalseg")
    done = suite(f"{words} --print_config", tmp_path)
    assert done.returncode == 0, done.stderr[-800:]
    # the parser keeps what may be a number or a word as it was written
    assert int(yaml.safe_load(done.stdout)["trainer"]["devices"]) == 8
