"""Separation of tokens against a plain loop over all pairs."""

import numpy as np
import pytest

from frugalseg.analysis.tokens import cosines, token_separation


def cosine(a, b):
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length else 0.0


def loop(tokens, classes):
    """Every pair of tokens by itself."""
    count, ids = len(tokens), sorted(set(classes.tolist()))
    pairs = {(c, d): [] for c in ids for d in ids if c <= d}
    for i in range(count):
        for j in range(i + 1, count):
            pairs[tuple(sorted((classes[i], classes[j])))].append(cosine(tokens[i], tokens[j]))
    within = np.mean([np.mean(v) for (c, d), v in pairs.items() if c == d and v])
    between = np.mean([np.mean(v) for (c, d), v in pairs.items() if c != d])
    scores = []
    for i in range(count):
        mean = {
            c: np.mean(
                [1 - cosine(tokens[i], tokens[j]) for j in range(count) if classes[j] == c and j != i] or [np.nan]
            )
            for c in ids
        }
        a, b = mean[classes[i]], min(v for c, v in mean.items() if c != classes[i])
        scores.append(0.0 if np.isnan(a) else (b - a) / max(a, b))
    return {
        "within": within,
        "between": between,
        "separation": within - between,
        "silhouette": float(np.mean(scores)),
    }


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_loop(seed):
    rng = np.random.default_rng(seed)
    classes = np.array([3, 5, 5, 5, 9, 9, 3, 7])  # 7 is alone in its class
    tokens = rng.standard_normal((8, 6)).astype(np.float32) + classes[:, None] / 5
    tokens[4] = 0
    found, expected = token_separation(tokens, classes), loop(tokens.astype(np.float64), classes)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9), key


def test_classes_at_right_angles_are_fully_apart():
    tokens = np.repeat(np.eye(3), 2, axis=0)
    assert token_separation(3 * tokens, np.repeat([1, 2, 3], 2)) == pytest.approx(
        {"within": 1.0, "between": 0.0, "separation": 1.0, "silhouette": 1.0}
    )


def test_one_vector_for_all_is_not_apart():
    found = token_separation(np.ones((6, 4)), np.repeat([1, 2], 3))
    assert found == pytest.approx({"within": 1.0, "between": 1.0, "separation": 0.0, "silhouette": 0.0}, abs=1e-6)


@pytest.mark.parametrize("classes", [[], [1], [1, 1, 1], [1, 2, 3]])
def test_nothing_to_compare(classes):
    assert token_separation(np.ones((len(classes), 4)), np.array(classes, np.int64)) == {}


def test_cosines_by_rows():
    first, second = np.array([[1.0, 0], [2, 0], [0, 0]]), np.array([[5.0, 0], [0, 1], [1, 1]])
    np.testing.assert_allclose(cosines(first, second), [1, 0, 0])
