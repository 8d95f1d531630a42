"""How fast and how small previews are: from the moment a step's prediction exists to the picture in the client's hands.

The daemon and its worker run as for everyone; both clocks are this machine's. A model that works at 512 × 512 px is
used, with random weights and a small UNet: what is measured begins where the UNet ends.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from report import Figure, show
from tiny_model import write_model
from underpaint_backend.client import Client, connect
from underpaint_backend.launch import launched
from underpaint_protocol.messages import Preview, Request

SIDE = 512
STEPS = 25


def main() -> None:
    """Run jobs and print the median time and the largest size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_model(home / "models" / "tiny", native_area=SIDE * SIDE)
        with launched(home) as daemon:
            seen = asyncio.run(watch(daemon.url, daemon.token, arguments.jobs))
    delays = [1000 * delay for delay, _ in seen]
    sizes = [size for _, size in seen]
    rows = [
        {"what": "previews", "median": len(seen), "worst": ""},
        {"what": "prediction to client, ms", "median": statistics.median(delays), "worst": max(delays)},
        {"what": "size, bytes (goal <= 6144)", "median": statistics.median(sizes), "worst": max(sizes)},
    ]
    show(Figure("preview", statistics.median(delays), "ms", "<= 10", rows), arguments.json)


async def watch(url: str, token: str, jobs: int) -> list[tuple[float, int]]:
    """Seconds from prediction to arrival, and bytes, of every preview after a first job that warms up."""
    async with connect(url, token) as client:
        await previews_of(client, seed=0)
        return [seen for seed in range(1, jobs + 1) for seen in await previews_of(client, seed)]


async def previews_of(client: Client, seed: int) -> list[tuple[float, int]]:
    """Run one job and note each preview as it comes."""
    request = Request(model="tiny", task="text_to_image", width=SIDE, height=SIDE, steps=STEPS, seed=seed, prompt="sky")
    return [
        (time.time() - event.predicted_at, len(event.data))
        async for event in client.generate(request)
        if isinstance(event, Preview)
    ]


if __name__ == "__main__":
    main()
