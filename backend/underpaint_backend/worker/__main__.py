"""`python -P -m underpaint_backend.worker`: a worker that talks over its standard input and output."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import BinaryIO, NoReturn

from ..models.catalog import default_roots
from .inbox import Inbox
from .interface import OFFLOADS, PRECISIONS, Unusable
from .outbox import Outbox

log = logging.getLogger(__name__)


def main() -> None:
    """Run jobs until the standard input closes, and end the process then."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the server's terminal: the server ends its workers itself
    outbox = Outbox(_take_over_stdout())
    inbox = Inbox(sys.stdin.buffer, outbox)
    Thread(target=_read, args=(inbox,), name="inbox", daemon=True).start()
    try:
        _work(options, inbox, outbox)
    except Exception:
        log.exception("the worker cannot go on")
    _leave(1)


def _work(options: argparse.Namespace, inbox: Inbox, outbox: Outbox) -> NoReturn:
    """Import what takes seconds to import, and run jobs."""
    # Threads that wait are to sleep. By default they spin, which costs whoever paints on this machine a core, and with
    # one other busy program made this one eight times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _quiet_libraries()
    gc.disable()  # There is hardly any garbage in what is imported, and to look for it all the time takes a second.
    import torch

    from ..engine import families
    from ..engine.device import open_device
    from ..engine.precision import Memory as MemoryChoice
    from .worker import Worker

    # Importing them in the middle of a job could not be cancelled.
    for name in families.names():
        families.family_class(name)
    # What was imported stays. To look through it for garbage would stop everything for a third of a second.
    gc.freeze()
    gc.enable()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        device = open_device(options.device)
    except ValueError as error:
        outbox.send(Unusable(str(error)[:500]))
        _leave(1)
    inbox.memory = device.memory
    limit = None if options.memory_gib is None else int(options.memory_gib * (1 << 30))
    memory = MemoryChoice(limit, precision=options.precision, offload=options.offload)
    worker = Worker(device, options.models or default_roots(), outbox, memory)
    worker.introduce()
    log.info("ready on %s", device.name)
    while True:
        job = inbox.next()
        worker.run(job)
        inbox.forget(job)
        del job  # The next one, which may be a long time coming, has other pixels.


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -P -m underpaint_backend.worker", description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ... (default: the best there is)")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: torch decides)")
    parser.add_argument("--memory-gib", type=float, help="for models on the device (default: what is there)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the models' numbers")
    parser.add_argument("--offload", choices=OFFLOADS, default="auto", help="whether weights wait elsewhere")
    parser.add_argument("--models", type=Path, action="append", help="a folder of models; may be repeated")
    return parser.parse_args()


def _take_over_stdout() -> BinaryIO:
    """The standard output for messages alone; whatever else is printed goes to the standard error."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return messages


def _read(inbox: Inbox) -> None:
    """Hear the server until it is gone, and then end at once, whatever else this process is doing."""
    try:
        inbox.read()
    except Exception:
        log.exception("the server can no longer be heard")
    _leave(0)


def _leave(code: int) -> NoReturn:
    """End the process without waiting for its threads, one of which may wait for the server forever."""
    logging.shutdown()
    os._exit(code)


def _quiet_libraries() -> None:
    """Nothing here asks the network for anything, and a log is no place for progress bars."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


if __name__ == "__main__":
    main()
