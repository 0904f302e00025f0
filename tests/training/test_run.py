"""A run: its precision is that in which it began."""

from pathlib import Path

import pytest

from dsclora.errors import OutputError
from dsclora.training.run import Run


def test_a_resumed_run_goes_on_in_the_precision_in_which_it_began(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Run(tmp_path / "run", resume=False).precision("fp32") == "fp32"
    assert Run(tmp_path / "run", resume=True).precision("bf16") == "fp32"
    assert "goes on in fp32, in which it began" in caplog.messages[0]
    assert Run(tmp_path / "run", resume=False).precision("bf16") == "bf16"
    assert Run(tmp_path / "run", resume=True).precision("bf16") == "bf16"
    assert len(caplog.messages) == 1
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        Run(tmp_path / "file", resume=False).precision("fp32")
