"""What happens when: joins the panel, the network and the generation that is going on. Main thread only."""

from __future__ import annotations

import dataclasses
import uuid
from functools import partial
from typing import Any, Callable, Dict, Optional

from krita import Krita

from . import daemon, sentences, settings
from ._vendor.underpaint_protocol import locations
from ._vendor.underpaint_protocol.errors import ErrorInfo, describe
from ._vendor.underpaint_protocol.exceptions import InvalidField
from ._vendor.underpaint_protocol.messages import (
    TERMINAL,
    Accepted,
    Cancelled,
    Done,
    Error,
    Failed,
    Models,
    Position,
    Progress,
    Pulling,
    Request,
    Started,
    Status,
    Welcome,
)
from ._vendor.underpaint_protocol.pulls import REFUSALS
from .canvas import Refused, Scene, read_scene
from .certificates import Certificate
from .events import Disconnected, Event, Finished, Frame, Job, Reconnecting, Remembered
from .frames import converted, developed
from .generation import Generation, Outcome
from .mailbox import Mailbox
from .network import Network
from .notebook import claimed_notebook
from .panel import Panel, Wishes
from .qt import QtCore
from .recipe import recipe_of
from .recovery import Recovery
from .server_dialog import ask_for_server
from .settings import Settings
from .trust_dialog import ask_to_trust

PROGRESS_DELAY = 20
"""Milliseconds for which progress waits to be shown together with its preview."""
STARTABLE = ("unreachable", "not_started", "disconnected")
"""Errors after which the daemon can be started from here, if the server is this machine's own."""
LAST_WORDS = 0.5
"""Seconds that Krita waits at its end, at most, for a wish to cancel to be sent."""


class Studio(QtCore.QObject):
    """One panel, one connection, and at most one generation at a time."""

    _woken = QtCore.pyqtSignal()

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._settings = settings.load()
        self._mailbox: Mailbox[Event, Frame] = Mailbox(self._woken.emit)
        self._network = Network(self._mailbox, developed, converted, claimed_notebook(locations.data_folder()))
        self._recovery = Recovery(self._network, self)
        self._recovery.told.connect(panel.show_notice)
        self._gone = False
        self._welcome: Optional[Welcome] = None
        self._connecting = False
        self._away: Optional[ErrorInfo] = None
        self._generate_when_connected = False
        self._job: Optional[Job] = None
        self._generation: Optional[Generation] = None
        self._progress: Optional[Progress] = None
        self._attempt = 1
        self._lost = False
        """Whether there was no connection for a while since the picture was begun."""
        self._fetching: Optional[str] = None
        self._progress_timer = QtCore.QTimer(self)
        self._progress_timer.setSingleShot(True)
        self._progress_timer.setInterval(PROGRESS_DELAY)
        self._progress_timer.timeout.connect(self._show_progress)
        self._handlers: Dict[type, Callable[[Any], None]] = {
            Welcome: self._on_welcome,
            Status: self._on_status,
            Models: self._on_models,
            Pulling: panel.show_pulling,
            Remembered: self._on_remembered,
            Reconnecting: self._on_reconnecting,
            Disconnected: self._on_disconnected,
            Accepted: self._on_accepted,
            Position: self._on_position,
            Started: self._on_started,
            Progress: self._on_progress,
            Finished: self._on_finished,
            Done: self._on_done,
            Failed: self._on_failed,
            Cancelled: self._on_cancelled,
            Error: self._on_error,
        }
        self._woken.connect(self._collect, QtCore.Qt.ConnectionType.QueuedConnection)
        panel.shown.connect(self._on_shown)
        panel.generate.connect(self.generate)
        panel.cancel.connect(self.cancel)
        panel.fetch.connect(self.fetch)
        panel.stop_fetching.connect(self.stop_fetching)
        panel.start_daemon.connect(self.start_daemon)
        panel.choose_server.connect(self.choose_server)

    # What the artist does

    def generate(self) -> None:
        """Paint into the selection, or a new picture without one; connect first where that is needed."""
        if self._is_painting:
            return
        self._panel.clear_notices()
        if self._welcome is None:
            self._generate_when_connected = True
            self._show_busy()
            if not self._connecting:
                self._connect()
            return
        try:
            self._begin(self._panel.wishes(), self._welcome)
        except Refused as refused:
            self._rest(refused.error)

    def cancel(self) -> None:
        """Stop what is going on; the picture becomes as it was."""
        if self._job is not None:
            self._network.cancel(self._job.id)
        else:
            self._recovery.cancel()
        self._generate_when_connected = False
        self._let_go()
        self._say("Cancelled.")

    def fetch(self, model: str) -> None:
        """Have a model brought to the daemon's machine."""
        self._panel.clear_notices()
        self._fetching = model
        self._network.pull(model)

    def stop_fetching(self, model: str) -> None:
        """Leave off; what came is kept."""
        self._network.pull(model, stop=True)

    def start_daemon(self) -> None:
        """Start the daemon on this machine and connect to it."""
        self._connecting, self._away = True, None
        self._say("Starting Underpaint…")
        self._network.start_daemon(self._settings.server, self._settings.token)

    def choose_server(self) -> None:
        """Ask for another server, and connect to it."""
        chosen = ask_for_server(self._settings, self._panel)
        if chosen is None:
            return
        if self._job is not None:
            self.cancel()
        if chosen.server != self._settings.server:
            self._recovery.leave()
        self._adopt(chosen)

    def close(self) -> None:
        """Krita is going, and its documents are closed."""
        if self._job is not None:
            self._network.cancel(self._job.id)
        self._job = self._generation = None
        self.leave(LAST_WORDS)

    def leave(self, patience: float = 0.0) -> None:
        """The window is going, and the panel is gone. Whatever is painted comes with the next window, or Krita."""
        self._gone = True
        self._progress_timer.stop()
        self._recovery.leave()
        generation, self._job, self._generation = self._generation, None, None
        if generation is not None:
            generation.leave()  # If its document was closed, too, this cancels the job.
        self._network.close(patience)

    # Connecting

    def _on_shown(self) -> None:
        if self._welcome is None and not self._connecting:
            self._connect()

    def _adopt(self, chosen: Settings) -> None:
        """Use these settings from now on."""
        self._settings, self._generate_when_connected = chosen, False
        self._show_busy()
        try:
            settings.save(chosen)
        except OSError as error:
            self._panel.show_error(describe("not_saved", detail=error))
        self._connect()

    def _connect(self) -> None:
        self._welcome, self._connecting, self._away = None, True, None
        self._say("Connecting…")
        self._network.connect(self._settings.server, self._settings.token(), self._settings.pin())

    def _on_welcome(self, welcome: Welcome) -> None:
        self._welcome, self._connecting, self._away = welcome, False, None
        self._panel.forget_pulls()
        self._panel.show_models(welcome.models)
        self._say(sentences.CONNECTED_AGAIN if self._is_painting else sentences.worker(welcome))
        if self._generate_when_connected:
            self._generate_when_connected = False
            self._show_busy()
            self.generate()

    def _on_models(self, event: Models) -> None:
        if self._welcome is not None:
            self._welcome = dataclasses.replace(self._welcome, models=event.models)
        self._panel.show_models(event.models)

    def _on_status(self, status: Status) -> None:
        if status.draining or not self._is_painting:
            self._say(sentences.worker(status))

    def _on_reconnecting(self, event: Reconnecting) -> None:
        self._connecting = self._lost = True
        self._away = self._told(event.error)
        self._say(sentences.reconnecting(self._away, event.seconds, self._is_painting))

    def _on_disconnected(self, event: Disconnected) -> None:
        self._welcome, self._connecting, self._generate_when_connected = None, False, False
        self._away, self._lost = self._told(event.error), True
        self._panel.forget_pulls()
        if self._job is not None and self._generation is not None and not self._generation.complete:
            self._recovery.take([self._job])  # It goes on at the server; another connection may bring its picture.
        self._rest(self._away)
        if event.certificate is not None:  # The dialog has an event loop of its own, and there are more events.
            QtCore.QTimer.singleShot(0, partial(self._ask_to_trust, self._settings.server, event.certificate))

    def _ask_to_trust(self, server: str, certificate: Certificate) -> None:
        """Ask about a certificate that nobody vouches for, and connect if it is the artist's own."""
        if server == self._settings.server and ask_to_trust(server, certificate, self._panel):
            self._adopt(self._settings.with_pin(server, certificate.fingerprint))

    def _told(self, error: ErrorInfo) -> ErrorInfo:
        """Why there is no connection, as it is told of this server."""
        server = self._settings.server
        return error if daemon.is_own(server) else sentences.elsewhere(error, server)

    @property
    def _is_startable(self) -> bool:
        """Whether there would be a connection if the daemon were started on this machine."""
        return self._away is not None and self._away.code in STARTABLE and daemon.is_own(self._settings.server)

    def _say(self, text: str) -> None:
        self._panel.show_state(text, offer_start=self._is_startable)

    # Painting

    @property
    def _is_painting(self) -> bool:
        """Whether a picture is under way, of this Krita or of an earlier one."""
        return self._job is not None or self._recovery.running

    def _begin(self, wishes: Wishes, welcome: Welcome) -> None:
        ready = [model.id for model in welcome.models if model.state == "ready"]
        if not ready:
            raise Refused(describe("no_model"))
        scene = read_scene(Krita.instance().activeDocument(), welcome.limits.max_pixels)
        request = _request(wishes, scene, ready[0])
        self._job = Job(uuid.uuid4().hex, request, scene.pixels, scene.mask, scene.place)
        self._attempt, self._lost = 1, False
        self._generation = Generation(scene, wishes.prompt)
        self._generation.ended.connect(partial(self._on_ended, self._job.id))
        self._network.submit(self._job)
        self._show_busy()
        self._say("Waiting for the connection…" if self._connecting else "Sending…")

    def _collect(self) -> None:
        if self._gone:
            return
        events, frame = self._mailbox.collect()
        for event in events:
            job = getattr(event, "job", None)
            if job is not None and self._recovery.knows(job):
                self._recover(event)
            elif job is None or self._is_present(job):
                self._handle(event)
        if frame is not None and self._generation is not None and self._is_present(frame.job):
            self._generation.show(frame.pixels)
            self._show_progress()

    def _handle(self, event: Any) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _recover(self, event: Any) -> None:
        """Something happened to a job of before. While there is no other one, the docker shows how it goes on."""
        self._recovery.handle(event)
        if self._job is None:
            if isinstance(event, (Position, Started, Progress)):
                self._handle(event)
            elif isinstance(event, TERMINAL) and self._welcome is not None:
                self._say(sentences.worker(self._welcome))
            self._show_busy()

    def _is_present(self, job: str) -> bool:
        """Whether this is the job of the docker, and not one that was cancelled."""
        return self._job is not None and job == self._job.id

    def _on_remembered(self, event: Remembered) -> None:
        self._lost = True
        self._recovery.take(event.jobs)

    def _on_accepted(self, event: Accepted) -> None:
        if self._generation is not None:
            self._generation.begin()
        self._say(sentences.queue_place(event.position))

    def _on_position(self, event: Position) -> None:
        self._say(sentences.queue_place(event.position))

    def _on_started(self, event: Started) -> None:
        self._attempt = event.attempt
        if event.attempt > 1:
            self._say(sentences.once_more(self._lost))
            self._panel.show_progress(0)

    def _on_progress(self, event: Progress) -> None:
        # Usually the preview of this step follows at once. One repaint of the window for both takes half the time.
        self._progress = event
        self._progress_timer.start()

    def _show_progress(self) -> None:
        self._progress_timer.stop()
        event, self._progress = self._progress, None
        if event is not None and (self._is_present(event.job) or self._recovery.is_running(event.job)):
            self._panel.show_progress(event.fraction)
            self._say(sentences.progress(event, self._attempt > 1, self._lost))

    def _on_finished(self, event: Finished) -> None:
        if self._generation is not None and self._job is not None and event.index == 0:
            self._generation.finish(event.pixels, recipe_of(self._job.request, event.seed))

    def _on_done(self, event: Done) -> None:
        if self._generation is not None and not self._generation.complete:
            self._network.acknowledge(event.job)
        self._let_go()
        self._say(sentences.done(event.seconds, self._attempt > 1))
        for notice in event.notices:
            self._panel.show_notice(notice)

    def _on_failed(self, event: Failed) -> None:
        self._rest(event.error)

    def _on_cancelled(self, event: Cancelled) -> None:
        self._let_go()
        self._say("Cancelled.")

    def _on_error(self, event: Error) -> None:
        if event.job is None and self._fetching is not None and event.error.code in REFUSALS:
            self._panel.show_fetch_problem(self._fetching, event.error)
            return
        if self._job is not None:
            self._network.cancel(self._job.id)  # Whatever was refused, the job would go on without us.
        self._rest(event.error)

    def _on_ended(self, job: str, outcome: Outcome) -> None:
        """The layer of `job`, which need not be the present one, is as it will stay."""
        if outcome is Outcome.FINISHED:
            self._network.acknowledge(job)
        elif outcome is not Outcome.DISCARDED:
            self._network.cancel(job)
            if self._is_present(job):
                self._let_go()
                self._say(f"Stopped, because {outcome.value}.")

    def _rest(self, error: ErrorInfo) -> None:
        """Nothing goes on any more, because of `error`."""
        self._let_go()
        self._panel.show_error(error, offer_start=self._is_startable)

    def _let_go(self) -> None:
        """Forget the job. Its layer is taken away unless it is finished; that may go on for a while."""
        if self._generation is not None:
            self._generation.discard()
        self._job = self._generation = None
        self._show_busy()

    def _show_busy(self) -> None:
        self._panel.set_busy(self._is_painting or self._generate_when_connected)


def _request(wishes: Wishes, scene: Scene, first_model: str) -> Request:
    try:
        return Request(
            model=wishes.model or first_model,
            task="inpaint" if scene.mask is not None else "text_to_image",
            width=scene.box.width,
            height=scene.box.height,
            prompt=wishes.prompt,
            negative_prompt=wishes.negative_prompt,
            strength=wishes.strength if scene.mask is not None else 1.0,
            steps=wishes.steps or None,
            seed=wishes.seed,
        )
    except InvalidField as error:
        raise Refused(describe("invalid_field", detail=error)) from None
