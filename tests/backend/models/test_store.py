"""The cache that is shared with other tools: where it is, and which of its snapshots is whole."""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path

from underpaint_backend.models.catalog import locate
from underpaint_backend.models.offers import Source
from underpaint_backend.models.store import Store, cache_folder, part_is_whole

from tests.backend.models.things import offer


def test_the_cache_is_where_other_tools_have_it(tmp_path: Path) -> None:
    """The same variables lead to the same folder as with the hub's own library."""
    constants = importlib.import_module("huggingface_hub.constants")
    assert cache_folder({"HF_HUB_CACHE": "/x"}) == Path("/x")
    assert cache_folder({"HF_HOME": "/y"}) == Path("/y/hub")
    assert cache_folder({"XDG_CACHE_HOME": "/z"}) == Path("/z/huggingface/hub")
    assert cache_folder({}) == Path(constants.default_home) / "huggingface" / "hub"


def test_a_half_snapshot_of_another_tool_is_absent(tmp_path: Path) -> None:
    """Without a list of files, each part is looked at: shards that an index names, or a series by its numbers."""
    snapshot = Store(tmp_path / "hub").snapshot("artist/brush", "a" * 40)
    for path, content in {
        "model_index.json": "{}",
        "scheduler/scheduler_config.json": "{}",
        "tokenizer/merges.txt": "",
        "tokenizer/tokenizer_config.json": "{}",
        "unet/config.json": "{}",
        "unet/model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        ),
        "unet/model-00001-of-00002.safetensors": "1",
        "text_encoder/config.json": "{}",
        "text_encoder/model.safetensors": "1",
        "vae/config.json": "{}",
        "vae/x-00001-of-00002.safetensors": "1",
    }.items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).write_text(content)
    store = Store(tmp_path / "hub")
    for missing in (
        "unet/model-00002-of-00002.safetensors",
        "vae/x-00002-of-00002.safetensors",
        "tokenizer/vocab.json",
    ):
        assert locate(offer(), store).model.state == "absent"
        (snapshot / missing).write_text("2")
    assert locate(offer(), store).model.state == "ready"
    (snapshot / "unet/model.safetensors.index.json").write_text("damaged and longer than before")
    assert locate(offer(), store).model.state == "absent"


def test_a_dangling_link_is_no_file(tmp_path: Path) -> None:
    """As when somebody deleted the blobs."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    assert not part_is_whole(tmp_path)
    (tmp_path / "gone").write_text("weights")
    assert part_is_whole(tmp_path)


def test_the_likelier_commit_is_taken(tmp_path: Path) -> None:
    """The one of the branch, if it is whole; otherwise the youngest that is."""
    store = Store(tmp_path / "hub")
    for commit, age in (("a" * 40, 100), ("b" * 40, 50), ("c" * 40, 0)):
        folder = store.snapshot("artist/brush", commit)
        (folder / "vae").mkdir(parents=True)
        if commit[0] != "c":
            (folder / "vae" / "scheduler_config.json").write_text("{}")
        os.utime(folder, (time.time() - age, time.time() - age))
    source = Source("artist/brush", ("vae/*",))
    assert store.find(source) == store.snapshot("artist/brush", "b" * 40)
    store.keep_commit("artist/brush", "main", "a" * 40)
    assert store.find(source) == store.snapshot("artist/brush", "a" * 40)
    assert store.find(Source("artist/brush", ("vae/*",), "c" * 40)) is None
    assert store.find(Source("artist/brush", ("vae/*",), "b" * 40)) is not None
