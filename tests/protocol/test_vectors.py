"""The golden vectors: what travels does not change by accident."""

from __future__ import annotations

from typing import Any

import pytest
from underpaint_protocol.exceptions import ProtocolError
from underpaint_protocol.messages import vocabulary

from tests.protocol.golden import VECTORS, from_json


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda vector: vector["message"]["type"])
def test_bytes_mean_what_the_vector_says(vector: dict[str, Any]) -> None:
    """Decoding a vector's bytes gives its message, and encoding that message gives the same bytes."""
    message = vocabulary.decode(bytes.fromhex(vector["hex"]))
    assert vocabulary.to_wire(message) == from_json(vector["message"])
    assert vocabulary.encode(message).hex() == vector["hex"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["what"])
def test_bad_bytes_are_refused_with_their_code(vector: dict[str, Any]) -> None:
    """Bytes that are no message raise the error that the vector names."""
    with pytest.raises(ProtocolError) as refusal:
        vocabulary.decode(bytes.fromhex(vector["hex"]))
    assert refusal.value.code == vector["code"]


def test_every_message_has_a_vector() -> None:
    """A message type without a golden vector is not finished."""
    assert {name for name, _ in vocabulary} == {vector["message"]["type"] for vector in VECTORS["messages"]}
