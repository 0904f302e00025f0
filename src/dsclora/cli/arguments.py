"""Read the words of the command line: boxes, and networks with adapters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsclora.errors import UsageError

if TYPE_CHECKING:
    from dsclora.networks import Network
    from dsclora.networks.adapter import Adapter


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


def load_network(
    model: str | None, adapters: Sequence[str] | None, factor: float | None = None
) -> "tuple[Network, list[Adapter]]":
    """Load a base with adapters added.

    Args:
        model: as `zoo.load_adapted`.
        adapters: each a name or a file, or with `:STRENGTH`.
        factor: the factor of the enlargement, if it is known.

    Returns:
        The network, and the adapters that are in it.

    Raises:
        UsageError, ModelError: as `zoo.parse_adapter`; the model is refused, or an adapter is of another base.
    """
    from dsclora import zoo

    name, added = zoo.split_adapter(model, [zoo.parse_adapter(text) for text in adapters or []])
    return zoo.load_adapted(name, added, factor), [adapter for adapter, _ in added]
