"""Paired differences of few-shot methods, against the statistics module; what is never paired; both outputs."""

import statistics

import pytest

from frugalseg.analysis.few_shot import read_stages
from frugalseg.analysis.few_shot_pairs import paired_grids
from frugalseg.analysis.few_shot_rows import FOLDS, rows_of
from frugalseg.analysis.few_shot_tables import grid_table, page_lines
from frugalseg.cli import main
from tests.analysis.few_shot_runs import slow_scores, write_test
from tests.analysis.test_tables import rows_of as rendered

ONE = "There is one training seed"


def rows_in(root, *names):
    return [row for name in names for row in rows_of(name, read_stages(root / name))]


def write_all(root, name, training=(0,), folds=FOLDS, **settings):
    """(fold, training seed, base seed) -> slow mIoU."""
    found = {}
    for fold in folds:
        for seed in training:
            number = [fold, seed, *name.encode()]
            _, bases, sums = write_test(root, name, fold=fold, seed=seed, number=number, **settings)
            found |= {(fold, seed, b): slow_scores(r)["miou"] for b, r in zip(bases.tolist(), sums, strict=True)}
    return found


def cell(differences):
    """Number by number."""
    points = [100 * d for d in differences]
    spread = f" ±{statistics.stdev(points):.2f}" if len(points) > 1 else ""
    mean = statistics.fmean(points)
    return f"{'+' if mean >= 0 else '-'}{abs(mean):.2f}{spread} ({sum(p > 0 for p in points)}/{len(points)})"


def slow_cells(ours, theirs):
    pairs = sorted({key[1:] for key in ours} & {key[1:] for key in theirs})
    by_fold = [[ours[f, *pair] - theirs[f, *pair] for pair in pairs] for f in FOLDS]
    return [cell(d) for d in [*by_fold, [statistics.fmean(d) for d in zip(*by_fold, strict=True)]]]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("training", [(0,), (0, 3)])
def test_cells(tmp_path, training, seeds):
    slow = {
        (name, shots): write_all(tmp_path, name, training, shots=shots, seeds=seeds)
        for name in ("dsmf", "fem", "cosine")
        for shots in (1, 5)
    }
    grids = paired_grids(rows_in(tmp_path, "dsmf", "fem", "cosine"))
    assert len(grids) == 2
    for shots, grid in zip((1, 5), grids, strict=True):
        assert grid.title.startswith(
            f"{shots} shot: dsmf (the first row) minus each other, in points of mIoU, paired by"
        )
        assert grid.columns == ["experiment", "shots", "fold 0", "fold 1", "fold 2", "mean"]
        assert grid.rows == [
            [name, str(shots), *slow_cells(slow["dsmf", shots], slow[name, shots])] for name in ("fem", "cosine")
        ]
        assert [note.startswith(ONE) for note in grid.notes] == ([True] if len(training) == 1 else [])


def test_the_first_row_of_the_call_is_the_reference(tmp_path):
    ours, theirs = write_all(tmp_path, "dsmf"), write_all(tmp_path, "fem")
    (grid,) = paired_grids(rows_in(tmp_path, "fem", "dsmf"))
    assert grid.rows == [["dsmf", "1", *slow_cells(theirs, ours)]]


def test_pairs_vary_less_than_what_they_are_of(tmp_path):
    """Base seeds that are hard for all: the deviation of a row is wide, that of the difference is not."""
    write_all(tmp_path, "dsmf")
    write_all(tmp_path, "twin")
    for fold in FOLDS:  # the same counts
        for name in ("counts.npz", "metrics.json"):
            source, target = (tmp_path / n / f"fold{fold}/seed0/1shot-test" / name for n in ("dsmf", "twin"))
            target.write_bytes(source.read_bytes())
    rows = rows_in(tmp_path, "dsmf", "twin")
    assert rows[0].figures["mean/miou"]["std"] > 0.01
    # and a tie is not positive
    assert paired_grids(rows)[0].rows[0][2:] == ["+0.00 ±0.00 (0/3)"] * 4


def test_only_labels_in_common_are_paired(tmp_path):
    ours = write_all(tmp_path, "dsmf", (0, 1))
    theirs = write_all(tmp_path, "fem", (1, 2))
    both = write_all(tmp_path, "full", (0, 1))
    (grid,) = paired_grids(rows_in(tmp_path, "dsmf", "fem", "full"))
    column = grid.columns.index("training seeds")
    assert [[*line[:column], *line[column + 1 :]] for line in grid.rows] == [
        ["fem", "1", *slow_cells(ours, theirs)], ["full", "1", *slow_cells(ours, both)],
    ]  # fmt: skip
    assert len(grid.notes) == 1 and grid.notes[0].startswith(f"{ONE} against fem:")
    write_all(tmp_path, "far", (7,))
    assert paired_grids(rows_in(tmp_path, "dsmf", "far")) == []


def test_a_fold_that_one_lacks(tmp_path):
    write_all(tmp_path, "dsmf")
    write_all(tmp_path, "fem", folds=(1,))
    ((line,),) = (grid.rows for grid in paired_grids(rows_in(tmp_path, "dsmf", "fem")))
    assert [c == "-" for c in line[2:]] == [True, False, True, True]


@pytest.mark.parametrize(
    "other",
    [{"trained": "P2"}, {"checkpoint": "best"}, {"seeds": (0, 1)}, {"size": 512}, {"episodes": 30}, {"file": "e.csv"}],
)
def test_what_is_not_comparable_is_never_paired(tmp_path, other):
    write_all(tmp_path, "dsmf")
    write_all(tmp_path, "fem", **other)
    assert paired_grids(rows_in(tmp_path, "dsmf", "fem")) == []
    write_all(tmp_path, "full")
    (grid,) = paired_grids(rows_in(tmp_path, "dsmf", "fem", "full"))
    assert [line[0] for line in grid.rows] == ["full"]


def test_shots_are_never_paired_and_a_single_row_has_no_grid(tmp_path):
    write_all(tmp_path, "dsmf", shots=1)
    write_all(tmp_path, "fem", shots=5)
    assert paired_grids(rows_in(tmp_path, "dsmf", "fem")) == []


def test_untrained_rows_have_no_net_to_speak_of(tmp_path):
    for name in ("foreground", "other"):
        write_all(tmp_path, name, checkpoint=None)
    (grid,) = paired_grids(rows_in(tmp_path, "foreground", "other"))
    assert grid.notes == []
    write_all(tmp_path, "dsmf")
    (grid,) = paired_grids(rows_in(tmp_path, "dsmf", "foreground"))
    assert len(grid.rows) == 1 and grid.notes[0].startswith(ONE)


def test_terminal_and_page(tmp_path, capsys):
    for name in ("dsmf", "fem"):
        write_all(tmp_path, name)
    rows = rows_in(tmp_path, "dsmf", "fem")
    (grid,) = paired_grids(rows)
    assert rendered(grid_table(grid)) == [grid.columns, *grid.rows]
    page = page_lines(rows)
    assert {f"**{grid.title}**", f"| {' | '.join(grid.rows[0])} |", *grid.notes} <= set(page)
    assert main(["report", *[str(tmp_path / n) for n in ("dsmf", "fem")]]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "minus each other" in out and grid.rows[0][-1] in out and ONE in out
