"""A network in a process of its own: the same picture, a time, a peak; what fails in it has the network's name."""

from contextlib import ExitStack

import numpy as np
import pytest

from dsclora.engines import Setting
from dsclora.engines.choice import open_engine
from dsclora.errors import EngineError
from dsclora.measure.process import Runner
from helpers import photo, random_model


@pytest.mark.slow
def test_a_runner_makes_what_an_engine_makes() -> None:
    setting = Setting("onnxruntime", threads=1)
    lr = (photo(16, 20).transpose(2, 0, 1)[None] / 255).astype(np.float32)
    with ExitStack() as stack:
        runner = Runner(random_model(), setting, stack)
        sr, seconds = runner.enlarge(lr)
        assert np.array_equal(sr, open_engine(random_model(), setting)(lr))
        assert 0 < seconds < 60
        assert 0 < runner.seconds(16, 20) < 60
        assert 0 < runner.peak_mb() < 4096
        with pytest.raises(EngineError, match=r"^random: "):
            runner.enlarge(lr[:, :2])
