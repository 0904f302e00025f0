"""Feed strips of rows to libvips as an uncompressed PNG stream."""

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyvips

from dsclora.pictures.arrays import Pixels
from dsclora.pictures.read import Picture


class PngStream:
    """A PNG without compression, made of strips, which libvips decodes as it comes.

    PNG is the one format that every libvips build streams in without seeking, with any mix of grey, colour, alpha,
    8 and 16 bits; stored deflate blocks cost a copy and two checksums.
    """

    def __init__(self, strips: Iterable[Pixels], width: int, height: int, like: Picture) -> None:
        self.error: BaseException | None = None
        self._chunks = self._encode(strips, width, height, like)
        self._rest = memoryview(b"")
        self._source = pyvips.SourceCustom()
        self._source.on_read(self._read)

    def image(self) -> pyvips.Image:
        """Open the stream as a sequential libvips image."""
        return pyvips.Image.pngload_source(self._source, access="sequential", unlimited=True, fail_on="truncated")

    def _read(self, size: int) -> bytes:
        # an exception must not cross libvips: it is kept, and the stream ends early, which libvips reports
        while not self._rest and self.error is None:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001
                self.error = error
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)

    @staticmethod
    def _encode(strips: Iterable[Pixels], width: int, height: int, like: Picture) -> Iterator[bytes]:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))

        colour_type = {(1, False): 0, (3, False): 2, (2, True): 4, (4, True): 6}[like.bands, like.alpha]
        bits = like.dtype.itemsize * 8
        yield b"\x89PNG\r\n\x1a\n"
        yield chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
        deflate = zlib.compressobj(0)
        total = 0
        for strip in strips:
            for part in np.array_split(strip, min(len(strip), 1 + strip.nbytes // 2**22)):  # bounds the copies
                flat = part.astype(part.dtype.newbyteorder(">")).reshape(len(part), -1).view(np.uint8)
                rows = np.zeros((len(part), 1 + flat.shape[1]), np.uint8)  # a leading 0: no filter
                rows[:, 1:] = flat
                data = deflate.compress(rows.tobytes())
                if data:
                    yield chunk(b"IDAT", data)
            total += len(strip)
            del strip, part, rows, flat, data  # free it before the next strip is made
        if total != height:
            raise ValueError(f"strips hold {total} rows, expected {height}")
        yield chunk(b"IDAT", deflate.flush())
        yield chunk(b"IEND", b"")
