"""From whatever was raised to the error that travels."""

from __future__ import annotations

import logging

import torch
from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.exceptions import ProtocolError

from ..engine.device import Device, bytes_wanted, is_out_of_memory
from ..engine.exceptions import EngineError, OutOfMemory

log = logging.getLogger(__name__)


class Refused(Exception):
    """The request cannot be done as it stands; `info` says why."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


def explain(error: Exception, device: Device) -> ErrorInfo:
    """The line of the protocol's table for an exception. What is in no line is logged, with where it came from."""
    if isinstance(error, (EngineError, Refused)):
        return error.info
    if isinstance(error, ProtocolError):
        return describe(error.code, detail=error)
    if is_out_of_memory(error):
        return OutOfMemory(bytes_wanted(error), device.memory()[0]).info
    log.error("a job failed", exc_info=error)
    if isinstance(error, torch.AcceleratorError):
        return describe("worker_died", detail="its graphics card stopped answering")
    return describe("internal")
