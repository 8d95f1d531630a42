"""From pictures as they travel to pixels for a layer. Runs in the network thread; `QImage` is at home in any thread."""

from __future__ import annotations

from typing import Optional

from .pixels import BAND, Buffer, KritaPixels, set_alpha, with_red_and_blue_swapped
from .qt import QtCore, QtGui


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


def converted(pixels: Buffer) -> KritaPixels:
    """A finished picture: red, green, blue and alpha as they come from the daemon."""
    return QtCore.QByteArray(with_red_and_blue_swapped(pixels))


def _scaled(jpeg: bytes, width: int, height: int) -> QtGui.QImage:
    # QImageReader would let go of Python's lock while it reads, but its QBuffer, which is half Python, asks for that
    # lock again while Qt holds the lock of its image plugins. If Krita's main thread waits for the latter, in a
    # QPixmap.save of any plugin, it is over. A preview is small: it is decoded with Python's lock held throughout.
    picture = QtGui.QImage.fromData(jpeg, "JPEG")
    if picture.isNull():
        raise ValueError("the preview is not a JPEG")
    # In memory, RGB32 is blue, green, red and 255. Its lines need no padding, as pixels of four bytes.
    scaled = QtGui.QImage(width, height, QtGui.QImage.Format.Format_RGB32)
    painter = QtGui.QPainter(scaled)
    painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform)
    rows = max(1, BAND // (4 * width))
    for top in range(0, height, rows):  # In bands, between which the main thread can have Python's lock.
        painter.setClipRect(0, top, width, rows)
        painter.drawImage(scaled.rect(), picture)
    painter.end()
    return scaled
