"""Whether a request may be done here: the catalog and the limits, beyond what single fields allow."""

from __future__ import annotations

from collections.abc import Mapping

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Limits, Model, Request

from ..models.suitability import reason_to_refuse


def refuse(request: Request, models: Mapping[str, Model], limits: Limits) -> ErrorInfo | None:
    """The first reason why `request` cannot be done here; None if it can."""
    model = models.get(request.model)
    if model is None:
        return describe("unknown_model", detail=request.model)
    return _reason_in_limits(request, limits) or reason_to_refuse(request, model)


def _reason_in_limits(request: Request, limits: Limits) -> ErrorInfo | None:
    if request.batch > limits.max_batch:
        return describe("invalid_field", detail=f"batch may be at most {limits.max_batch}; it was {request.batch}")
    if request.width * request.height * request.batch > limits.max_pixels:
        detail = f"{request.batch} × {request.width} × {request.height} px, and {limits.max_pixels} px are allowed"
        return describe("too_many_pixels", detail=detail)
    return None
