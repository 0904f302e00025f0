"""The native kernel of dsclora: SPAN on a CPU. Used through `dsclora.engines.native`."""

from dsclora_native._native import Span, kernels

__all__ = ["Span", "kernels"]
