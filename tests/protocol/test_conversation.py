"""Whatever happens to connections, daemons and workers, each job ends once for its program, with the right pixels."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from underpaint_protocol.client import ClientSession, Event, Picture
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import TERMINAL, Acknowledge, Cancelled, Done, Error, Failed, Request, vocabulary

from tests.protocol.reference import Line, ReferenceServer, painted

WIDTH = 64
CANVAS = hashlib.shake_128(b"canvas").digest(WIDTH * 4)
"""A row of what is painted on; a stroke changes little of it."""

PATIENCE = 2000
"""Rounds after which a conversation that has not come to rest is stuck."""


@dataclass
class Heard:
    """What the program heard of one job in this life."""

    pictures: dict[int, bytes] = field(default_factory=dict)
    ends: list[Event] = field(default_factory=list)


class Conversation(RuleBasedStateMachine):
    """A program, its session, a wire that may be cut, and a server that may forget."""

    def __init__(self) -> None:
        super().__init__()
        self.server = ReferenceServer()
        self.client = ClientSession("machine", ("zlib", "raw"))
        self.line: Line | None = None
        self.up: deque[bytes] = deque()
        self.orders: dict[str, tuple[Request, bytes | None]] = {}
        self.heard: dict[str, Heard] = {}
        self.acknowledged: set[str] = set()
        self.count = 0

    # The program

    @rule(stroke=st.none() | st.binary(min_size=1, max_size=8), batch=st.integers(1, 2), data=st.data())
    def submit(self, stroke: bytes | None, batch: int, data: st.DataObject) -> None:
        self.count += 1
        job = f"job-{self.count}"
        older = data.draw(st.none() | st.sampled_from(sorted(self.heard))) if self.heard else None
        pixels = CANVAS + stroke + CANVAS[len(stroke) :] if stroke else None
        image, tiles = image_of(WIDTH, 2, 4, pixels, x=240, y=7) if pixels else (None, {})
        request = Request("m", "inpaint", WIDTH, 2, seed=self.count % 3, batch=batch, image=image)
        self.orders[job] = request, pixels
        self.heard[job] = Heard()
        self.client.submit(job, request, tiles, supersedes=older)

    @rule()
    def submit_what_is_refused(self) -> None:
        self.count += 1
        job = f"job-{self.count}"
        self.heard[job] = Heard()
        self.orders[job] = Request("nobody", "text_to_image", 3, 2), None
        self.client.submit(job, self.orders[job][0])

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.client.cancel(data.draw(st.sampled_from(sorted(self.heard))))

    @rule()
    def acknowledge(self) -> None:
        for job, heard in self.heard.items():
            if heard.ends and job not in self.acknowledged:
                self.acknowledged.add(job)
                self.client.acknowledge(job)
                return

    # The wire and the daemon

    @rule(sent=st.integers(0, 9), arrived=st.integers(0, 9), worked=st.integers(0, 9), heard=st.integers(0, 9))
    def go_on(self, sent: int, arrived: int, worked: int, heard: int) -> None:
        """Some frames go each way, in order; what is under way stays there."""
        self.connect()
        self.send(sent)
        self.arrive(arrived)
        for _ in range(worked):
            self.server.work()
        self.hear(heard)

    @rule(rounds=st.integers(1, 5))
    def go_on_well(self, rounds: int) -> None:
        """A while without any trouble."""
        for _ in range(rounds):
            self.go_on(9, 9, 3, 9)

    @rule(what=st.sampled_from(["cut", "cut", "restart", "restart_empty", "die"]))
    def interrupt(self, what: str) -> None:
        getattr(self, what)()

    @rule(what=st.sampled_from(["evict", "forget", "kill_worker", "drain", "damage"]))
    def trouble(self, what: str) -> None:
        getattr(self.server, what)()

    def connect(self) -> None:
        if self.line is None:
            self.line = self.server.connect()
            self.client.connected()

    def cut(self) -> None:
        """The connection is lost with all frames on their way."""
        if self.line is not None:
            self.line.drop()
            self.line = None
            self.up.clear()
            self.client.disconnected()

    def restart(self) -> None:
        """The daemon is killed and started again."""
        self.server.restart(memory=True)
        self.cut()

    def restart_empty(self) -> None:
        """Another daemon answers, which knows nothing."""
        self.server.restart(memory=False)
        self.cut()

    def die(self) -> None:
        """The program is killed, and its next life knows only the id of its session."""
        self.cut()
        self.client = ClientSession("machine", session=self.client.session)
        self.heard.clear()
        self.acknowledged.clear()

    def send(self, frames: int) -> None:
        for _ in range(frames):
            if (frame := self.client.next_frame()) is not None:
                self.up.append(frame)

    def arrive(self, frames: int) -> None:
        assert self.line is not None
        for _ in range(min(frames, len(self.up))):
            frame = self.up.popleft()
            self.check_acknowledged(frame)
            self.line.receive(frame)

    def hear(self, frames: int) -> None:
        assert self.line is not None
        for _ in range(frames):
            if (frame := self.line.next_frame()) is not None:
                self.take(frame)

    # What must hold

    def take(self, frame: bytes) -> None:
        """The session takes a frame, and the program its events; it follows what an earlier life left."""
        for event in self.client.receive(frame):
            self.listen(event)
        for job in self.client.open:
            self.heard.setdefault(job, Heard())

    def listen(self, event: Event) -> None:
        """The program takes an event."""
        job = getattr(event, "job", None)
        if job is None:
            return
        heard = self.heard.setdefault(job, Heard())
        assert not heard.ends, f"{event} came after the end"
        if isinstance(event, Picture):
            request, pixels = self.orders[job]
            assert event.index not in heard.pictures
            assert bytes(event.pixels) == painted(request, event.index, bytearray(pixels) if pixels else None)
            heard.pictures[event.index] = bytes(event.pixels)
        elif isinstance(event, (*TERMINAL, Error)):
            heard.ends.append(event)
            nobody = self.orders[job][0].model == "nobody"
            assert isinstance(event, (Error, Cancelled) if nobody else TERMINAL)
            if isinstance(event, Done):
                assert sorted(heard.pictures) == list(range(self.orders[job][0].batch))

    def check_acknowledged(self, frame: bytes) -> None:
        """The server may forget only what the program has done with, or what it was told is cancelled."""
        message = vocabulary.decode(frame)
        if isinstance(message, Acknowledge):
            heard = self.heard.get(message.job, Heard())
            cancelled = any(isinstance(end, (Cancelled, Failed)) for end in heard.ends)
            assert message.job in self.acknowledged or cancelled

    @invariant()
    def running_are_those_without_an_end(self) -> None:
        """The session and the program agree on what has ended."""
        for job in self.client.running:
            assert not self.heard.get(job, Heard()).ends

    def teardown(self) -> None:
        """All goes well from now on: everything ends, and the server forgets it."""
        self.cut()
        self.server.draining = False
        self.connect()
        for _ in range(PATIENCE):
            self.send(6)
            self.arrive(6)
            self.hear(6)
            self.acknowledge()
            if not self.server.work() and self.at_rest():
                break
        else:
            raise AssertionError(f"still running: {self.client.running}")
        assert all(len(heard.ends) == 1 for heard in self.heard.values())
        assert self.client.session is not None
        assert self.server.sessions[self.client.session].jobs == {}

    def at_rest(self) -> bool:
        """Nothing is on its way and nothing is open."""
        assert self.line is not None
        if self.client.open or self.up:
            return False
        frames = self.client.next_frame(), self.line.next_frame()
        if frames[0] is not None:
            self.up.append(frames[0])
        if frames[1] is not None:
            self.take(frames[1])
        return frames == (None, None)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
