"""How often a refusal is told at once, by a clock of the test's own."""

from __future__ import annotations

import pytest
from underpaint_backend.server.access.attempts import ADDRESSES, ATTEMPTS, PERIOD, Attempts

WRONG = "unauthorized"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> Attempts:
    return Attempts(clock)


def test_a_few_wrong_tokens_are_answered(attempts: Attempts) -> None:
    """Somebody who mistypes is not made to wait."""
    assert [attempts.failed("10.0.0.1", WRONG) for _ in range(ATTEMPTS)] == [0] * ATTEMPTS


def test_more_have_to_wait(attempts: Attempts, clock: Clock) -> None:
    """Until the minute that began with the first is over, and not for longer, however often one comes."""
    for _ in range(ATTEMPTS):
        attempts.failed("10.0.0.1", WRONG)
    clock.now += PERIOD / 4
    assert attempts.failed("10.0.0.1", WRONG) == PERIOD * 3 / 4
    clock.now += PERIOD * 3 / 4 - 0.5
    assert attempts.failed("10.0.0.1", WRONG) == 1
    clock.now += 0.5
    assert attempts.failed("10.0.0.1", WRONG) == 0


def test_the_log_hears_of_it_once(attempts: Attempts, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """In each minute, so that whoever comes on and on cannot fill it."""
    for _ in range(ATTEMPTS * 10):
        attempts.failed("10.0.0.1", WRONG)
    assert [record.args for record in caplog.records] == [("10.0.0.1", ATTEMPTS, WRONG)]
    clock.now += PERIOD
    for _ in range(ATTEMPTS + 1):
        attempts.failed("10.0.0.1", WRONG)
    assert len(caplog.records) == 2


def test_one_address_is_nothing_to_another(attempts: Attempts) -> None:
    """Only who came too often waits."""
    for _ in range(ATTEMPTS + 1):
        attempts.failed("10.0.0.1", WRONG)
    assert attempts.failed("10.0.0.2", WRONG) == 0


def test_one_reason_is_nothing_to_another(attempts: Attempts) -> None:
    """Who mistypes is told so, whatever web pages on the same machine try."""
    for _ in range(ATTEMPTS + 1):
        attempts.failed("10.0.0.1", "forbidden_origin")
    assert attempts.failed("10.0.0.1", WRONG) == 0
    assert attempts.failed("10.0.0.1", "forbidden_origin") > 0


@pytest.mark.parametrize(
    ("first", "second"),
    [("2001:db8::1", "2001:db8::ffff"), ("10.0.0.1", "::ffff:10.0.0.1"), ("fe80::1%eth0", "fe80::2%eth0"), ("", "")],
)
def test_addresses_of_one_machine_are_one(attempts: Attempts, first: str, second: str) -> None:
    """A machine has as many IPv6 addresses as it likes; they count together."""
    for _ in range(ATTEMPTS):
        attempts.failed(first, WRONG)
    assert attempts.failed(second, WRONG) > 0


def test_memory_is_bounded(attempts: Attempts) -> None:
    """A million addresses cost as much as a few thousand; who comes on and on is remembered while others come."""
    for number in range(ADDRESSES * 2):
        attempts.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", WRONG)
    assert len(attempts) == ADDRESSES


def test_an_old_address_goes_first(attempts: Attempts, clock: Clock) -> None:
    """Whose minute began last is kept longest."""
    attempts.failed("old", WRONG)
    for number in range(ADDRESSES - 1):
        attempts.failed(f"other {number}", WRONG)
    clock.now += PERIOD
    for _ in range(ATTEMPTS):
        attempts.failed("old", WRONG)  # its minute begins anew
    attempts.failed("one more", WRONG)
    assert len(attempts) == ADDRESSES
    assert attempts.failed("old", WRONG) > 0
