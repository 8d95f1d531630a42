"""Previews on their way out."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import pytest
import torch
from PIL import Image
from underpaint_backend.worker.interface import read_message
from underpaint_backend.worker.outbox import Outbox
from underpaint_backend.worker.previews import Previews, jpeg_of
from underpaint_protocol.messages import Done, Preview


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The two ends of a pipe: to read, to write."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as writer:
        yield reader, writer


def grey(level: int, side: int = 8) -> torch.Tensor:
    """A batch of one grey picture."""
    return torch.full((1, side, side, 3), level, dtype=torch.uint8)


def test_even_noise_is_small() -> None:
    """The worst picture there is takes at most 6 KB at 64 x 64 pixels."""
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    assert len(jpeg_of(noise)) <= 6144


def test_a_preview_says_what_it_is(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """A preview travels with its job, its step, its size, its time and its picture."""
    reader, writer = pipe
    began = time.time()
    Previews(Outbox(writer)).show("job", 3, grey(200))

    message = read_message(reader)

    assert isinstance(message, Preview)
    assert (message.job, message.index, message.step, message.width, message.height) == ("job", 0, 3, 8, 8)
    assert began <= message.predicted_at <= time.time()
    assert Image.open(io.BytesIO(message.data)).getpixel((4, 4)) == pytest.approx((200, 200, 200), abs=2)


def test_the_newest_wins_while_nobody_reads(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """While the way out is blocked, showing returns at once, and only the newest picture waits."""
    reader, writer = pipe
    os.set_blocking(writer.fileno(), True)
    previews, noise = Previews(Outbox(writer)), torch.randint(0, 256, (1, 512, 512, 3), dtype=torch.uint8)
    previews.show("job", 1, noise)  # larger than a pipe holds
    time.sleep(0.3)
    began = time.monotonic()
    for step in range(2, 100):
        previews.show("job", step, grey(step))
    assert time.monotonic() - began < 0.2

    read = [read_message(reader), read_message(reader)]
    assert [message.step for message in read if isinstance(message, Preview)] == [1, 99]


def test_a_preview_that_cannot_be_made_harms_nothing(
    pipe: tuple[BinaryIO, BinaryIO], caplog: pytest.LogCaptureFixture
) -> None:
    """What is no picture is left out with a line in the log; the job ends, and the next one has previews."""
    reader, writer = pipe
    previews = Previews(Outbox(writer))
    previews.show("job", 1, torch.zeros((1, 8, 8, 7), dtype=torch.uint8))
    while "could not be sent" not in caplog.text:
        time.sleep(0.01)
    previews.finish()
    previews.show("job", 2, grey(1))
    message = read_message(reader)
    assert isinstance(message, Preview)
    assert message.step == 2


def test_nothing_comes_after_the_end(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """After `finish`, no preview of the job is sent."""
    reader, writer = pipe
    outbox = Outbox(writer)
    previews = Previews(outbox)
    for step in range(50):
        previews.show("job", step, grey(step))
    previews.finish()
    outbox.send(Done("job", 1.0))
    writer.close()

    messages = []
    while (message := read_message(reader)) is not None:
        messages.append(message)

    assert isinstance(messages[-1], Done)
    assert all(isinstance(message, Preview) for message in messages[:-1])
