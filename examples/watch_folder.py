"""Paints into pictures that appear in a folder, and puts the results beside them.

    python examples/watch_folder.py folder/ --prompt "a red heart"

`photo.jpg` is painted when `photo.mask.png` is there too (white is painted, black stays), with the words in
`photo.txt` if there are any; put the mask there last. The result is `photo.painted.png`. The daemon may be restarted
meanwhile, and so may this program: the id of its session lies in `folder/.underpaint`, and with it, it goes on with
jobs that it had submitted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import underpaint
from underpaint.pictures import BadPicture, Order, inpainting, lay_over, open_picture

AT_ONCE = 8
"""Pictures that wait or are painted at the same time."""
DAY = 24 * 3600.0
"""Seconds for which a daemon may be away."""


@dataclass(frozen=True)
class Task:
    """One picture with its mask."""

    photo: Path
    mask: Path
    prompt: str
    changed: tuple[int, ...]
    """When the files were, so that one that was copied only half is tried again."""

    @property
    def result(self) -> Path:
        return self.photo.with_name(f"{self.photo.stem}.painted.png")

    @property
    def job(self) -> str:
        """An id by which the next run of this program knows the same files again."""
        words = f"{self.photo.resolve()}\n{self.changed}\n{self.prompt}"
        return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()

    def order(self, model: str) -> Order:
        """What to ask for. Raises `BadPicture`."""
        canvas, mask = open_picture(self.photo, "RGBA"), open_picture(self.mask, "L")
        settings = underpaint.Request(model, "inpaint", canvas.width, canvas.height, prompt=self.prompt)
        return inpainting(settings, canvas, mask)


def tasks_in(folder: Path, prompt: str) -> list[Task]:
    """What is there and has no result yet."""
    tasks = []
    for mask in sorted(folder.glob("*.mask.png")):
        name = mask.name.removesuffix(".mask.png")
        words = folder / f"{name}.txt"
        said = words.read_text(encoding="utf-8").strip() if words.exists() else prompt
        for photo in (folder / f"{name}{suffix}" for suffix in (".png", ".jpg", ".jpeg", ".webp")):
            if photo.exists():
                changed = tuple(path.stat().st_mtime_ns for path in (photo, mask))
                tasks.append(Task(photo, mask, said, changed))
    return [task for task in tasks if not task.result.exists()]


async def paint(client: underpaint.Client, task: Task, model: str) -> bool:
    """Have one picture painted, or go on with the job of an earlier run, and save it before the daemon forgets it.

    True if it was refused for the moment only.
    """
    try:
        order, job = task.order(model), task.job
    except BadPicture as error:
        print(error, file=sys.stderr, flush=True)
        return False
    again = False
    if job not in client.open:
        client.submit(order.request, order.tiles, job=job, previews=False)
    async for event in client.follow(job):
        if isinstance(event, underpaint.Picture):
            draft = task.result.with_suffix(".part")
            lay_over(open_picture(task.photo, "RGBA"), event, order.box).save(draft, "PNG")
            draft.replace(task.result)
            print(task.result, flush=True)
        elif isinstance(event, (underpaint.Failed, underpaint.Error)):
            print(f"{task.photo}: {event.error.message}", file=sys.stderr, flush=True)
            again = isinstance(event, underpaint.Error) and event.error.retryable
    return again


async def watch(client: underpaint.Client, arguments: argparse.Namespace) -> None:
    """Paint what is in the folder, and then what comes. A picture that failed is tried again when its files change."""
    seen: set[Task] = set()
    window = asyncio.Semaphore(AT_ONCE)

    async def attempt(task: Task) -> None:
        async with window:
            if await paint(client, task, arguments.model):
                seen.discard(task)

    async with asyncio.TaskGroup() as jobs:
        while True:
            for task in tasks_in(arguments.folder, arguments.prompt):
                if task not in seen:
                    seen.add(task)
                    jobs.create_task(attempt(task))
            if arguments.once:
                return
            await asyncio.sleep(arguments.interval)


async def run(arguments: argparse.Namespace) -> None:
    """Go on with the session of an earlier run, if there was one."""
    memory = arguments.folder / ".underpaint"
    session = memory.read_text().strip() if memory.exists() else None
    async with underpaint.connect(arguments.url, client="watch_folder", session=session, patience=DAY) as client:
        memory.write_text(client.session)
        await watch(client, arguments)


def main() -> int:
    """Read the command line; the exit code is 1 if the daemon cannot be reached or refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", default="", help="for pictures without a text file")
    parser.add_argument("--url", default="ws://127.0.0.1:8738", help="the daemon (default: %(default)s)")
    parser.add_argument("--model", default="primer-inpaint")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two looks at the folder")
    parser.add_argument("--once", action="store_true", help="paint what is there, and end")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"there is no folder {arguments.folder}")
    return_code = 0
    try:
        asyncio.run(run(arguments))
    except* underpaint.Refused as refused:
        print(refused.exceptions[0], file=sys.stderr)
        return_code = 1
    except* KeyboardInterrupt:
        pass
    return return_code


if __name__ == "__main__":
    sys.exit(main())
