"""Whether a request may be done here: the catalog and the limits, beyond what single fields allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from underpaint_protocol.errors import ErrorInfo, describe
from underpaint_protocol.messages import Limits, Model, Request

from ..models.schedulers import steps_of
from ..models.suitability import reason_to_refuse
from .sessions import Job


def refuse(request: Request, models: Mapping[str, Model], limits: Limits) -> ErrorInfo | None:
    """The first reason why `request` cannot be done here; None if it can."""
    model = models.get(request.model)
    if model is None:
        return describe("unknown_model", detail=request.model)
    return (
        _reason_in_limits(request, limits)
        or reason_to_refuse(request, model)
        or _reason_in_work(request, model, limits)
    )


def refuse_now(request: Request, jobs: Iterable[Job], work: int, used: int, limits: Limits) -> ErrorInfo | None:
    """Why a request that can be done has to wait for another time; None if it need not.

    `jobs` are those of the same token that have not ended; `used` is the work that it was charged for today.
    """
    waiting = list(jobs)
    if len(waiting) >= limits.max_jobs:
        return describe("too_many_jobs", detail=len(waiting))
    held = sum(image.size for job in waiting for image in job.submit.request.images)
    if held + _bytes_of(request) > limits.max_tile_bytes:
        return describe("too_many_jobs", detail=f"{held >> 20} MiB of pixels")
    if limits.work_per_day is not None and used + work > limits.work_per_day:
        detail = f"{used} of {limits.work_per_day} megapixel steps, and this picture takes {work}"
        return describe("allowance_used", detail=detail, when="00:00 UTC")
    return None


def work_of(request: Request, model: Model) -> int:
    """What a request costs, in megapixel steps, rounded up: its area times its pictures times their steps."""
    steps = steps_of(request.scheduler or model.default_scheduler, request.steps or model.default_steps)
    return math.ceil(request.width * request.height * request.batch * steps / 1e6)


def _reason_in_limits(request: Request, limits: Limits) -> ErrorInfo | None:
    if request.batch > limits.max_batch:
        return describe("invalid_field", detail=f"batch may be at most {limits.max_batch}; it was {request.batch}")
    if request.width * request.height * request.batch > limits.max_pixels:
        detail = f"{request.batch} × {request.width} × {request.height} px, and {limits.max_pixels} px are allowed"
        return describe("too_many_pixels", detail=detail)
    if _bytes_of(request) > limits.max_tile_bytes:
        detail = f"{_bytes_of(request) >> 10} KiB of pixels, and {limits.max_tile_bytes >> 10} KiB are allowed"
        return describe("too_many_pixels", detail=detail)
    return None


def _reason_in_work(request: Request, model: Model, limits: Limits) -> ErrorInfo | None:
    work = work_of(request, model)
    if limits.work_per_day is None or work <= limits.work_per_day:
        return None
    return describe("too_much_work", detail=f"{work} megapixel steps, and {limits.work_per_day} are allowed")


def _bytes_of(request: Request) -> int:
    return sum(image.size for image in request.images)
