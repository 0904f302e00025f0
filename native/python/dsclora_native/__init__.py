"""The native kernel of dsclora: SPAN on a CPU. Used through `dsclora.engines.native`."""

from dsclora_native._native import Span, fold, kernels

__all__ = ["Span", "fold", "kernels"]
