"""PSNR and SSIM against values worked out by hand and a literal transcription of their formulas."""

import numpy as np
import pytest

from dsclora.pictures.metrics import luma, protocol, psnr, ssim
from helpers import photo


def test_luma_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(colours)[0] == pytest.approx([16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966])


def test_psnr_by_hand() -> None:
    a = np.zeros((4, 4), np.uint8)
    assert psnr(a, a + 1) == pytest.approx(20 * np.log10(255))  # 48.13 dB
    assert psnr(a, a) == float("inf")
    b = a.copy()
    b[0, 0] = 4  # mean square 1
    assert psnr(a, b) == pytest.approx(20 * np.log10(255))


def test_ssim_equals_its_definition() -> None:
    x, y = photo(14, 13, 1, seed=1)[..., 0], photo(14, 13, 1, seed=2)[..., 0]
    taps = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    window = np.outer(taps, taps) / taps.sum() ** 2
    values = []
    for top in range(4):
        for left in range(3):
            a = x[top : top + 11, left : left + 11].astype(float)
            b = y[top : top + 11, left : left + 11].astype(float)
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            c1, c2 = 6.5025, 58.5225
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert ssim(x, y) == pytest.approx(np.mean(values), abs=1e-12)
    assert ssim(x, x) == pytest.approx(1)
    assert np.isnan(ssim(x[:10], y[:10]))


def test_protocols_cut_their_border() -> None:
    hr = photo(40, 40)
    sr = hr.copy()
    sr[:3] = 255 - sr[:3]  # spoils only what classic-y at x3 cuts away
    assert protocol("classic-y", 3).score(sr, hr)[0] == float("inf")
    assert protocol("classic-y", 2).score(sr, hr)[0] < 40
    assert protocol("ntire-rgb", 2).score(sr, hr)[0] == float("inf")
    with pytest.raises(ValueError, match="classic-y or ntire-rgb"):
        protocol("best", 4)
    with pytest.raises(ValueError, match="sizes differ"):
        protocol("classic-y", 4).score(sr, hr[:20])
