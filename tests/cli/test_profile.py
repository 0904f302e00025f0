"""`dsclora profile`, as a user meets it."""

from pathlib import Path

import pytest

from helpers import dsclora_, parsed


@pytest.mark.slow
def test_profile(model_file: Path, tmp_path: Path) -> None:
    facts = parsed(dsclora_("profile", "--model", model_file, "--size", "24x16", "--runs", 2, "--json"))
    assert facts["latency_ms"] > 0
    assert {"parameters", "macs", "activations", "convs"} <= facts.keys()
    assert facts["flops"] == 2 * facts["macs"]
    text = dsclora_(
        "profile", "-m", model_file, "-m", "span-x2", "--size", "16x16", "--size", "24x16", "--runs", 1
    ).stdout
    assert text.count("random") == 2
    assert text.count("span-x2") == 2
