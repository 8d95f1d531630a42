"""How fast and how small previews are: from the moment a step's prediction exists to the picture in the client's hands.

The daemon and its worker run as for everyone; both clocks are this machine's. The model is the built-in one, made to
work at 512 × 512 px, so that its previews are as large as Stable Diffusion's: 64 × 64.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from report import Figure, show
from underpaint_backend.client import Client, connect
from underpaint_backend.launch import launched
from underpaint_backend.models.catalog import DESCRIPTION, default_roots, find_models
from underpaint_protocol.messages import Preview, Request

SIDE = 512
STEPS = 20
MODEL = "primer-at-512"


def main() -> None:
    """Run jobs and print the median time and the largest size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        add_model(home / "models" / MODEL)
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


def add_model(folder: Path) -> None:
    """Make a folder that holds the built-in model under another description."""
    original = find_models(default_roots())["primer-inpaint"].folder
    folder.mkdir(parents=True)
    for part in original.iterdir():
        if part.name != DESCRIPTION:
            (folder / part.name).symlink_to(part)
    description = json.loads((original / DESCRIPTION).read_text(encoding="utf-8"))
    changed = {**description, "id": MODEL, "native_area": SIDE * SIDE}
    (folder / DESCRIPTION).write_text(json.dumps(changed), encoding="utf-8")


async def watch(url: str, token: str, jobs: int) -> list[tuple[float, int]]:
    """Seconds from prediction to arrival, and bytes, of every preview after a first job that warms up."""
    async with connect(url, token) as client:
        await previews_of(client, seed=0)
        return [seen for seed in range(1, jobs + 1) for seen in await previews_of(client, seed)]


async def previews_of(client: Client, seed: int) -> list[tuple[float, int]]:
    """Run one job and note each preview as it comes."""
    request = Request(
        model=MODEL, task="text_to_image", width=SIDE, height=SIDE, steps=STEPS, seed=seed, prompt="a red heart"
    )
    return [
        (time.time() - event.predicted_at, len(event.data))
        async for event in client.generate(request)
        if isinstance(event, Preview)
    ]


if __name__ == "__main__":
    main()
