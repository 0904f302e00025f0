"""Degradations: each does what it says, by chance or not."""

import numpy as np
import pytest

from dsclora.pictures.arrays import Uint8
from dsclora.pictures.degrade import Degradation, degrade
from dsclora.pictures.resize import imresize
from helpers import photo


def test_degradations() -> None:
    hr, flat = photo(64, 64), np.full((64, 64, 3), 100, np.uint8)

    def lr_of(picture: Uint8, *chain: Degradation, seed: int = 0) -> Uint8:
        return degrade(picture, 2, chain, np.random.default_rng(seed))

    plain = imresize(hr, 0.5)
    assert np.array_equal(lr_of(hr), plain)
    noise = Degradation(kind="noise", strength=(8, 8))
    assert lr_of(flat, noise).std() == pytest.approx(8, rel=0.1)
    assert lr_of(flat, noise, Degradation(kind="downscale")).std() < 6, "averaged away by the reduction that follows"
    assert not np.array_equal(lr_of(hr, noise), lr_of(hr, noise, seed=1))
    assert np.array_equal(lr_of(hr, noise), lr_of(hr, noise))
    blurred = lr_of(hr, Degradation(kind="blur", strength=(1.5, 1.5)))
    assert np.abs(np.diff(blurred.astype(int), axis=1)).mean() < 0.8 * np.abs(np.diff(plain.astype(int), axis=1)).mean()
    errors = [
        np.abs(lr_of(hr, Degradation(kind="jpeg", strength=(q, q))).astype(int) - plain).mean() for q in (95, 50, 10)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]
    rare = Degradation(kind="noise", strength=(8, 8), probability=0.25)
    untouched = [np.array_equal(lr_of(flat, rare, seed=seed), flat[:32, :32]) for seed in range(200)]
    assert 0.65 < np.mean(untouched) < 0.85


def test_blur_has_the_width_it_is_given() -> None:
    edge = np.zeros((80, 80, 3), np.uint8)
    edge[:, 40:] = 255
    for sigma in (0.5, 1.0, 2.0, 4.0):
        chain = [Degradation(kind="blur", strength=(sigma, sigma)), Degradation(kind="downscale")]
        row = degrade(edge, 1, chain, np.random.default_rng(0))[40, :, 0].astype(float)
        slope = np.diff(row) / 255
        place = np.arange(79) + 0.5
        mean = (place * slope).sum()
        assert ((place - mean) ** 2 * slope).sum() ** 0.5 == pytest.approx(sigma, rel=0.1)
