"""What configurations may say. Files of strangers say anything, and libraries believe it, or notice too late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import CLIPTokenizer

from .exceptions import BadFiles
from .parts import Parts

MOST_LEVELS = 100_000
"""Noise levels that a model was trained with, at most; 1000 are usual. Schedulers make a table of them."""
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
LEAST_TOKENS = 3
"""One says where a prompt begins, one where it ends, and between them is a word."""
CLIP_PLACES = 77
"""Tokens that CLIP has places for where its configuration does not say it."""


def refuse_odd_levels(scheduler: Mapping[str, Any]) -> None:
    """Raises `BadFiles` if the configuration of a scheduler has too many noise levels, or none."""
    levels = scheduler.get("num_train_timesteps", 1000)
    if type(levels) is not int or not 1 <= levels <= MOST_LEVELS:
        raise BadFiles(f"its scheduler has {str(levels)[:20]} noise levels")


def refuse_odd_prediction(scheduler: Mapping[str, Any]) -> None:
    """Raises `BadFiles` if a model predicts, by the configuration of its scheduler, what nobody knows."""
    prediction = scheduler.get("prediction_type", PREDICTIONS[0])
    if prediction not in PREDICTIONS:
        raise BadFiles(f"its scheduler does not know what it predicts: {str(prediction)[:20]!r}")


def refuse_odd_latents(vae: Mapping[str, Any]) -> None:
    """Raises `BadFiles` if the latents of a VAE with this configuration have no channels, or no scale."""
    channels, scale, shift = (vae.get(name) for name in ("latent_channels", "scaling_factor", "shift_factor"))
    if channels is not None and (type(channels) is not int or channels < 1):
        raise BadFiles(f"its VAE has {str(channels)[:20]!r} channels")
    if not all(number is None or _is_finite(number) for number in (scale, shift)) or scale == 0:
        raise BadFiles("its VAE scales latents by what is no number")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def clip_tokenizer(parts: Parts, name: str, encoder: str) -> Any:
    """CLIP's tokenizer `name`, which cuts at as many tokens as the text encoder `encoder` has places for.

    Raises `BadFiles`.
    """
    tokenizer = parts.tokenizer(name, CLIPTokenizer)
    most = tokenizer.model_max_length
    places = parts.config(encoder).get("max_position_embeddings", CLIP_PLACES)
    if type(most) is not int or type(places) is not int or min(most, places) < LEAST_TOKENS:
        raise BadFiles(f"{name} has no room for a word")
    tokenizer.model_max_length = min(most, places)  # without one in its file it says 10^30
    return tokenizer
