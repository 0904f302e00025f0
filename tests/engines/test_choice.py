"""Which runtime runs a network: what is here, what fits it, and what is said where nothing does."""

from typing import Any

import pytest
import torch

from dsclora.engines import Setting, choice
from dsclora.engines.choice import RUNTIMES, Runtime, bf16_on_cpu, choose, open_engines
from dsclora.errors import EngineError, MissingExtraError
from dsclora.networks import span_torch
from dsclora.networks.span import SpanNetwork
from helpers import CPU_FLAGS, random_model
from helpers_networks import tiny_network


def test_a_network_that_only_other_runtimes_run() -> None:
    network = tiny_network(3)
    assert choose(Setting(), network).name == "openvino"
    assert choose(Setting(), random_model(), network).name == "openvino"
    with pytest.raises(
        EngineError, match="engine native does not run tiny, which is of the kind 'tiny'; leave out --e"
    ):
        choose(Setting("native"), network)


@pytest.mark.skipif(not CPU_FLAGS, reason="the system does not tell what the processor has")
def test_bf16_is_what_the_processor_says() -> None:
    assert bf16_on_cpu() == bool(CPU_FLAGS & {"avx512_bf16", "amx_bf16", "avx_ne_convert"})
    assert span_torch.resolve_precision("auto", torch.device("cpu")) == (
        "bf16" if "avx512_bf16" in CPU_FLAGS else "fp32"
    )


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose().name == ("native" if RUNTIMES[0].usable else "openvino")
    monkeypatch.setattr(choice, "bf16_on_cpu", lambda: True)
    assert choose(Setting(precision="bf16")).name == "openvino"
    monkeypatch.setattr(choice, "bf16_on_cpu", lambda: False)
    for name in ("auto", "openvino"):
        with pytest.raises(EngineError, match="does not compute in bf16 on this processor"):
            choose(Setting(name, "bf16"))
    assert choose(Setting("torch", "bf16")).name == "torch"
    assert choose(Setting(device="cuda")).name == "torch"
    assert choose(Setting(), random_model(8)).name == "openvino"
    with pytest.raises(EngineError, match="engine native enlarges 4 times at most, this network 8 times"):
        choose(Setting("native"), random_model(8))
    with pytest.raises(EngineError, match="unknown engine"):
        choose(Setting("tensorrt"))
    with pytest.raises(EngineError, match="unknown device"):
        choose(Setting(device="tpu"))
    with pytest.raises(EngineError, match="does not run on cuda"):
        choose(Setting("openvino", device="cuda"))
    monkeypatch.setattr(Runtime, "usable", property(lambda runtime: runtime.name != "native"))
    assert choose().name == "openvino"
    monkeypatch.setattr(Runtime, "installed", property(lambda runtime: True))
    with pytest.raises(EngineError, match="cannot run on this processor"):
        choose(Setting("native"))


def test_threads_are_shared_out_whole(monkeypatch: pytest.MonkeyPatch, model: SpanNetwork) -> None:
    monkeypatch.setattr(choice, "choose", lambda *_: RUNTIMES[0])
    monkeypatch.setattr(choice, "open_engine", lambda _, setting: setting.threads)
    shared_out: Any = open_engines
    assert shared_out(model, 9, Setting(threads=7)) == [2, 2, 2, 1]
    assert shared_out(model, 9, Setting(threads=2)) == [1, 1]
    assert shared_out(model, 1, Setting(threads=7)) == [7]


def test_a_missing_runtime_is_one_line_with_its_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dsclora\[ort\]'"):
        choose(Setting("onnxruntime"))
    with pytest.raises(MissingExtraError, match="pip install dsclora"):
        choose()
    with pytest.raises(MissingExtraError, match=r"pip install \./native"):
        choose(Setting("native"))
