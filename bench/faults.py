"""What faults cost: real clients paint on a real daemon with a real worker, while these are killed and cut off.

The same requests are run once before without faults. Counted are jobs that were lost, jobs that ended twice, and
results that differ; a restarted client knows what it did from its own record.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from endurance.clients import ClientProcess, Crowd
from endurance.faults import FAULTS, STALL_SECONDS, Site
from endurance.journal import Journal
from endurance.judge import Verdict, judge
from endurance.models import build
from endurance.plan import plan
from endurance.proxy import Proxy
from report import Figure, show
from underpaint_backend.launch import Launched, launched

JOURNAL_MIB = 4
LONGEST_WAIT = 2.5
"""Seconds between two faults while no job ends, as when the worker is starting."""
PATIENCE = 120.0
"""Seconds without any end of a job, after the last fault, until what has not ended counts as lost."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    jobs: int
    faults: int
    clients: int
    seed: int

    def share(self, number: int) -> int:
        """How many jobs one client has."""
        return self.jobs // self.clients + (number < self.jobs % self.clients)


def main() -> None:
    """Run both, judge and print; the exit code is 1 if anything was lost, doubled or changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="a folder that holds the tiny models already")
    parser.add_argument("--keep", type=Path, help="leave logs and records in this folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = Size(options.jobs, options.faults, options.clients, options.seed)
    with _folder(options.keep) as folder:
        models = options.models or folder / "models"
        if options.models is None:
            build(models)
        figure = asyncio.run(measure(size, folder, models))
    show(figure, options.json)
    sys.exit(figure.value > 0)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def measure(size: Size, folder: Path, models: Path) -> Figure:
    """The undisturbed run and the disturbed one."""
    words = ["--threads", "1", "--models", str(models), "--stall-seconds", str(STALL_SECONDS)]
    words += ["--journal-mib", str(JOURNAL_MIB)]
    began = time.monotonic()
    async with _site(size, folder / "disturbed", words) as (site, url):  # its worker starts meanwhile
        with launched(folder / "calm", *words) as daemon:
            calm = await _undisturbed(size, daemon, folder / "calm" / "records")
        middle = time.monotonic()
        journal = Journal(site.daemon.home / "journal.sqlite", JOURNAL_MIB << 20)
        await _disturbed(size, site, url)
        left = await asyncio.to_thread(journal.left)
        verdict = Verdict(twice=[f"journal: {job}" for job in await asyncio.to_thread(journal.ended_twice)])
        log = site.daemon.log.read_text(errors="replace")
    for client, before in zip(site.clients, calm, strict=True):
        jobs = plan(size.seed, client.number, size.share(client.number))
        judge(verdict, client.number, jobs, client.entries, before.entries)
        verdict.broke += [
            f"{client.number}: {log.strip().splitlines()[-1][:120]}" for log in client.broke if log.strip()
        ]
    seconds = {"undisturbed run, s": middle - began, "disturbed run, s": time.monotonic() - middle}
    rows = [*_rows(site, verdict, log), *_described("in the journal", {"running": left[0], "ended": left[1]})]
    rows += [*_described("duration", seconds), *_counts(verdict)]
    return Figure("faults", verdict.total, "jobs", "0", rows)


@contextlib.asynccontextmanager
async def _site(size: Size, home: Path, words: list[str]) -> AsyncIterator[tuple[Site, str]]:
    """A daemon behind a proxy, and the proxy's address; nothing of it is left afterwards."""
    with launched(home, *words) as daemon:
        journal = Journal(home / "journal.sqlite", JOURNAL_MIB << 20)
        journal.watch()
        proxy = Proxy(int(daemon.url.rpartition(":")[2]))
        server = await proxy.start()
        port = server.sockets[0].getsockname()[1]
        site = Site(daemon, words, proxy, journal)
        try:
            yield site, f"ws://127.0.0.1:{port}"
        finally:
            for client in site.clients:
                client.kill()
            server.close()
            await asyncio.to_thread(site.daemon.stop)


async def _undisturbed(size: Size, daemon: Launched, folder: Path) -> list[ClientProcess]:
    """The clients that did it. Raises `RuntimeError` if not every job was done."""
    crowd = Crowd(folder, daemon.token, size.seed, calm=True)
    clients = [crowd.client(number, size.share(number), daemon.url) for number in range(size.clients)]
    try:
        await _all_finished(clients)
    finally:
        for client in clients:
            client.kill()
    failed = [entry.detail for client in clients for entry in client.entries if entry.what == "failed"]
    if failed or _ended(clients) < size.jobs:
        raise RuntimeError(f"the undisturbed run did not do all jobs: {failed[:1]}")
    return clients


async def _disturbed(size: Size, site: Site, url: str) -> None:
    crowd = Crowd(site.daemon.home / "records", site.daemon.token, size.seed, calm=False)
    site.clients = [crowd.client(number, size.share(number), url) for number in range(size.clients)]
    for number in range(size.faults):
        await _wait_for(site, ended=number * size.jobs // (size.faults + 1), patience=LONGEST_WAIT)
        await site.strike(f"{size.seed} {number}")
    await site.calm_down()
    await _all_finished(site.clients)


async def _wait_for(site: Site, ended: int, patience: float) -> None:
    """Wait until that many jobs have ended, so that faults and jobs last equally long; but not for ever."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while True:
                if _ended(site.clients) >= ended:
                    return
                await asyncio.sleep(0.05)


def _ended(clients: list[ClientProcess]) -> int:
    return sum(client.follower.ended() for client in clients)


async def _all_finished(clients: list[ClientProcess]) -> None:
    """Wait until all have finished, or nothing has ended for long."""
    before, since = -1, time.monotonic()
    while any(client.lives for client in clients):
        now = _ended(clients)
        if now > before:
            before, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            return
        await asyncio.sleep(0.1)


def _rows(site: Site, verdict: Verdict, log: str) -> Iterator[dict[str, object]]:
    yield from _described("faults", {name: site.done[name] for name in FAULTS} | {"all": site.done.total()})
    yield from _described("jobs ended", dict(sorted(verdict.ends.items())) | {"all": verdict.ends.total()})
    seen = {name: count for name, count in sorted(verdict.seen.items()) if name.startswith(("refused", "error"))}
    seen["connections"] = verdict.seen["session"]
    seen["connections and tries lost"] = verdict.seen["lost"]
    seen["lives"] = verdict.seen["born"]
    seen["jobs started again"] = verdict.seen["started again"]
    seen["language broken"] = verdict.seen["broken"]
    seen["clients that broke"] = sum(len(client.broke) for client in site.clients)
    yield from _described("clients", seen)
    yield from _described("daemon's log", {"readers cut off": log.count("it is cut off"), "errors": _errors(log)})


def _errors(log: str) -> int:
    """Errors that it logged, but for those that say that a worker or the journal's room is gone."""
    lines = [line for line in log.splitlines() if " ERROR underpaint" in line]
    return sum("the worker ended" not in line and "journal_full" not in line for line in lines)


def _described(what: str, counts: dict[str, int] | dict[str, float]) -> Iterator[dict[str, object]]:
    for name, count in counts.items():
        yield {"what": what, "which": name, "count": round(count)}


def _counts(verdict: Verdict) -> Iterator[dict[str, object]]:
    """The three counts, each with the first of its jobs."""
    named = {"lost": verdict.lost, "ended twice": verdict.twice, "different": verdict.different, "broke": verdict.broke}
    for name, jobs in named.items():
        yield {"what": "jobs", "which": " ".join((name, *jobs[:3])) if jobs else name, "count": len(jobs)}


if __name__ == "__main__":
    main()
