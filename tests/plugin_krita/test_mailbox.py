"""The mailbox between the network thread and Krita's main thread."""

from __future__ import annotations

import threading

from underpaint_krita.mailbox import Mailbox


class Bell:
    """Counts how often the main thread was woken."""

    def __init__(self) -> None:
        self.rings = 0

    def __call__(self) -> None:
        self.rings += 1


def test_events_keep_their_order() -> None:
    """No event is lost, and they come out as they went in."""
    mailbox: Mailbox[int, str] = Mailbox(Bell())
    for event in range(5):
        mailbox.post(event)
    assert mailbox.collect() == ([0, 1, 2, 3, 4], None)
    assert mailbox.collect() == ([], None)


def test_the_newest_preview_wins() -> None:
    """A preview that nobody has looked at is replaced by the next one."""
    mailbox: Mailbox[int, str] = Mailbox(Bell())
    mailbox.show("first")
    mailbox.show("second")
    assert mailbox.collect() == ([], "second")
    assert mailbox.collect() == ([], None)


def test_one_wake_up_until_it_is_collected() -> None:
    """However much comes in, the main thread is woken once; after it has looked, once more."""
    bell = Bell()
    mailbox: Mailbox[int, str] = Mailbox(bell)
    for event in range(1000):
        mailbox.post(event)
        mailbox.show(str(event))
    assert bell.rings == 1
    mailbox.collect()
    mailbox.show("next")
    assert bell.rings == 2


def test_nothing_is_lost_between_threads() -> None:
    """With writers in several threads, every event comes out, and a wake-up comes before the last of them."""
    woken = threading.Event()
    mailbox: Mailbox[int, str] = Mailbox(woken.set)

    def write(start: int) -> None:
        for event in range(start, start + 1000):
            mailbox.post(event)

    writers = [threading.Thread(target=write, args=[start]) for start in (0, 1000, 2000)]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    while len(seen) < 3000:
        assert woken.wait(10)
        woken.clear()
        seen += mailbox.collect()[0]
    for writer in writers:
        writer.join()
    assert sorted(seen) == list(range(3000))
