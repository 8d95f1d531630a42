"""Bytes of 8-bit pixels, rearranged at the speed of C: strided slices, no loop over pixels.

Krita keeps blue, green, red, alpha; the daemon speaks red, green, blue, alpha. Each function works in bands, because
one slice holds Python's lock as long as it takes, and Krita's main thread needs that lock.
"""

from __future__ import annotations

from typing import Any, Iterator, Union

Buffer = Union[bytes, bytearray, memoryview]
KritaPixels = Any
"""Blue, green, red, alpha, in an object that Krita takes without copying: a `QByteArray`."""

BAND = 1 << 20
"""Bytes that are rearranged in one go: well below a millisecond. A multiple of four."""


def with_red_and_blue_swapped(pixels: Buffer) -> bytearray:
    """Four-channel pixels with their first and third channel exchanged."""
    source, swapped = memoryview(pixels), bytearray(len(pixels))
    for band in _bands(len(swapped)):
        swapped[band] = source[band]
        first = slice(band.start, band.stop, 4)
        third = slice(band.start + 2, band.stop, 4)
        swapped[first], swapped[third] = swapped[third], swapped[first]
    return swapped


def set_alpha(pixels: bytearray, alpha: Buffer) -> None:
    """Put `alpha`, one byte per pixel, into the fourth channel of `pixels`.

    Raises `ValueError` if there are not as many of one as of the other.
    """
    if len(pixels) != 4 * len(alpha):
        raise ValueError(f"{len(alpha)} bytes of alpha do not fit {len(pixels) // 4} pixels")
    for band in _bands(len(pixels)):
        pixels[band.start + 3 : band.stop : 4] = alpha[band.start // 4 : band.stop // 4]


def _bands(length: int) -> Iterator[slice]:
    for start in range(0, length, BAND):
        yield slice(start, min(start + BAND, length))
