"""A client from SPEC.md alone: sockets and bytes, as one would write it in a language that has nothing else.

    python examples/raw_bytes.py out.png "a red circle"

It paints into the middle of a grey canvas and writes the layer that comes back. Nothing of Underpaint is imported, nor
anything that is not in Python's standard library. It leaves out what a small client can leave out: it does not come
back after a lost connection, and asks for no previews.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 320, 280
X, Y = 200, 100  # where on the canvas it lies, which decides how it is cut
GRID = 256


# msgpack, as much of it as the language uses


def pack(value: Any) -> bytes:
    """A value as msgpack, with the length of whatever has one in 32 bits."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return b"\xcf" + value.to_bytes(8, "big")
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(pack(item) for item in value)
    pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
    return b"\xdf" + struct.pack(">I", len(value)) + pairs


FIXED = {0xC0: None, 0xC2: False, 0xC3: True}
NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
SIZED = {0xC4: (bytes, 1), 0xC5: (bytes, 2), 0xC6: (bytes, 4), 0xD9: (str, 1), 0xDA: (str, 2), 0xDB: (str, 4)}
SIZED |= {0xDC: (list, 2), 0xDD: (list, 4), 0xDE: (dict, 2), 0xDF: (dict, 4)}


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """The value that begins at `at`, and where the next one begins."""
    code, at = data[at], at + 1
    if code <= 0x7F or code >= 0xE0:
        return (code if code <= 0x7F else code - 256), at
    if code in FIXED:
        return FIXED[code], at
    if code in NUMBERS:
        end = at + struct.calcsize(NUMBERS[code])
        return struct.unpack(NUMBERS[code], data[at:end])[0], end
    kind: type
    if code <= 0xBF:
        kind, count = (dict, code & 15) if code <= 0x8F else (list, code & 15) if code <= 0x9F else (str, code & 31)
    else:
        kind, size = SIZED[code]
        count, at = int.from_bytes(data[at : at + size], "big"), at + size
    if kind in (bytes, str):
        raw = data[at : at + count]
        return (raw if kind is bytes else raw.decode()), at + count
    items = []
    for _ in range(count * 2 if kind is dict else count):
        item, at = unpack(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind is dict else items), at


# A websocket


class Connection:
    """One message in, one message out."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=120)
        self._input = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET / HTTP/1.1",
            f"Host: {host}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: underpaint.v1",
            f"Authorization: Bearer {token}",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b"".join(iter(self._input.readline, b"\r\n"))
        if not head.startswith(b"HTTP/1.1 101"):
            raise SystemExit(f"refused: {head.decode()}")

    def send(self, **message: Any) -> None:
        """Send one message."""
        self._send_frame(0x82, pack(message))

    def receive(self) -> dict[str, Any]:
        """The next message; pings are answered on the way."""
        parts = b""
        while True:
            first, second = self._input.read(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(self._input.read(2 if length == 126 else 8), "big")
            data = self._input.read(length)
            if first & 0x0F == 0x8:
                raise SystemExit(f"closed: {int.from_bytes(data[:2], 'big')} {data[2:].decode()}")
            if first & 0x0F == 0x9:
                self._send_frame(0x8A, data)
            elif first & 0x0F in (0x0, 0x2):
                parts += data
                if first & 0x80:
                    message: dict[str, Any] = unpack(parts)[0]
                    return message

    def close(self) -> None:
        """Say goodbye, and wait for the other side to."""
        self._send_frame(0x88, struct.pack(">H", 1000))
        self._input.read()
        self._input.close()
        self._socket.close()

    def _send_frame(self, first: int, data: bytes) -> None:
        mask = os.urandom(4)
        stream = mask * (len(data) // 4 + 1)
        masked = int.from_bytes(data, "big") ^ int.from_bytes(stream[: len(data)], "big")
        length = len(data)
        head = bytes([first, 0x80 | min(length, 127)])
        if length < 126:
            size = b""
        elif length < 1 << 16:
            head, size = bytes([first, 0x80 | 126]), struct.pack(">H", length)
        else:
            head, size = bytes([first, 0x80 | 127]), struct.pack(">Q", length)
        self._socket.sendall(head + size + mask + masked.to_bytes(length, "big"))


# Tiles


def cells(x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each cell of the grid under a picture, in pixels of the picture, row by row."""
    xs = sorted({0, width, *range(GRID - x % GRID, width, GRID)})
    ys = sorted({0, height, *range(GRID - y % GRID, height, GRID)})
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            yield left, top, right, bottom


def cut(pixels: bytes, channels: int) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """The `image` of the pixels, and its tiles by name."""
    names, tiles, stride = b"", {}, WIDTH * channels
    for left, top, right, bottom in cells(X, Y, WIDTH, HEIGHT):
        rows = (pixels[row * stride + left * channels : row * stride + right * channels] for row in range(top, bottom))
        tile = b"".join(rows)
        name = hashlib.sha256(tile).digest()[:16]
        names += name
        tiles[name] = tile
    return {"width": WIDTH, "height": HEIGHT, "channels": channels, "tiles": names, "x": X, "y": Y}, tiles


def join(image: dict[str, Any], tiles: dict[bytes, bytes]) -> bytes:
    """The pixels of an RGBA `image`."""
    width, height = image["width"], image["height"]
    pixels = bytearray(width * height * 4)
    for number, (left, top, right, bottom) in enumerate(cells(image["x"], image["y"], width, height)):
        tile, row = tiles[image["tiles"][16 * number : 16 * number + 16]], (right - left) * 4
        for line in range(bottom - top):
            start = ((top + line) * width + left) * 4
            pixels[start : start + row] = tile[line * row : (line + 1) * row]
    return bytes(pixels)


# The conversation


def paint(connection: Connection, prompt: str) -> bytes:
    """Have a picture painted and return its pixels, RGBA."""
    connection.send(type="hello", client="raw bytes")
    model = connection.receive()["models"][0]["id"]
    image, tiles = cut(bytes([128, 128, 128, 255]) * (WIDTH * HEIGHT), 4)
    inside = (80 <= x < 240 and 60 <= y < 220 for y in range(HEIGHT) for x in range(WIDTH))
    mask, more = cut(bytes(255 if chosen else 0 for chosen in inside), 1)
    tiles |= more
    request = {"model": model, "task": "inpaint", "width": WIDTH, "height": HEIGHT, "prompt": prompt}
    submit = {
        "type": "submit",
        "job": "picture",
        "previews": False,
        "request": {**request, "image": image, "mask": mask},
    }
    connection.send(type="have", query=1, tiles=b"".join(tiles))
    result: dict[str, Any] = {}
    came: dict[bytes, bytes] = {}
    ended = False
    while not (ended and len(came) == len(wanted(result))):
        message = connection.receive()
        kind = message["type"]
        if kind == "missing":
            for start in range(0, len(message["tiles"]), 16):
                name = message["tiles"][start : start + 16]
                connection.send(type="tile", name=name, size=len(tiles[name]), data=tiles[name])
            connection.send(**submit)
        elif kind == "progress":
            print(f"{message['phase']} {message['fraction']:.0%}", file=sys.stderr)
        elif kind == "result":
            result = message["image"]
            connection.send(type="fetch", job="picture", tiles=b"".join(wanted(result)))
        elif kind == "tile":
            came[message["name"]] = message["data"]  # raw, because our `hello` named no other encoding
        elif kind in ("failed", "cancelled", "error"):
            raise SystemExit(message.get("error", {}).get("message", kind))
        ended = ended or kind == "done"
    connection.send(type="acknowledge", job="picture")
    return join(result, came)


def wanted(image: dict[str, Any]) -> list[bytes]:
    """The names of an image's tiles, each once."""
    names = image.get("tiles", b"")
    return list(dict.fromkeys(names[start : start + 16] for start in range(0, len(names), 16)))


def png(pixels: bytes) -> bytes:
    """RGBA pixels as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[row * WIDTH * 4 : (row + 1) * WIDTH * 4] for row in range(HEIGHT))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main() -> None:
    """Paint with the daemon of this machine, whose token lies in its data folder."""
    match sys.argv[1:]:
        case [path, prompt]:
            port = 8738
        case [path, prompt, word] if word.isdecimal():
            port = int(word)
        case _:
            raise SystemExit("usage: raw_bytes.py FILE.png PROMPT [PORT]")
    home = os.environ.get("UNDERPAINT_HOME") or os.path.expanduser("~/.local/share/underpaint")
    try:
        connection = Connection("127.0.0.1", port, Path(home, "token").read_text().strip())
        Path(path).write_bytes(png(paint(connection, prompt)))
    except (OSError, OverflowError) as error:  # no daemon at this port, no token, or a folder that is not there
        raise SystemExit(f"raw_bytes.py: {error}") from None
    connection.close()


if __name__ == "__main__":
    main()
