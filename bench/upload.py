"""What travels when an artist paints on: all of a 4096 × 4096 px painting for the first job, little for the next.

The painting has a soft selection. Between two jobs there is one brush stroke, 200 px long and 20 px wide, anywhere and
in any direction. A proxy counts all bytes both ways, from the moment a job is submitted until the daemon has accepted
it; the job is cancelled then. Beside it, one whole PNG of the painting, as krita-ai-diffusion sends it for every job.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import http.server
import io
import itertools
import statistics
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from report import Figure, show
from underpaint_backend.launch import launched
from underpaint_protocol.downloads import Event
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import Accepted, Cancelled, Image, Request
from wire.counting import CountingProxy
from wire.painting import Canvas, painting, selection, some_stroke
from wire.shell import Shell, open_shell

SIDE = 4096
STROKE, BRUSH = 200, 20
"""Length and width of a stroke in px."""
PNG_LEVEL = 1
"""krita-ai-diffusion asks Qt for PNG at quality 85, and Qt makes zlib's level of it: (100 - 85) * 9 / 91, rounded
down. Pillow and Qt both hand the filtered rows to zlib."""
QT_LEVEL = 6
"""What Qt does when nobody asks for a quality."""
ENCODINGS = ("raw", "zlib")


@dataclass(frozen=True)
class Upload:
    """One job from its submission to its acceptance. `noticing` is the part of the seconds for cutting and hashing."""

    sent: int
    seconds: float
    noticing: float


@dataclass(frozen=True)
class Series:
    """All uploads with one encoding: the first job, one after each stroke, and one after nothing."""

    encoding: str
    first: Upload
    strokes: Sequence[Upload]
    unchanged: Upload

    @property
    def percents(self) -> list[float]:
        """Bytes after each stroke over those of the first job."""
        return [100 * upload.sent / self.first.sent for upload in self.strokes]


def main() -> None:
    """Upload with both encodings and print the larger median of bytes after a stroke over those of the first job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="px of the painting")
    parser.add_argument("--strokes", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    show(measure(arguments.side, arguments.strokes, arguments.seed), arguments.json)


def measure(side: int, strokes: int, seed: int) -> Figure:
    """Everything on one painting."""
    canvas, mask = painting(side, np.random.default_rng(seed)), selection(side)
    every = [asyncio.run(uploads(encoding, painted_on(canvas, strokes, seed), mask)) for encoding in ENCODINGS]
    rows = [row for series in every for row in rows_of(series)]
    rows += [
        png_row(canvas, level, who) for level, who in ((PNG_LEVEL, "krita-ai-diffusion"), (QT_LEVEL, "Qt's default"))
    ]
    rows += what_a_stroke_weighs(painted_on(canvas, strokes, seed), {one.encoding: one.first.sent for one in every})
    return Figure("upload", max(statistics.median(series.percents) for series in every), "%", "<= 1", rows)


def painted_on(canvas: Canvas, strokes: int, seed: int) -> Iterator[Canvas]:
    """The painting, and how it is after each stroke; the same ones every time."""
    random = np.random.default_rng(seed + 1)
    yield canvas
    for _ in range(strokes):
        canvas = canvas.copy()
        some_stroke(canvas, random, STROKE, BRUSH)
        yield canvas


async def uploads(encoding: str, canvases: Iterable[Canvas], mask: NDArray[np.uint8]) -> Series:
    """Submit every canvas in turn to a new daemon, and the last one twice."""
    with (
        tempfile.TemporaryDirectory() as home,
        launched(Path(home), "--threads", "1") as daemon,
        CountingProxy(daemon.url) as proxy,
    ):
        async with open_shell(proxy.url, daemon.token, (encoding, "raw")) as shell:
            every: list[Upload] = []
            for canvas in canvases:
                every.append(await upload(shell, proxy, f"job-{len(every)}", canvas, mask))
            unchanged = await upload(shell, proxy, f"job-{len(every)}", canvas, mask)
    return Series(encoding, every[0], every[1:], unchanged)


async def upload(shell: Shell, proxy: CountingProxy, job: str, canvas: Canvas, mask: NDArray[np.uint8]) -> Upload:
    """Submit one job, and cancel it once it is accepted."""
    side, pixels, selection_pixels = len(canvas), canvas.tobytes(), mask.tobytes()
    await shell.settle()
    before, began = proxy.total, time.perf_counter()
    image, tiles = image_of(side, side, 4, pixels)
    selected, more = image_of(side, side, 1, selection_pixels)
    noticing = time.perf_counter() - began
    shell.session.submit(job, request_for(image, selected), {**tiles, **more}, previews=False)
    await shell.until(Accepted)
    seconds, sent = time.perf_counter() - began, proxy.total - before
    shell.session.cancel(job)
    ended: type[Event] = Cancelled
    await shell.until(ended)
    shell.session.acknowledge(job)
    return Upload(sent, seconds, noticing)


def request_for(image: Image, mask: Image) -> Request:
    """What would be painted if it were not cancelled."""
    return Request(
        model="primer-inpaint",
        task="inpaint",
        width=image.width,
        height=image.height,
        prompt="a red heart",
        steps=1000,
        image=image,
        mask=mask,
    )


def rows_of(series: Series) -> list[dict[str, object]]:
    """The first job, those after a stroke, and the one after nothing."""
    percents, times = series.percents, [upload.seconds for upload in series.strokes]
    middle = statistics.median(upload.sent for upload in series.strokes)
    worst = max(series.strokes, key=lambda upload: upload.sent)
    return [
        row(f"{series.encoding}: first job", series.first.sent, 100.0, series.first.seconds),
        row("  of that, cutting and hashing", "", "", series.first.noticing),
        row(
            f"  after a stroke, median of {len(percents)}",
            middle,
            statistics.median(percents),
            statistics.median(times),
        ),
        row("  after a stroke, the worst", worst.sent, max(percents), worst.seconds),
        row(
            "  nothing changed",
            series.unchanged.sent,
            100 * series.unchanged.sent / series.first.sent,
            series.unchanged.seconds,
        ),
    ]


def row(what: str, sent: object, percent: object, seconds: float) -> dict[str, object]:
    """A row of the table. `sent` is in bytes."""
    mebibytes = sent / 2**20 if isinstance(sent, (int, float)) else sent
    return {"what": what, "MiB both ways": mebibytes, "% of the first": percent, "s": seconds}


# Others


def png_row(canvas: Canvas, level: int, who: str) -> dict[str, object]:
    """One whole PNG: its size, and the seconds to encode it, send it by HTTP over loopback, and be answered."""
    began = time.perf_counter()
    file = io.BytesIO()
    Picture.fromarray(canvas).save(file, "PNG", compress_level=level)
    encoded = time.perf_counter() - began
    sent = put(file.getvalue())
    return row(f"one whole PNG, zlib {level} ({who}), every time", len(file.getvalue()), "", encoded + sent)


def put(body: bytes) -> float:
    """Seconds to send a body to a server in another thread."""

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *words: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        client = http.client.HTTPConnection("127.0.0.1", server.server_port)
        began = time.perf_counter()
        client.request("PUT", "/image", body)
        client.getresponse().read()
        client.close()
        return time.perf_counter() - began


def what_a_stroke_weighs(canvases: Iterable[Canvas], firsts: Mapping[str, int]) -> list[dict[str, object]]:
    """Bytes of the pixels alone, if each tile that changed travelled whole, or as what changed since the job before.

    `firsts` are the bytes of the first job with each encoding.
    """
    ways: dict[str, tuple[str, Callable[[Canvas, Canvas], bytes]]] = {
        "whole tiles, raw": ("raw", lambda before, after: after.tobytes()),
        "whole tiles, zlib": ("zlib", lambda before, after: zlib.compress(after.tobytes(), 1)),
        "zlib of xor with the tile before": (
            "zlib",
            lambda before, after: zlib.compress(np.bitwise_xor(before, after).tobytes(), 1),
        ),
    }
    sizes: dict[str, list[int]] = {name: [] for name in ways}
    for before, after in itertools.pairwise(canvases):
        places = changed_places(before, after)
        for name, (_, pack) in ways.items():
            sizes[name].append(sum(len(pack(before[place], after[place])) for place in places))
    return [
        weight_row(f"pixels of a stroke, {kind}: {name}", choose(sizes[name]), firsts[encoding])
        for name, (encoding, _) in ways.items()
        for kind, choose in (("median", statistics.median), ("worst", max))
    ]


def weight_row(what: str, size: float, first: int) -> dict[str, object]:
    """A row without a time."""
    return {"what": what, "MiB both ways": size / 2**20, "% of the first": 100 * size / first, "s": ""}


def changed_places(before: Canvas, after: Canvas) -> list[tuple[slice, slice]]:
    """The tiles that a stroke touched."""
    grid = [slice(start, start + 256) for start in range(0, len(before), 256)]
    return [
        (down, right) for down in grid for right in grid if not np.array_equal(before[down, right], after[down, right])
    ]


if __name__ == "__main__":
    main()
