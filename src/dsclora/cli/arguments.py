"""Meaning of the words of the command line: boxes, adapters with strengths, a network with adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsclora.errors import UsageError

if TYPE_CHECKING:
    from dsclora.networks.adapter import Adapter
    from dsclora.networks.span import SpanNetwork


def parse_box(text: str, option: str) -> tuple[int, int]:
    """Return (width, height) of `WIDTHxHEIGHT`.

    Raises:
        UsageError: it is something else; names the option.
    """
    try:
        width, height = (int(part) for part in text.lower().split("x"))
        if min(width, height) < 1:
            raise ValueError
    except ValueError as error:
        raise UsageError(f"{option} takes WIDTHxHEIGHT, such as 1920x1080, not {text!r}") from error
    return width, height


def parse_adapters(texts: Sequence[str]) -> "list[tuple[Adapter, float]]":
    """Load adapters, each `FILE` or `FILE:STRENGTH`, with their strengths.

    Raises:
        UsageError: a strength is not a number, or absurd.
        ModelError: an adapter is refused.
    """
    from dsclora import zoo

    parsed = []
    for text in texts:
        name, strength = text, 1.0
        head, colon, tail = text.rpartition(":")
        if colon and not Path(text).exists():
            try:
                name, strength = head, float(tail)
            except ValueError as error:
                raise UsageError(f"an adapter is FILE or FILE:STRENGTH, not {text!r}") from error
            if not abs(strength) <= 100:
                raise UsageError(f"{text}: a strength of {strength:g} makes no sense; 1 is as trained")
        parsed.append((zoo.load_adapter(name), strength))
    return parsed


def is_adapter_name(model: str) -> bool:
    """Return whether what is given as a model is a bundled adapter's name, with a strength or without."""
    from dsclora import zoo

    return model.partition(":")[0] in zoo.adapter_names()


def load_network(
    model: str | None, adapters: Sequence[str] | None, factor: float | None = None
) -> "tuple[SpanNetwork, list[Adapter]]":
    """Load a base with adapters added.

    Args:
        model: a bundled model's name or a file; or a bundled adapter's name, which is then added to its base. By
            default the base is the one for the adapters or the factor.
        adapters: each FILE or FILE:STRENGTH.
        factor: of the enlargement, if it is known.

    Returns:
        The network, and the adapters that are in it.

    Raises:
        UsageError, ModelError: as `parse_adapters`; the model is refused, or an adapter is of another base.
    """
    from dsclora import zoo
    from dsclora.networks import adapter

    texts, base_name = list(adapters or []), model
    if model is not None and is_adapter_name(model):
        texts, base_name = [model, *texts], None
    added = parse_adapters(texts)
    base = zoo.load(base_name or zoo.suited(factor, added[0][0] if added else None))
    return (adapter.merge(base, added) if added else base), [each for each, _ in added]
