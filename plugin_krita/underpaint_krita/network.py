"""The plugin's end of the wire, in a thread of its own. Knows nothing of Qt or Krita.

One thread does everything in the order in which it is asked; `connection.py` has another one that only listens. Frames
to send are asked for one at a time, so that a wish to cancel overtakes an upload, and pixels wait in the session alone.
"""

from __future__ import annotations

import logging
import queue
import subprocess
import threading
from functools import partial
from typing import Callable, Optional

from ._vendor.underpaint_protocol.client import Picture
from ._vendor.underpaint_protocol.messages import Preview
from .conversation import Conversation, News
from .events import Event, Finished, Frame, Job
from .line import Target
from .mailbox import Mailbox
from .notebook import Notebook
from .pixels import Buffer, KritaPixels

log = logging.getLogger(__name__)

Develop = Callable[[bytes, int, int, Optional[Buffer]], KritaPixels]
"""From a JPEG, a width, a height and a mask to pixels for Krita; `ValueError` if it is not a JPEG."""
Convert = Callable[[bytearray], KritaPixels]
"""From red, green, blue, alpha to pixels for Krita."""


class Network:
    """The connection to one server at a time. Its methods return at once; what comes of them goes to the mailbox.

    A lost connection is taken up again by itself, and with it every job that was not cancelled or acknowledged.
    """

    def __init__(
        self, mailbox: Mailbox[Event, Frame], develop: Develop, convert: Convert, notebook: Optional[Notebook] = None
    ) -> None:
        """`develop` and `convert` are called in the network thread; `notebook` remembers what outlives it, and is
        closed in the end.
        """
        self._mailbox = mailbox
        self._develop = develop
        self._convert = convert
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._notebook = notebook or Notebook()
        self._conversation = Conversation(self._tell, self._inbox.put, self._notebook)
        self._preview: Optional[Preview] = None
        self._silent = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="underpaint-network", daemon=True)
        self._thread.start()

    @property
    def started(self) -> Optional[subprocess.Popen[bytes]]:
        """The daemon, if it was started from here."""
        return self._conversation.line.started

    def connect(self, server: str, token: str, pinned: Optional[str] = None) -> None:
        """Connect to `server`, leaving any other. Ends in `Welcome` or `Disconnected`, or goes on in `Reconnecting`.

        `pinned` is the fingerprint of the one certificate that the server may show.
        """
        self._inbox.put(partial(self._conversation.connect, Target(server, lambda: token, pinned)))

    def start_daemon(self, server: str, read_token: Callable[[], str]) -> None:
        """Start the daemon on this machine and connect to it at `server` as soon as it listens.

        `read_token` is asked before each attempt, because a first start makes the token.
        """
        self._inbox.put(partial(self._conversation.start_daemon, Target(server, read_token)))

    def submit(self, job: Job) -> None:
        """Send a job, now or as soon as there is a connection. It ends in `Done`, `Failed`, `Cancelled` or `Error`."""
        self._inbox.put(partial(self._conversation.submit, job))

    def cancel(self, job: str) -> None:
        """Ask to stop a job, now or as soon as there is a connection. Nothing more is told of it."""
        self._inbox.put(partial(self._conversation.cancel, job))

    def acknowledge(self, job: str) -> None:
        """The picture of a job is safe, or was discarded: once it is done, the server may forget it."""
        self._inbox.put(partial(self._conversation.acknowledge, job))

    def pull(self, model: str, *, stop: bool = False) -> None:
        """Have a model fetched, or leave off, now or as soon as there is a connection. `Pulling` tells of it."""
        self._inbox.put(partial(self._conversation.pull, model, stop))

    def aside(self, work: Callable[[], Event]) -> None:
        """Have something done in the network thread; what it returns goes to the mailbox."""
        self._inbox.put(lambda: self._post(work()))

    def close(self, patience: float = 0.0) -> None:
        """Disconnect and end the thread; nothing goes to the mailbox any more.

        Waits `patience` seconds at most for what was asked for before.
        """
        self._silent.set()
        self._inbox.put(self._end)
        self._thread.join(patience)

    # Everything below runs in the network thread.

    def _run(self) -> None:
        while not self._over:
            try:
                self._step()
            except Exception:  # a fault of ours must not leave the artist waiting for ever
                log.exception("the network thread stumbled")
                self._conversation.stumbled()

    def _step(self) -> None:
        """Do what is asked for and send one frame. Previews come last, and of them only the newest counts."""
        try:
            work = self._inbox.get_nowait()
        except queue.Empty:
            if not (self._conversation.send_frame() or self._show_preview()):
                self._wait()
        else:
            work()
            self._conversation.send_frame()

    def _wait(self) -> None:
        line = self._conversation.line
        try:
            work = self._inbox.get(timeout=line.remaining)
        except queue.Empty:
            work = line.dial
        work()

    def _end(self) -> None:
        self._over = True
        self._conversation.line.hang_up()
        self._notebook.close()

    def _tell(self, news: News) -> None:
        if isinstance(news, Preview):
            self._preview = news
        elif isinstance(news, Picture):
            self._post(Finished(news.job, news.index, news.seed, self._convert(news.pixels)))
        else:
            self._post(news)

    def _post(self, event: Event) -> None:
        if not self._silent.is_set():
            self._mailbox.post(event)

    def _show_preview(self) -> bool:
        """Develop the newest preview; false if there is none."""
        preview, self._preview = self._preview, None
        job = self._conversation.running(preview.job) if preview is not None else None
        if preview is None or job is None:
            return preview is not None
        try:
            pixels = self._develop(preview.data, job.request.width, job.request.height, job.mask)
        except ValueError:
            return True  # The next preview, or the picture itself, will do.
        if not self._silent.is_set():
            self._mailbox.show(Frame(job.id, preview.step, pixels))
        return True
