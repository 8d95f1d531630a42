"""From pictures as they travel to pixels for a layer. Runs in the network thread; `QImage` is at home in any thread."""

from __future__ import annotations

from typing import Optional

from .pixels import Buffer, KritaPixels, set_alpha, with_red_and_blue_swapped
from .qt import QtCore, QtGui

SMOOTH = 75
"""`QImageReader` scales smoothly at a quality of 50 or more."""


def developed(jpeg: bytes, width: int, height: int, mask: Optional[Buffer]) -> KritaPixels:
    """A preview as `width` x `height` pixels with straight alpha.

    `mask`, one byte per pixel, becomes the alpha; without one the pixels are opaque.
    Raises `ValueError` if `jpeg` is not a JPEG.
    """
    picture = _scaled(jpeg, width, height)
    memory = picture.constBits()
    memory.setsize(4 * width * height)
    pixels = bytearray(memory)
    if mask is not None:
        set_alpha(pixels, mask)
    return QtCore.QByteArray(pixels)


def converted(pixels: bytes) -> KritaPixels:
    """A finished picture: red, green, blue and alpha as they come from the daemon."""
    return QtCore.QByteArray(with_red_and_blue_swapped(pixels))


def _scaled(jpeg: bytes, width: int, height: int) -> QtGui.QImage:
    # Reading with a size makes Qt decode and scale in one call that lets go of Python's lock. QImage.loadFromData and
    # QImage.scaled hold it: 115 ms for a PNG of 2048 x 2048, in which Krita would stand still.
    source = QtCore.QBuffer()
    source.setData(QtCore.QByteArray(jpeg))
    source.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    reader = QtGui.QImageReader(source, b"jpeg")
    reader.setScaledSize(QtCore.QSize(width, height))
    reader.setQuality(SMOOTH)
    picture = reader.read()
    if picture.isNull():
        raise ValueError(f"the preview is not a JPEG: {reader.errorString()}")
    # In memory, RGB32 is blue, green, red and 255. Its lines need no padding, as pixels of four bytes.
    return picture.convertToFormat(QtGui.QImage.Format.Format_RGB32)
