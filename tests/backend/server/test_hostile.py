"""What bad input gets: a typed error, or a close code that says why. The daemon lives, and others notice nothing."""

from __future__ import annotations

import time

import pytest
from underpaint_protocol.exceptions import MalformedMessage
from underpaint_protocol.messages import MAX_FRAME, vocabulary

ROW = b"\xdc\x10\x00" + b"\x90" * 4096
CROWDED = b"\x82\xa4type\xa4have\xa1x\xdc\x01\xff" + ROW * 511
"""A map of two megabytes, as large as a frame may be, with two million empty lists in it."""


def test_a_frame_full_of_empty_lists_is_given_up_early() -> None:
    """Two million lists in one frame cost a fraction of the two seconds that unpacking them all takes."""
    assert len(CROWDED) < MAX_FRAME
    began = time.process_time()
    with pytest.raises(MalformedMessage, match="more than 32768 values"):
        vocabulary.decode(CROWDED)
    assert time.process_time() - began < 0.5
