"""What the index of a pipeline tells of a model that is added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from underpaint_backend.models.adding import describe_pipeline, read_index
from underpaint_backend.models.offers import offer_of
from underpaint_backend.models.suitability import reason_to_refuse
from underpaint_protocol.messages import Request


@pytest.mark.parametrize(
    ("pipeline", "family", "task"),
    [
        ("StableDiffusionInpaintPipeline", "stable_diffusion", "inpaint"),
        ("StableDiffusionXLPipeline", "stable_diffusion_xl", "text_to_image"),
        ("FluxPipeline", "flux1", "inpaint"),
        ("FluxFillPipeline", "flux1", "inpaint"),
        ("FluxKontextPipeline", "flux1", "edit"),
        ("Flux2KleinPipeline", "flux2", "edit"),
        ("Flux2Pipeline", "flux2", "edit"),
        ("QwenImageEditPipeline", "classic", "edit"),
        ("StableDiffusion3Pipeline", "classic", "text_to_image"),
        ("ZImageInpaintPipeline", "classic", "inpaint"),
    ],
)
def test_a_pipeline_s_name_tells_its_family(pipeline: str, family: str, task: str) -> None:
    """And what it can do."""
    table = describe_pipeline({"_class_name": pipeline})
    assert table["family"] == family
    assert task in table["tasks"]


def test_a_pipeline_that_runs_as_a_whole_keeps_its_scheduler(tmp_path: Path) -> None:
    """The one that it came with is the only one that is sure to work, also in entries written by hand."""
    table = describe_pipeline({"_class_name": "StableDiffusion3Pipeline"})
    assert (table["schedulers"], table["default_scheduler"]) == (["own"], "own")
    described = {"id": "a", "name": "A", **table, "folder": str(tmp_path)}
    del described["schedulers"]
    assert offer_of(described).model.schedulers == ("own",)
    assert (
        reason_to_refuse(Request("a", table["tasks"][0], 64, 64), replace(offer_of(described).model, state="ready"))
        is None
    )


def test_a_pipeline_with_another_attention_is_refused_by_name() -> None:
    """Its weights would load as those of [klein], and paint something else; who knows better says so."""
    index = {"_class_name": "Flux2KleinKVPipeline"}
    with pytest.raises(ValueError, match="Flux2KleinKVPipeline"):
        describe_pipeline(index)
    assert describe_pipeline(index, "classic")["family"] == "classic"
    assert describe_pipeline({"_class_name": "Flux2KleinInpaintPipeline"})["family"] == "flux2"


def test_a_pipeline_that_is_distilled_takes_four_steps() -> None:
    """As klein says of itself."""
    table = describe_pipeline({"_class_name": "Flux2KleinPipeline", "is_distilled": True})
    assert (table["default_steps"], table["default_guidance"]) == (4, 1.0)


def test_only_the_parts_that_are_needed_are_listed() -> None:
    """No safety checker, nothing that is null, and no name that is none."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": [None, None],
        "../evil": ["a", "b"],
    }
    assert describe_pipeline(index)["files"] == ["model_index.json", "unet/*"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_index_is_said(data: bytes) -> None:
    """Whatever it holds."""
    with pytest.raises(ValueError, match="damaged"):
        read_index(data)
