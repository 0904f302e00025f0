"""What the words of the command line mean: boxes, adapters with strengths, a model with adapters."""

from pathlib import Path
from typing import Any

from dsclora.errors import UsageError


def parse_box(text: str | None, option: str) -> tuple[int, int] | None:
    """Return (width, height) of `WIDTHxHEIGHT`."""
    if text is None:
        return None
    try:
        width, height = (int(part) for part in text.lower().split("x"))
        if min(width, height) < 1:
            raise ValueError
    except ValueError as error:
        raise UsageError(f"{option} takes WIDTHxHEIGHT, such as 1920x1080, not {text!r}") from error
    return width, height


def parse_adapters(texts: list[str]) -> list[tuple[Any, float]]:
    """Adapters, `FILE` or `FILE:STRENGTH`, with their strengths."""
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


def load_model(model: str | None, added: list[tuple[Any, float]], factor: float | None = None) -> Any:
    """A base (by default the one for the adapters or the factor) with adapters added."""
    from dsclora import zoo
    from dsclora.networks import adapter

    content = zoo.load(model or zoo.suited(factor, added[0][0] if added else None))
    return adapter.merge(content, added) if added else content
