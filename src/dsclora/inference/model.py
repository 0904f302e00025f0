"""A network with the engine that runs it, called on pictures of any kind."""

import os
import threading
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from dsclora import networks, zoo
from dsclora.engines import Engine, Setting
from dsclora.engines.choice import open_engine
from dsclora.inference.strips import Border, enlarge
from dsclora.networks import Network
from dsclora.networks import adapter as adapters
from dsclora.pictures import arrays

PathLike = str | os.PathLike[str]
PictureT = TypeVar("PictureT")


class Model:
    """A network with the engine that runs it.

    Calls are serialised, so a model may be shared by threads; a pickled model opens an engine of its own where it is
    loaded. The engine opens at the first call.

    Args:
        network: the weights, adapters merged in.
        setting: engine, precision, device and threads.

    Attributes:
        lock: to hold while calling `engine` directly; an engine takes one call at a time.
    """

    def __init__(self, network: Network, setting: Setting = Setting()) -> None:  # noqa: B008 (it is frozen)
        self.network = network
        self.setting = setting
        self._engine: Engine | None = None
        self.lock = threading.RLock()

    @property
    def name(self) -> str:
        """The name of the network, with those of its adapters."""
        return self.network.name

    @property
    def scale(self) -> int:
        """The factor that it enlarges by."""
        return self.network.scale

    @property
    def parameters(self) -> int:
        """The number of trained values."""
        return self.network.parameters

    @property
    def engine(self) -> Engine:
        """The engine, which is opened at the first use.

        Raises:
            EngineError, MissingExtraError: the runtime is missing, or cannot run this network.
        """
        with self.lock:
            if self._engine is None:
                self._engine = open_engine(self.network, self.setting)
            return self._engine

    @overload
    def __call__(
        self, picture: PathLike, *, border: Border = "reflect", tile: int | None = None
    ) -> npt.NDArray[Any]: ...

    @overload
    def __call__(
        self, picture: list[Any] | tuple[Any, ...], *, border: Border = "reflect", tile: int | None = None
    ) -> list[Any]: ...

    @overload
    def __call__(self, picture: PictureT, *, border: Border = "reflect", tile: int | None = None) -> PictureT: ...

    def __call__(self, picture: Any, *, border: Border = "reflect", tile: int | None = None) -> Any:
        """Enlarge a picture, or each picture of a list or a batch.

        Args:
            picture: any of these:

                - a path (`str` or `os.PathLike`): upright and in the file's own colours;
                - a PIL image;
                - a numpy array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): grey, RGB or RGBA, uint8, uint16, or float in
                  0..1, of any strides and byte order; with a leading axis it is a batch;
                - a torch tensor (1 | 3 | 4, h, w) or (N, 1 | 3 | 4, h, w), uint8, or float in 0..1, on any device;
                - a list or a tuple of these.
            border: how the picture goes on beyond its edges: "reflect", or "zero" for the network's own behaviour.
            tile: the largest window side in input pixels; smaller takes less memory, and the result is the same.

        Returns:
            the same kind, `scale` times as high and wide; of a path a numpy array (h, w, bands); of a list a list.

        Raises:
            TypeError: a kind of picture that is not taken; names what it got and what it takes.
            ValueError: a shape or a range that is not taken.
            ImageError: a file that cannot be read.
            EngineError, OutOfMemoryError: the runtime cannot enlarge it.
        """
        if isinstance(picture, list | tuple):
            return [self(one, border=border, tile=tile) for one in picture]
        if isinstance(picture, np.ndarray) and picture.ndim == 4 and len(picture):
            return np.stack([self(one, border=border, tile=tile) for one in picture])
        pixels, alpha = arrays.to_pixels(picture)
        with self.lock:
            large = [enlarge(self.engine, one, alpha=alpha, border=border, tile=tile) for one in pixels]
        return arrays.from_pixels(large, picture)

    def merge(self, adapter: "PathLike | adapters.Adapter", strength: float = 1.0) -> "Model":
        """Return the model with an adapter added to its weights: the same size and speed.

        Args:
            adapter: an adapter, a bundled one's name or a file.
            strength: a factor of its update: 1 as trained, 0 without effect.

        Raises:
            ModelError: an adapter of another base.
        """
        added = adapter if isinstance(adapter, adapters.Adapter) else zoo.load_adapter(os.fspath(adapter))
        merged = adapters.merge(self.network, [(added, strength)])
        return Model(merged, self.setting)

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the network, adapters merged in, as a model file.

        Raises:
            OutputError: the file exists and `overwrite` is false, or it cannot be written.
            ModelError: a network that has no model file.
        """
        networks.write_file(path, self.network, overwrite)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the engine and the lock behind: they belong to a process."""
        return {"network": self.network, "setting": self.setting}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the network and the setting, without an engine."""
        self.__init__(state["network"], state["setting"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"<dsclora.Model {self.name} x{self.scale}, {self.parameters:,} parameters>"
