"""How many tiles one request may name: a message of 1 MB would have room for sixty thousand."""

from __future__ import annotations

import os

import msgpack
import pytest
from underpaint_protocol import fields
from underpaint_protocol.exceptions import InvalidField
from underpaint_protocol.messages import MAX_NAMES, Image, Request, Submit, vocabulary

SIDE = 64 * 256
NAMES = os.urandom(16 * 4096)
LARGE = {"width": SIDE, "height": SIDE, "channels": 3, "tiles": NAMES}
SMALL = {"width": 1, "height": 1, "channels": 3, "tiles": NAMES[:16]}


def submit(**images: object) -> bytes:
    """A submit as a client might send it."""
    request = {"model": "m", "task": "edit", "width": SIDE, "height": SIDE, **images}
    packed: bytes = msgpack.packb({"type": "submit", "job": "a", "request": request})
    return packed


@pytest.mark.parametrize(
    "images", [{"references": [LARGE] * 3}, {"image": LARGE, "mask": LARGE, "references": [SMALL]}], ids=["list", "all"]
)
def test_too_many_names_are_refused_before_they_are_cut(
    images: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting costs nothing, and cutting them would have the daemon do nothing else meanwhile."""
    monkeypatch.setattr(fields, "DIGEST_SIZE", None)  # nobody gets as far as to use it
    with pytest.raises(InvalidField, match=f"at most {MAX_NAMES} tiles") as refused:
        vocabulary.decode(submit(**images))
    assert refused.value.job == "a"


def test_as_many_as_are_allowed_pass() -> None:
    """Two pictures of the largest size."""
    message = vocabulary.decode(submit(references=[LARGE] * 2))
    assert isinstance(message, Submit)
    assert sum(len(image.tiles) for image in message.request.images) == MAX_NAMES


def test_nobody_can_make_a_request_that_would_be_refused() -> None:
    """A client hears of it before anything is sent."""
    image = Image(SIDE, SIDE, 3, tuple(NAMES[at : at + 16] for at in range(0, len(NAMES), 16)))
    with pytest.raises(InvalidField, match=f"at most {MAX_NAMES} tiles"):
        Request("m", "edit", SIDE, SIDE, references=(image, image, image))


@pytest.mark.parametrize(
    ("images", "field"),
    [
        ({"image": 7}, "request.image"),
        ({"image": {**SMALL, "tiles": "words"}}, "request.image.tiles"),
        ({"references": 7}, "request.references"),
        ({"references": [7]}, "request.references[0]"),
    ],
)
def test_what_is_no_picture_has_its_own_error(images: dict[str, object], field: str) -> None:
    """Counting takes nothing for granted."""
    with pytest.raises(InvalidField) as refused:
        vocabulary.decode(submit(**images))
    assert refused.value.field == field
