"""Pictures that choose the best weights: scored as they would be by hand, with sides that must divide continued."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsclora.errors import ImageError
from dsclora.pictures import metrics
from dsclora.training.validation import ValidationSet, picture_function
from helpers import photo, save


class Repeat(nn.Module):
    """Repeats pixels, of pictures with sides that divide alone."""

    def __init__(self, multiple: int = 1) -> None:
        super().__init__()
        self.multiple = multiple
        self.gain = nn.Parameter(torch.ones(()))  # a network has parameters, which tell its device

    def forward(self, lr: Tensor) -> Tensor:
        assert lr.shape[2] % self.multiple == lr.shape[3] % self.multiple == 0
        return self.gain * functional.interpolate(lr, scale_factor=2.0, mode="nearest")


@pytest.mark.parametrize("multiple", [1, 4])
def test_a_picture_of_any_size(multiple: int) -> None:
    lr = photo(9, 14)
    with torch.inference_mode():
        sr = picture_function(Repeat(multiple), 2, multiple)(lr)
    assert np.array_equal(sr, lr.repeat(2, 0).repeat(2, 1))


def test_the_score_is_the_mean_over_pictures(tmp_path: Path) -> None:
    for n in range(2):
        save(tmp_path / f"{n}.png", photo(40 + 8 * n, 44, seed=n))
    validation = ValidationSet.read(tmp_path, 2, 4)
    assert len(validation) == 2
    protocol = metrics.protocol("classic-y", 2)
    expected = [protocol.score(lr.repeat(2, 0).repeat(2, 1), hr)[0] for lr, hr in validation.pictures]
    assert expected[0] != pytest.approx(expected[1], abs=0.01)
    assert validation.score(Repeat(4)) == pytest.approx(np.mean(expected))


def test_a_picture_inside_the_border_is_named(tmp_path: Path) -> None:
    save(tmp_path / "tiny.png", photo(4, 4))
    with pytest.raises(ImageError, match=r"tiny\.png"):
        ValidationSet.read(tmp_path, 2)
