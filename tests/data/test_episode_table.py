from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.data.base import Pair, Sample
from frugalseg.data.episode_table import EpisodeTable, distinct
from frugalseg.errors import DatasetError


def samples(count):
    return [Sample(f"i{n}", Path(f"i{n}.png"), None, None) for n in range(count)]


def table_of(members, count=100):
    """{class: indices of images} -> table."""
    pairs = [Pair(f"i{n}", c) for c, indices in members.items() for n in indices]
    return EpisodeTable(samples(count), pairs, sorted(members), "split x of y")


@pytest.fixture
def table():
    return table_of({1: range(80), 2: range(40, 60), 7: [3, 50, 9]})


def test_training_episodes_are_sound(table):
    seen, queries = {}, {3: 0, 50: 0, 9: 0}
    for number in range(3000):
        draw = table.training(np.random.default_rng(number), 2)
        queries[draw.query] = queries.get(draw.query, 0) + (draw.class_id == 7)
        images = [draw.query, *draw.supports]
        assert len(set(images)) == 3
        assert set(images) <= set(table.members[draw.class_id].tolist())
        seen[draw.class_id] = seen.get(draw.class_id, 0) + 1
    # by class, not by image: 80 images or 3, each class is drawn a third of the time (1000 +- 5 sigma)
    assert sorted(seen) == [1, 2, 7]
    assert all(abs(count - 1000) < 130 for count in seen.values())
    # any image of a class is its query as often as another, whatever its place in the list (333 +- 5 sigma)
    assert all(abs(queries[image] - 333) < 86 for image in (3, 50, 9))


def test_training_leaves_thin_classes_out(table):
    assert table.thin(3) == [7]
    assert {table.training(np.random.default_rng(n), 3).class_id for n in range(200)} == {1, 2}
    with pytest.raises(DatasetError, match="no class has the 101 images that 100 shots take"):
        table.training(np.random.default_rng(0), 100)


def test_every_pair_is_a_query_once_and_never_its_own_support(table):
    draws = [table.test(number, (0, 1), 5) for number in range(len(table))]
    assert [(d.query, d.class_id) for d in draws] == [tuple(pair) for pair in table.pairs.tolist()]
    for draw in draws:
        assert draw.query not in draw.supports
        assert len(draw.supports) == 5
        assert set(draw.supports) <= set(table.members[draw.class_id].tolist())


def test_test_episodes_depend_on_seed_fold_and_number_alone(table):
    forward = [table.test(n, (3, 1), 1) for n in range(60)]
    backward = [table.test(n, (3, 1), 1) for n in reversed(range(60))][::-1]
    assert forward == backward
    assert forward != [table.test(n, (4, 1), 1) for n in range(60)]
    assert forward != [table.test(n, (3, 2), 1) for n in range(60)]
    again = [table.test(n + len(table), (3, 1), 1) for n in range(60)]
    assert [(d.query, d.class_id) for d in again] == [(d.query, d.class_id) for d in forward]
    assert [d.supports for d in again] != [d.supports for d in forward]


@pytest.mark.parametrize("number", [0, 81, 102])
def test_fewer_shots_are_a_prefix_of_more(table, number):
    five = table.test(number, (0, 0), 5).supports
    assert all(table.test(number, (0, 0), k).supports == five[:k] for k in range(1, 5))


def test_a_class_with_fewer_images_than_shots_repeats_them_in_turn(table):
    number = len(table) - 1  # class 7, image 9; the others are 3 and 50
    supports = table.test(number, (0, 0), 5).supports
    assert set(supports[:2]) == {3, 50}
    assert supports[2:] == (supports[0], supports[1], supports[0])


def test_a_class_with_one_image_has_no_episode():
    lonely = table_of({1: range(5), 2: [7]})
    assert lonely.thin(1) == [2]
    with pytest.raises(DatasetError, match="class 2 has one image, so no support"):
        lonely.test(5, (0, 0), 1)
    lonely.leave_out([2])
    assert len(lonely) == 5
    assert list(lonely.members) == [1]
    with pytest.raises(DatasetError, match="no class has two images"):
        lonely.leave_out([1])


def test_pairs_of_another_data_set(caplog):
    with pytest.raises(DatasetError, match=r"none of the 2 few-shot pairs .*a0, a1.*another data set"):
        EpisodeTable(samples(3), [Pair("a0", 1), Pair("a1", 1)], [1], "split val of here")
    table = EpisodeTable(samples(3), [Pair("i0", 1), Pair("i1", 1), Pair("a1", 1)], [1], "split val of here")
    assert len(table) == 2
    said = "1 of 3 pairs of the few-shot lists are left out, they name 1 images that are not in the split, first a1"
    assert said in caplog.text


def test_pairs_without_images_are_an_error_unless_the_split_is_narrowed():
    pairs = [Pair(f"i{n}", c) for n in range(9) for c in (1, 2)]
    with pytest.raises(DatasetError) as caught:
        EpisodeTable(samples(3), pairs, [1, 2], "split val of here", "a.txt", narrowed=False)
    assert str(caught.value).startswith(
        "split val of here: 12 of 18 pairs of a.txt name 6 images that are not in the split, first i3, i4, i5, i6, i7;"
    )
    assert len(EpisodeTable(samples(9), pairs, [1, 2], "split val of here", narrowed=False)) == 18


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.data())
def test_distinct_numbers(n, data):
    k = data.draw(st.integers(1, min(n, 30)))
    seed = data.draw(st.integers(0, 1000))
    found = distinct(np.random.default_rng(seed), n, k)
    assert len(set(found)) == k
    assert all(0 <= number < n for number in found)
    assert distinct(np.random.default_rng(seed), n, 1) == found[:1]


def test_distinct_numbers_are_uniform():
    rng = np.random.default_rng(0)
    for n in (5, 90):
        counts = np.bincount(np.concatenate([distinct(rng, n, 3) for _ in range(6000)]), minlength=n)
        expected = 18000 / n
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
