"""A list of prompts to a folder of PNGs.

    python examples/batch.py prompts.txt pictures/

Each line of the list is a prompt; `pictures/001.png` is the first one's. What is there already is not painted again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import underpaint
from PIL import Image

AT_ONCE = 8
"""Pictures that wait and are painted at the same time; the daemon's limit is higher."""


async def paint_all(prompts: list[str], arguments: argparse.Namespace) -> None:
    """Paint what is missing. Raises an `ExceptionGroup` of `Refused` if the daemon cannot."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with underpaint.connect(arguments.url, client="batch") as client, asyncio.TaskGroup() as jobs:
        for number, prompt in enumerate(prompts, start=1):
            path = arguments.folder / f"{number:03}.png"
            if prompt and not path.exists():
                jobs.create_task(paint(client, prompt, path, arguments, turns))


async def paint(
    client: underpaint.Client, prompt: str, path: Path, arguments: argparse.Namespace, turns: asyncio.Semaphore
) -> None:
    """Paint one picture when it is its turn."""
    side = arguments.side
    request = underpaint.Request(arguments.model, "text_to_image", side, side, prompt=prompt, seed=arguments.seed)
    async with turns:
        (picture,) = await client.paint(request)
    Image.frombytes("RGBA", (picture.width, picture.height), bytes(picture.pixels)).save(path)
    print(f"{path}: {prompt}", flush=True)


def main() -> int:
    """Read the command line; the exit code is 1 if a picture could not be painted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="a text file with a prompt in each line")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--url", default="ws://127.0.0.1:8738", help="the daemon (default: %(default)s)")
    parser.add_argument("--model", default="primer-inpaint")
    parser.add_argument("--side", type=int, default=256, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        prompts = [line.strip() for line in arguments.prompts.read_text(encoding="utf-8").splitlines()]
        arguments.folder.mkdir(parents=True, exist_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    return_code = 0
    try:
        asyncio.run(paint_all(prompts, arguments))
    except* underpaint.Refused as refused:
        print(refused.exceptions[0], file=sys.stderr)
        return_code = 1
    return return_code


if __name__ == "__main__":
    sys.exit(main())
