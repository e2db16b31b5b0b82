"""Scores of episodes against loops over pixels; several base seeds; what a net and an episode cost, counted by hand."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from frugalseg.errors import ConfigError
from frugalseg.papers.dsmf.model import Episode
from frugalseg.papers.dsmf.scoring import COLUMNS, EpisodeTask, count_row, over_seeds, scores
from tests.papers.dsmf.test_task import QUIET, collate

SIZE = (6, 5)
SHOTS = 2


class Painted(EpisodeTask):
    """Answers what is painted on the query: foreground where its first channel is above 0."""

    def __init__(self, num_classes=7):
        super().__init__(num_classes)
        self.convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.frozen = nn.Linear(5, 2).requires_grad_(False)
        self.forgot = 0

    def forget(self):
        self.forgot += 1

    def answer(self, batch):
        painted = batch["query_image"][:, :1]
        return Episode(torch.cat([-painted, painted], dim=1), [], [painted], painted)

    def answer_cold(self, query, supports, masks):
        self.convolution(query)
        self.convolution(supports.flatten(0, 1))
        assert masks.shape == supports[:, :, 0].shape and masks.dtype == torch.int64
        return Episode(query[:, :2], [], [], query[:, :1])


class Blank(Painted):
    """Has nothing to learn."""

    def __init__(self):
        super().__init__()
        del self.convolution, self.frozen

    def answer_cold(self, query, supports, masks):
        return Episode(query[:, :2], [], [], query[:, :1])


def item(seed, number, class_id, base_seed=None, ignored=0.2):
    random = np.random.default_rng([seed, number])
    truth = random.integers(0, 2, SIZE)
    truth[random.random(SIZE) < ignored] = 255
    image = torch.from_numpy(random.standard_normal((3, *SIZE)).astype(np.float32))
    made = {
        "id": f"q{number}", "query_image": image, "query_mask": torch.from_numpy(truth), "class_id": class_id,
        "support_images": torch.zeros(SHOTS, 3, *SIZE), "support_masks": torch.ones(SHOTS, *SIZE, dtype=torch.int64),
        "support_id": ["a"] * SHOTS, "number": number,
    }  # fmt: skip
    return made if base_seed is None else {**made, "base_seed": base_seed}


def items(seed, classes, named=True):
    return [item(seed, number, c, seed if named else None) for number, c in enumerate(classes)]


def loaded(episodes, batch=1):
    return DataLoader(episodes, batch_size=batch, collate_fn=collate)


def oracle(episodes):
    """dsmf.md section 7, pixel by pixel."""
    inside, outside, union, union_out, number = (defaultdict(int) for _ in range(5))
    for episode in episodes:
        c = episode["class_id"]
        number[c] += 1
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                truth, said = int(episode["query_mask"][y, x]), bool(episode["query_image"][0, y, x] > 0)
                if truth == 255:
                    continue
                inside[c] += said and truth == 1
                union[c] += said or truth == 1
                outside[c] += not said and truth == 0
                union_out[c] += not said or truth == 0
    each = {c: inside[c] / max(union[c], 1) for c in sorted(number)}
    pooled = sum(inside.values()) / max(sum(union.values()), 1), sum(outside.values()) / max(sum(union_out.values()), 1)
    table = {c: [number[c], outside[c], inside[c], union_out[c], union[c]] for c in number}
    return each, sum(each.values()) / len(each), sum(pooled) / 2, table


def metrics(made, loaders):
    """All that was logged: Lightning returns a table per loader, and ours are of no single one."""
    found = {}
    for part in Trainer(**QUIET).test(made, loaders, verbose=False):
        found |= part
    assert found.pop("test/episodes_per_second") > 0
    return found


# ---------------------------------------------------------------------- one base seed


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("classes", [[1, 2, 3, 1, 1, 2], [6], [5, 5, 2, 5, 2]])
def test_scores_of_one_seed(classes, batch):
    episodes = items(3, classes)
    each, mean, fb, table = oracle(episodes)
    made = Painted()
    found = metrics(made, loaded(episodes, batch))
    assert found.pop("test/miou") == pytest.approx(mean, abs=1e-7)
    assert found.pop("test/fb_iou") == pytest.approx(fb, abs=1e-7)
    for c, value in each.items():
        assert found[f"test/iou/{c}"] == found[f"test/seed3/iou/{c}"] == pytest.approx(value, abs=1e-7)
    assert {key for key in found if "/iou/" in key} == {f"test/{p}iou/{c}" for c in each for p in ("", "seed3/")}
    assert found["test/seed3/miou"] == pytest.approx(mean, abs=1e-7)
    assert found["test/seed3/fb_iou"] == pytest.approx(fb, abs=1e-7)
    assert (found["test/seeds"], found["test/episodes"], found["test/seed3/episodes"]) == (
        1,
        len(classes),
        len(classes),
    )
    assert found["test/classes"] == len(each)
    assert not any("_std" in key for key in found)
    counts = made.episode_counts()
    assert {key: (value.dtype, value.shape) for key, value in counts.items()} == {
        "seeds": (np.dtype(np.int64), (1,)), "sums": (np.dtype(np.int64), (1, 7, COLUMNS)),
    }  # fmt: skip
    assert counts["seeds"].tolist() == [3]
    assert counts["sums"][0].tolist() == [table.get(c, [0] * 5) for c in range(7)]


def test_counts_are_of_one_evaluation_alone():
    made = Painted()
    for seed, classes in ((1, [1, 2]), (2, [3])):
        metrics(made, loaded(items(seed, classes)))
        assert made.episode_counts()["sums"].sum(axis=(0, 2)).nonzero()[0].tolist() == classes
        assert made.episode_counts()["seeds"].tolist() == [seed]
    assert made.forgot == 2


def test_a_class_without_a_pixel_scores_0():
    episode = item(0, 0, 4)
    episode["query_mask"] = torch.zeros(SIZE, dtype=torch.int64)
    episode["query_image"] = -torch.ones(3, *SIZE)
    found = metrics(Painted(), loaded([episode]))
    assert found["test/iou/4"] == found["test/miou"] == 0 and found["test/fb_iou"] == 0.5


def test_nothing_is_ignored_but_255():
    logits, truth = torch.tensor([[0, 1, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1, 255]])
    assert count_row(logits, truth).tolist() == [1, 1, 1, 3, 3]
    with pytest.raises(ValueError):
        count_row(logits, torch.tensor([[0, 0, 2, 1, 255]]))


def test_nothing_answered():
    with pytest.raises(ConfigError, match=r"no episode of split val was answered; raise trainer\.limit_val_batches"):
        scores(torch.zeros(7, COLUMNS, dtype=torch.int64), "val")


# ---------------------------------------------------------------------- several


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("seeds", [(0, 1), (7, 3, 5), (1, 0)])
def test_each_loader_is_a_base_seed(seeds, named):
    groups = [items(seed, [1, 2, 3, 2], named) for seed in seeds]
    names = seeds if named else tuple(range(len(seeds)))
    made = Painted()
    found = metrics(made, [loaded(group) for group in groups])
    rows = [oracle(group) for group in groups]
    for name, (each, mean, fb, _) in zip(names, rows, strict=True):
        assert found[f"test/seed{name}/miou"] == pytest.approx(mean, abs=1e-7)
        assert found[f"test/seed{name}/fb_iou"] == pytest.approx(fb, abs=1e-7)
        assert found[f"test/seed{name}/episodes"] == 4
        for c, value in each.items():
            assert found[f"test/seed{name}/iou/{c}"] == pytest.approx(value, abs=1e-7)

    def spread(values):
        """Sample standard deviation, by hand."""
        mean = sum(values) / len(values)
        return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5

    for key, values in {
        "miou": [row[1] for row in rows], "fb_iou": [row[2] for row in rows],
        **{f"iou/{c}": [row[0][c] for row in rows] for c in (1, 2, 3)},
    }.items():  # fmt: skip
        mean, deviation = spread(values)
        head, slash, tail = key.partition("/")
        assert found[f"test/{key}"] == pytest.approx(mean, abs=1e-7)
        assert found[f"test/{head}_std{slash}{tail}"] == pytest.approx(deviation, abs=1e-7) and deviation > 0
    assert (found["test/seeds"], found["test/episodes"], found["test/classes"]) == (len(seeds), 4, 3)
    counts = made.episode_counts()
    assert counts["seeds"].tolist() == list(names)
    assert counts["sums"].tolist() == [[row[3].get(c, [0] * 5) for c in range(7)] for row in rows]


def test_a_seed_without_a_class():
    """Its mean is over the classes it has; the class's own mean is over the seeds that have it."""
    groups = [items(0, [1, 2, 3]), items(1, [1, 2]), items(2, [2, 1, 2])]
    found = metrics(Painted(), [loaded(group) for group in groups])
    rows = [oracle(group) for group in groups]
    assert found["test/iou/3"] == pytest.approx(rows[0][0][3], abs=1e-7) and "test/iou_std/3" not in found
    assert "test/seed1/iou/3" not in found
    assert found["test/miou"] == pytest.approx(np.mean([row[1] for row in rows]), abs=1e-7)
    assert found["test/iou_std/2"] == pytest.approx(np.std([row[0][2] for row in rows], ddof=1), abs=1e-7)
    assert found["test/classes"] == 2


def test_over_seeds_of_one_and_two():
    row = {"miou": 0.25, "fb_iou": 0.5, "classes": 2.0, "episodes": 9.0, "iou/1": 0.5, "iou/2": 0.0}
    one = over_seeds({4: row})
    assert one == {
        "seeds": 1.0, "episodes": 9.0, "classes": 2.0, "miou": 0.25, "fb_iou": 0.5, "iou/1": 0.5, "iou/2": 0.0,
        **{f"seed4/{key}": value for key, value in row.items() if key != "classes"},
    }  # fmt: skip
    two = over_seeds({4: row, 0: {**row, "miou": 0.75}})
    assert two["miou"] == 0.5 and two["miou_std"] == pytest.approx(0.5 / 2**0.5) and two["fb_iou_std"] == 0


def ranked(groups, said):
    """What one of two ranks sums up; `said` are the sums of the other."""
    made, replies = Painted(), iter(said)
    heard = []

    def reduce(tensor, reduce_op):
        assert reduce_op == "sum"
        heard.append(tensor.clone())
        return tensor + next(replies, torch.zeros_like(tensor))

    made._trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce))
    made._begin()
    for number, group in enumerate(groups):
        for batch in loaded(group):
            made.test_step(batch, 0, number)
    return made._summed(len(groups)), heard


@pytest.mark.parametrize("cut", [0, 1, 3, 4])
def test_ranks_are_summed(cut):
    """Also where one of them has no episode of a loader: it does not know the loader's base seed."""
    groups = [items(seed, [1, 2, 3, 2]) for seed in (7, 4)]
    _, said = ranked([group[cut:] for group in groups], [])
    found, _ = ranked([group[:cut] for group in groups], said)
    assert list(found) == [7, 4]
    for group, sums in zip(groups, found.values(), strict=True):
        table = oracle(group)[3]
        assert sums.dtype == torch.int64 and sums.tolist() == [table.get(c, [0] * 5) for c in range(7)]


# ---------------------------------------------------------------------- validation


def test_validation_counts_alike():
    episodes = items(8, [1, 2, 2])
    each, mean, fb, table = oracle(episodes)
    made = Painted()
    (found,) = Trainer(**QUIET).validate(made, loaded(episodes), verbose=False)
    assert found == {
        "val/miou": pytest.approx(mean, abs=1e-7), "val/fb_iou": pytest.approx(fb, abs=1e-7), "val/classes": 2,
        "val/episodes": 3, **{f"val/iou/{c}": pytest.approx(value, abs=1e-7) for c, value in each.items()},
    }  # fmt: skip
    assert made.episode_counts()["sums"][0].tolist() == [table.get(c, [0] * 5) for c in range(7)]
    assert made.episode_counts()["seeds"].tolist() == [8]


@pytest.mark.parametrize("step", ["validation_step", "test_step"])
def test_what_a_step_returns(step):
    made = Painted()
    made._begin()
    batch = next(iter(loaded(items(1, [1, 2, 3]), 3)))
    found = getattr(made, step)(batch, 0)
    assert set(found) == {"logits", "graph_maps", "prior"}
    assert found["logits"].shape == (3, 2, *SIZE) and [m.shape for m in found["graph_maps"]] == [(3, 1, *SIZE)]
    assert found["prior"].shape == (3, 1, *SIZE)


# ---------------------------------------------------------------------- costs


def test_parameters_and_operations_are_counted():
    found = metrics(Painted(), loaded(items(0, [1])))
    convolution, linear = 4 * 3 * 3 * 3 + 4, 2 * 5 + 2
    assert found["model/parameters"] == convolution + linear
    assert found["model/parameters_trainable"] == convolution
    # stride 2 and padding 1: 6 x 5 becomes 3 x 3; a multiply-add is two operations; query and two supports
    assert found["model/flops"] == 2 * (3 * 3 * 3) * 4 * (3 * 3) * (1 + SHOTS)


def test_costs_do_not_depend_on_batches_or_seeds():
    one = metrics(Painted(), loaded(items(0, [1])))
    many = metrics(Painted(), [loaded(items(seed, [1, 2, 3]), 3) for seed in (0, 1)])
    assert all(one[key] == many[key] for key in one if key.startswith("model/"))


def test_who_learns_nothing_has_no_number_of_it():
    found = metrics(Blank(), loaded(items(0, [1])))
    assert found["model/parameters"] == found["model/flops"] == 0 and "model/parameters_trainable" not in found


def test_large_numbers_are_exact():
    """Beyond 2^24 not every whole number is a float32, which is what Lightning keeps."""
    made = Painted()
    made.frozen = nn.Linear(2**24 + 1, 1, bias=False).requires_grad_(False)
    found = metrics(made, loaded(items(0, [1])))
    assert found["model/parameters"] == sum(p.numel() for p in made.parameters()) == 2**24 + 1 + 112


def test_counts_of_no_evaluation_are_refused():
    """Lightning does not begin an evaluation of no batches, which then has no counts either."""
    made = Painted()
    Trainer(limit_test_batches=0, **QUIET).test(made, loaded(items(0, [1])), verbose=False)
    with pytest.raises(ConfigError, match="no episode was answered; raise limit_test_batches"):
        made.episode_counts()
