"""Pipelines that bring programs, and damaged files: refused in words, before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from underpaint_backend.engine.exceptions import ModelBroken
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.classic_pipelines import (
    FILTERS,
    instruct_pix2pix,
    opened,
    painted,
    write,
)

pytestmark = FILTERS


def refused(entry: Entry, words: str) -> None:
    """The model cannot be loaded, and the error says why."""
    with pytest.raises(ModelBroken, match=words):
        opened(entry)


def indexed(entry: Entry, **changes: Any) -> Entry:
    """The model with another index."""
    path = entry.folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return entry


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """A tiny model whose files may be damaged."""
    return write(tmp_path / "damaged", instruct_pix2pix())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "DreamPipeline"}, "no pipeline 'DreamPipeline'"),
        ({"_class_name": ["pipeline", "Evil"]}, "no other program is run"),
        ({"_class_name": "AutoencoderKL"}, "no other program is run"),
        ({"_class_name": "StableAudioPipeline"}, "does not make pictures"),
        ({"_class_name": "StableVideoDiffusionPipeline"}, "does not make pictures"),
        ({"unet": ["subprocess", "Popen"]}, "neither diffusers nor transformers has"),
        ({"unet": ["diffusers", "torch"]}, "neither diffusers nor transformers has"),
        ({"tokenizer": ["os", "system", "x"]}, "must be a library and a class"),
        ({"scheduler": ["diffusers", "AutoencoderKL"]}, "AutoencoderKL is no scheduler"),
        ({"scheduler": [None, None]}, "it has no scheduler"),
    ],
)
def test_no_other_program_is_run(entry: Entry, changes: dict[str, Any], words: str) -> None:
    """An index names a pipeline for pictures, made of classes of diffusers and transformers, or it is refused."""
    refused(indexed(entry, **changes), words)


def test_a_tokenizer_that_brings_a_program_does_not_run_it(entry: Entry) -> None:
    """Not even for one of the classes that look themselves for what to load."""
    ran = entry.folder / "ran"
    (entry.folder / "tokenizer" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = entry.folder / "tokenizer" / "tokenizer_config.json"
    brought = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **brought}))

    refused(indexed(entry, tokenizer=["transformers", "AutoTokenizer"]), "contains custom code")
    assert not ran.exists()


def test_pickles_are_not_opened(entry: Entry) -> None:
    """Weights that are a pickle are refused unopened."""
    path = next((entry.folder / "unet").glob("*.safetensors"))
    path.rename(path.with_suffix(".bin"))

    refused(entry, "of a kind that can run any program")


def test_what_a_pipeline_can_do_without_may_be_missing(entry: Entry) -> None:
    """A safety checker and its image processor are named in many an index, and are not asked for."""
    judges = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    expected = painted(opened(entry))

    indexed(entry, feature_extractor=["transformers", "CLIPImageProcessor"], requires_safety_checker=True, **judges)

    np.testing.assert_array_equal(painted(opened(entry)), expected)


def test_a_damaged_index_is_said(entry: Entry) -> None:
    """An index that is no object or none at all is named in the error."""
    (entry.folder / "model_index.json").write_text("[]")
    refused(entry, "model_index.json must hold one object")
    (entry.folder / "model_index.json").write_text("{")
    refused(entry, "model_index.json: JSONDecodeError")
