"""What happens when: joins the panel, the network and the generation that is going on. Main thread only."""

from __future__ import annotations

import uuid
from typing import Any, Callable, Dict, Optional, Union

from krita import Krita

from . import settings
from ._vendor.underpaint_protocol.errors import ErrorInfo, describe
from ._vendor.underpaint_protocol.exceptions import InvalidField
from ._vendor.underpaint_protocol.messages import (
    Accepted,
    Cancelled,
    Done,
    Error,
    Failed,
    Progress,
    Request,
    Status,
    Welcome,
)
from .canvas import Refused, Scene, read_scene
from .frames import converted, developed
from .generation import Generation, Outcome
from .mailbox import Mailbox
from .network import Disconnected, Event, Finished, Frame, Job, Network
from .panel import Panel, Wishes
from .qt import QtCore
from .server_dialog import ask_for_server

PHASES = {
    "queued": "Waiting for its turn",
    "loading": "Loading the model",
    "preparing": "Preparing the picture",
    "encoding": "Reading the prompt",
    "denoising": "Painting",
    "decoding": "Finishing the picture",
    "compositing": "Fitting it in",
}
PROGRESS_DELAY = 20
"""Milliseconds for which progress waits to be shown together with its preview."""
STARTABLE = ("unreachable", "not_started", "disconnected")
"""Errors after which the daemon can be started from here, if the server is this machine."""


class Studio(QtCore.QObject):
    """One panel, one connection, and at most one generation at a time."""

    _woken = QtCore.pyqtSignal()

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._settings = settings.load()
        self._mailbox: Mailbox[Event, Frame] = Mailbox(self._woken.emit)
        self._network = Network(self._mailbox, developed, converted)
        self._welcome: Optional[Welcome] = None
        self._connecting = False
        self._generate_when_connected = False
        self._job: Optional[Job] = None
        self._generation: Optional[Generation] = None
        self._progress: Optional[Progress] = None
        self._progress_timer = QtCore.QTimer(self)
        self._progress_timer.setSingleShot(True)
        self._progress_timer.setInterval(PROGRESS_DELAY)
        self._progress_timer.timeout.connect(self._show_progress)
        self._handlers: Dict[type, Callable[[Any], None]] = {
            Welcome: self._on_welcome,
            Status: self._on_status,
            Disconnected: self._on_disconnected,
            Accepted: self._on_accepted,
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
        panel.start_daemon.connect(self.start_daemon)
        panel.choose_server.connect(self.choose_server)

    # What the artist does

    def generate(self) -> None:
        """Paint into the selection, or a new picture without one; connect first where that is needed."""
        if self._job is not None:
            return
        if self._welcome is None:
            self._generate_when_connected = True
            self._panel.set_busy(True)
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
        self._generate_when_connected = False
        self._let_go()
        self._panel.set_busy(False)
        self._panel.show_state("Cancelled.")

    def start_daemon(self) -> None:
        """Start the daemon on this machine and connect to it."""
        self._connecting = True
        self._panel.show_state("Starting Underpaint…")
        self._network.start_daemon(self._settings.server, self._settings.token)

    def choose_server(self) -> None:
        """Ask for another server, and connect to it."""
        chosen = ask_for_server(self._settings, self._panel)
        if chosen is None:
            return
        self.cancel()
        self._settings, self._welcome = chosen, None
        try:
            settings.save(chosen)
        except OSError as error:
            self._panel.show_error(describe("not_saved", detail=error))
        else:
            self._connect()

    def close(self) -> None:
        """Krita is going."""
        self._network.close()

    # Going on with it

    def _on_shown(self) -> None:
        if self._welcome is None and not self._connecting:
            self._connect()

    def _connect(self) -> None:
        self._welcome, self._connecting = None, True
        self._panel.show_state("Connecting…")
        self._network.connect(self._settings.server, self._settings.token())

    def _begin(self, wishes: Wishes, welcome: Welcome) -> None:
        if not welcome.models:
            raise Refused(describe("no_model"))
        scene = read_scene(Krita.instance().activeDocument(), welcome.limits.max_pixels)
        request = _request(wishes, scene, welcome.models[0].id)
        self._job = Job(uuid.uuid4().hex, request, scene.pixels, scene.mask)
        self._generation = Generation(scene, wishes.prompt, self)
        self._generation.ended.connect(self._on_ended)
        self._network.submit(self._job)
        self._panel.set_busy(True)
        self._panel.show_state("Sending…")

    def _collect(self) -> None:
        events, frame = self._mailbox.collect()
        for event in events:
            handler = self._handlers.get(type(event))
            if handler is not None and self._concerns_us(event):
                handler(event)
        if frame is not None and self._generation is not None and self._concerns_us(frame):
            self._generation.show(frame.pixels)
            self._show_progress()

    def _concerns_us(self, event: Any) -> bool:
        """Whether an event is about the connection or about the present job, not about one that was cancelled."""
        job = getattr(event, "job", None)
        return job is None or (self._job is not None and job == self._job.id)

    def _on_welcome(self, welcome: Welcome) -> None:
        self._welcome, self._connecting = welcome, False
        self._panel.show_models(welcome.models)
        self._panel.show_state(_worker_state(welcome))
        if self._generate_when_connected:
            self._generate_when_connected = False
            self._panel.set_busy(False)
            self.generate()

    def _on_status(self, status: Status) -> None:
        if self._job is None:
            self._panel.show_state(_worker_state(status))

    def _on_disconnected(self, event: Disconnected) -> None:
        self._welcome, self._connecting, self._generate_when_connected = None, False, False
        self._rest(event.error)

    def _on_accepted(self, event: Accepted) -> None:
        if self._generation is not None:
            self._generation.begin()
        if event.position:
            self._panel.show_state(f"{PHASES['queued']}: {event.position} before it")

    def _on_progress(self, event: Progress) -> None:
        # Usually the preview of this step follows at once. One repaint of the window for both takes half the time.
        self._progress = event
        self._progress_timer.start()

    def _show_progress(self) -> None:
        self._progress_timer.stop()
        event, self._progress = self._progress, None
        if event is None or not self._concerns_us(event):
            return
        self._panel.show_progress(event.fraction)
        steps = f", step {event.step} of {event.steps}" if event.phase == "denoising" and event.steps else ""
        self._panel.show_state(PHASES[event.phase] + steps)

    def _on_finished(self, event: Finished) -> None:
        if self._generation is not None and self._job is not None and event.index == 0:
            self._generation.finish(event.pixels, _recipe(self._job.request, event.seed))

    def _on_done(self, event: Done) -> None:
        self._let_go()
        self._panel.set_busy(False)
        self._panel.show_state(f"Done in {event.seconds:.1f} s.")

    def _on_failed(self, event: Failed) -> None:
        self._rest(event.error)

    def _on_cancelled(self, event: Cancelled) -> None:
        self._let_go()
        self._panel.set_busy(False)
        self._panel.show_state("Cancelled.")

    def _on_error(self, event: Error) -> None:
        if event.job is None and self._job is not None:
            self._network.cancel(self._job.id)  # Something else was refused; the job would go on without us.
        self._rest(event.error)

    def _on_ended(self, outcome: Outcome) -> None:
        if self.sender() is not self._generation or outcome in (Outcome.FINISHED, Outcome.DISCARDED):
            return
        if self._job is not None:
            self._network.cancel(self._job.id)
        self._let_go()
        self._panel.set_busy(False)
        self._panel.show_state(f"Stopped, because {outcome.value}.")

    def _rest(self, error: ErrorInfo) -> None:
        """Nothing goes on any more, because of `error`."""
        self._let_go()
        self._panel.set_busy(False)
        startable = error.code in STARTABLE and settings.is_local(self._settings.server)
        self._panel.show_error(error, offer_start=startable)

    def _let_go(self) -> None:
        """Forget the job. Its layer is taken away unless it is finished; that may go on for a while."""
        if self._generation is not None:
            self._generation.discard()
        self._job = self._generation = None


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


def _recipe(request: Request, seed: int) -> Dict[str, Any]:
    """How a picture was made, without the pixels it was made of."""
    wire = request.to_wire()
    return {**{name: value for name, value in wire.items() if name not in ("image", "mask")}, "seed": seed}


def _worker_state(source: Union[Welcome, Status]) -> str:
    worker = source.worker
    device = f" on {worker.device}" if worker.device else ""
    states = {
        "starting": "Underpaint is warming up…",
        "ready": f"Ready{device}.",
        "restarting": "Underpaint is starting again…",
        "failed": f"Underpaint cannot paint: {worker.detail}.",
    }
    return states[worker.state]
