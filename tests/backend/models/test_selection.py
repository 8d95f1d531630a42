"""Which files of a repository are fetched."""

from __future__ import annotations

import pytest
from underpaint_backend.models.offers import Source
from underpaint_backend.models.selection import lacking, needed, safe_path

LISTED = [
    "model_index.json",
    "flux.safetensors",
    "unet/config.json",
    "unet/model.safetensors",
    "unet/model.fp16.safetensors",
    "unet/model.non_ema.safetensors",
    "unet/model.safetensors.index.json",
    "unet/model.safetensors.index.fp16.json",
    "unet/model.fp16-00001-of-00002.safetensors",
    "unet/pytorch_model.bin",
    "unet/evil.py",
    "unet/deep/model.safetensors",
    "text/model-00001-of-00002.safetensors",
]


def test_only_one_set_of_weights_is_chosen() -> None:
    """The variant where there is one, the plain ones elsewhere; never code or pickles."""
    source = Source("a/b", ("model_index.json", "unet/*", "text/*"), variant="fp16")
    assert needed(source, LISTED) == [
        "model_index.json",
        "unet/config.json",
        "text/model-00001-of-00002.safetensors",
        "unet/model.fp16-00001-of-00002.safetensors",
        "unet/model.fp16.safetensors",
        "unet/model.safetensors.index.fp16.json",
    ]
    plain = Source("a/b", ("unet/*",))
    assert needed(plain, LISTED) == ["unet/config.json", "unet/model.safetensors", "unet/model.safetensors.index.json"]


def test_a_repository_with_half_precision_alone_is_taken_so() -> None:
    """As stable-diffusion-inpainting: better than nothing."""
    listed = ["unet/config.json", "unet/x.fp16.safetensors"]
    assert needed(Source("a/b", ("unet/*",)), listed) == listed
    assert lacking(Source("a/b", ("unet/*", "vae/*")), listed) == ["vae/*"]


def test_a_file_that_is_named_is_taken_whatever_its_variant() -> None:
    """Beside others in the same folder."""
    source = Source("a/b", ("models/x.fp16.safetensors", "models/eye/*"), variant="")
    listed = ["models/x.fp16.safetensors", "models/y.safetensors", "models/eye/config.json"]
    assert needed(source, listed) == ["models/eye/config.json", "models/x.fp16.safetensors"]


@pytest.mark.parametrize("path", ["a.json", "unet/model-00001-of-00002.safetensors", "a b/ü.txt", ".gitattributes"])
def test_ordinary_names_are_safe(path: str) -> None:
    """Nothing that repositories hold is refused."""
    assert safe_path(path)
