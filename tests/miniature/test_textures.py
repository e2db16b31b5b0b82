"""Textures: told apart by structure, not by grey levels; the same scene at every size."""

import itertools

import numpy as np
import pytest

from frugalseg.miniature.textures import TEXTURES, develop, paint_ground, paint_texture, plane


def draw(name: str, seed: int, size: int = 96) -> np.ndarray:
    x, y = plane(size, size, 96)
    return paint_texture(name, x - 48, y - 48, np.random.default_rng(seed))


def spectrum(image: np.ndarray) -> np.ndarray:
    """Energy by frequency, sorted, so that neither place nor direction matters."""
    grey = image.mean(axis=2)
    energy = np.sort(np.abs(np.fft.fft2((grey - grey.mean()) / grey.std()))[:, :49].ravel() ** 2)[::-1]
    return np.cumsum(energy[:64]) / energy.sum()


@pytest.mark.parametrize("name", TEXTURES)
def test_levels_are_those_of_all_textures(name: str) -> None:
    for seed in range(20):
        image = draw(name, seed)
        assert image.shape == (96, 96, 3)
        dark, bright = np.percentile(image, (2, 98))
        assert 0.05 < dark < 0.45
        assert 0.6 < bright < 1
        assert np.ptp(image.mean(axis=(0, 1))) < 0.15, "a slight tint"


def test_structure_tells_the_textures_apart() -> None:
    """Nearest mean spectrum, learnt on some pictures and tried on others."""
    means = {name: np.mean([spectrum(draw(name, seed)) for seed in range(20)], axis=0) for name in TEXTURES}
    right = [
        min(means, key=lambda other: float(np.abs(means[other] - found).sum())) == name
        for name, seed in itertools.product(TEXTURES, range(100, 120))
        for found in [spectrum(draw(name, seed))]
    ]
    assert np.mean(right) > 0.8


@pytest.mark.parametrize("name", TEXTURES)
def test_finer_pixels_show_the_same_texture(name: str) -> None:
    coarse, fine = draw(name, 5), draw(name, 5, size=288)
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, atol=1e-6)


def test_every_seed_gives_another_texture() -> None:
    for name in TEXTURES:
        assert np.abs(draw(name, 1) - draw(name, 2)).mean() > 0.1


def test_ground_has_low_contrast_and_noise_is_slight() -> None:
    x, y = plane(96, 96, 96)
    rng = np.random.default_rng(0)
    ground = paint_ground(x, y, rng)
    assert ground.std(axis=(0, 1)).max() < 0.1
    image = develop(ground, rng)
    assert image.dtype == np.uint8
    assert abs((image / 255 - ground).std() - 0.03) < 0.003


def test_plane_of_a_wide_picture() -> None:
    x, y = plane(64, 128, 64)
    assert x.shape == y.shape == (64, 128)
    assert (x[0, 0], x[0, -1], y[0, 0], y[-1, 0]) == (0.5, 127.5, 0.5, 63.5)
