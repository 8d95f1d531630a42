"""What could be painted with, what can be, and what fits."""

from __future__ import annotations

import importlib
import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.models.adding import describe_pipeline, read_index
from underpaint_backend.models.catalog import DESCRIPTION, Entry, default_roots, find_models, locate
from underpaint_backend.models.download import in_gb
from underpaint_backend.models.fitness import Choice, Room, fitness, fitted, peak_bytes
from underpaint_backend.models.offers import CATALOG, Source, offer_of, offers, read_offers
from underpaint_backend.models.selection import lacking, needed, safe_path
from underpaint_backend.models.store import Store, cache_folder, part_is_whole
from underpaint_backend.models.suitability import reason_to_refuse
from underpaint_protocol.messages import Request

from tests.backend.models.things import TABLE, offer

FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "flux1", "flux2", "classic")


@pytest.fixture(autouse=True)
def _nobody_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def known() -> dict[str, Any]:
    return {offer.model.id: offer for offer in read_offers(CATALOG)}


def test_every_model_of_the_mission_is_offered() -> None:
    """By the names under which it is chosen."""
    assert set(known()) == {
        *("sd15", "sd15:inpaint", "sd15:ip-adapter", "sdxl", "sdxl:inpaint", "sdxl:ip-adapter"),
        *("flux1:schnell", "flux1:dev", "flux1:krea", "flux1:fill", "flux1:redux", "flux1:kontext"),
        *("flux2-klein:4b", "flux2-klein:base-4b", "flux2-klein:9b", "flux2-klein:base-9b", "flux2:dev"),
    }


@pytest.mark.parametrize("name", known())
def test_an_offer_is_complete(name: str) -> None:
    """A licence, a size, a memory, a scheduler that it has, and files by name or by folder."""
    given = known()[name]
    model = given.model
    assert model.family in FAMILIES
    assert model.licence
    assert model.state == "absent"
    assert model.default_scheduler in model.schedulers
    assert model.download > 1e9
    assert given.memory["bf16"] > given.memory["fp8"] > 1e8
    assert model.memory == given.memory["bf16"] < model.download * 1.05
    assert "model_index.json" in given.sources[0].files
    assert all(source.variant in ("", "fp16") for source in given.sources)
    assert all(source.pinned for source in given.sources)


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "references", "gated"),
    [
        ("flux2-klein:4b", 4, 1.0, 4, False),
        ("flux2-klein:9b", 4, 1.0, 4, True),
        ("flux2-klein:base-4b", 50, 4.0, 4, False),
        ("flux2:dev", 28, 4.0, 6, True),
        ("flux1:schnell", 4, 1.0, 0, True),
        ("flux1:fill", 50, 30.0, 0, True),
        ("flux1:kontext", 30, 2.5, 1, True),
        ("sd15:inpaint", 25, 7.5, 0, False),
    ],
)
def test_defaults_are_those_of_the_variant(
    name: str, steps: int, guidance: float, references: int, gated: bool
) -> None:
    """A distilled model takes four steps and no guidance; others what their makers advise."""
    model = known()[name].model
    assert (model.default_steps, model.default_guidance) == (steps, guidance)
    assert (model.max_references, model.gated) == (references, gated)


def test_what_is_absent_is_listed_after_what_is_here() -> None:
    """With the bytes that have to come."""
    models = [entry.model for entry in find_models(default_roots()).values()]
    assert models[0].id == "primer-inpaint"
    assert models[0].state == "ready"
    klein = next(model for model in models if model.id == "flux2-klein:4b")
    assert (klein.state, klein.download) == ("absent", 15_980_000_000)
    assert klein.detail


def test_asking_again_and_again_is_cheap() -> None:
    """Models are looked for once for each job: files are not parsed each time (2 ms here, 20 are allowed)."""
    find_models(default_roots())
    times = []
    for _ in range(20):
        start = time.perf_counter()
        find_models(default_roots())
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


def test_one_s_own_models_are_noticed_at_once(tmp_path: Path) -> None:
    """models.toml is read again when it changed, and replaces what has the same id."""
    path = tmp_path / "home" / "models.toml"
    path.parent.mkdir()
    path.write_text('[[model]]\nid = "mine"\nfamily = "flux1"\n' + OWN)
    entry = find_models(default_roots())["mine"]
    assert entry.model.schedulers == ("euler", "heun", "dpm++2m", "unipc")
    path.write_text('[[model]]\nid = "sdxl"\nfamily = "classic"\n' + OWN)
    found = find_models(default_roots())
    assert "mine" not in found
    assert found["sdxl"].model.family == "classic"


OWN = """name = "Mine"
tasks = ["text_to_image"]
native_area = 1048576
size_multiple = 16
default_steps = 4
default_guidance = 1.0
default_scheduler = "euler"
repository = "me/mine"
files = ["model_index.json", "vae/*"]
"""


@pytest.mark.parametrize(
    "content",
    [
        "[[model]",
        "model = 3",
        "[model]\n",
        '[[model]]\nid = "x"\n',
        '[[model]]\nid = "m"\nfamily = "x"\nalso = [1]\n' + OWN,
    ],
)
def test_a_damaged_list_costs_only_one_s_own(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    """The log names the file; the other models stay."""
    path = tmp_path / "home" / "models.toml"
    path.parent.mkdir()
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        found = find_models(default_roots())
    assert {"primer-inpaint", "sdxl"} <= set(found)
    assert "models.toml" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "../../etc"},
        {"repository": "artist/brush/more"},
        {"repository": "brush"},
        {"repository": "a--b/c"},
        {"repository": 7},
        {"revision": "../main"},
        {"revision": ""},
        {"variant": "../fp16"},
        {"files": ["../x/*"]},
        {"files": ["/x/*"]},
        {"files": []},
        {"files": "unet/*"},
        {"parts": {"eye": "../eye"}},
        {"also": [{"repository": "x"}]},
        {"folder": "relative/folder"},
        {"id": "Up:Per"},
        {"id": "a..b"},
        {"parameters": {"denoiser": "much"}},
        {"parameters": 3},
    ],
)
def test_an_entry_that_cannot_be_is_refused_with_its_name(change: dict[str, Any]) -> None:
    """No part of an entry leads out of a folder."""
    with pytest.raises(ValueError, match=r"brush:small|Up:Per|a\.\.b"):
        offer_of({**TABLE, **change})


def test_folders_with_a_description_are_found_as_before(tmp_path: Path) -> None:
    """They come before what is offered under the same name."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    description = {**TABLE, "id": "sdxl", "name": "My own SDXL"}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    found = find_models([tmp_path / "models"])
    assert (found["sdxl"].model.name, found["sdxl"].folder) == ("My own SDXL", folder)
    (folder / DESCRIPTION).write_text(json.dumps({**description, "name": "Renamed now"}))
    assert find_models([tmp_path / "models"])["sdxl"].model.name == "Renamed now"


def test_an_entry_can_be_a_key() -> None:
    """Whoever holds loaded models by entry may go on doing so."""
    model = offer().model
    assert len({Entry(model, Path("a")), Entry(model, Path("a")), Entry(model, Path("b"))}) == 2


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


GB = 1_000_000_000


def test_memory_is_that_of_the_larger_half() -> None:
    """The prompt is encoded before painting begins, so the two are never there together."""
    memory = peak_bytes(11.9, 4.9, 0.1)
    assert memory == {"bf16": 24 * GB, "fp8": round(12.1 * GB), "nf4": round((11.9 * 0.5625 + 0.2) * GB)}
    assert peak_bytes(1, 24, 0)["bf16"] == 48 * GB


def cpu(total: float) -> Room:
    """A machine without a graphics card, with so many GiB of which 3 are free."""
    return Room(3 << 30, int(total * (1 << 30)), on_cpu=True)


def card(total: float, ram: float) -> Room:
    """A graphics card with so many GiB, in a machine with so many."""
    return Room(int(total * (1 << 30)), int(total * (1 << 30)), int(ram * (1 << 30)), int(ram * (1 << 30)))


def test_what_does_not_fit_is_told_with_numbers() -> None:
    """At the smallest precision that every install has; what others use now does not count."""
    model = known()["flux1:dev"].model
    assert fitness(model, Room(0, 24 * GB, on_cpu=True)) == ""
    assert fitness(model, Room(1 * GB, 12 * GB, on_cpu=True)) == ""
    reason = fitness(model, cpu(8))
    assert reason == "it needs 11.2 GiB of memory at least, and there are 8.0 GiB, 3.0 GiB of them free"
    assert fitness(model, cpu(8), Choice("nf4")) == ""
    for precision in ("fp8", "int8"):
        assert fitness(model, cpu(8), Choice(precision)) == reason
    assert fitted(known()["sd15"].model, "").state == "absent"
    large = fitted(model, reason)
    assert (large.state, large.detail) == ("unfit", reason)


@pytest.mark.parametrize(
    ("model", "room", "choice", "needs"),
    [
        ("flux2-klein:4b", cpu(6), Choice("float32", "none"), "15.3"),
        ("flux2-klein:4b", cpu(6), Choice("bfloat16"), "7.6"),
        ("flux2-klein:4b", cpu(6), Choice("float16", "none"), "7.6"),
        ("flux2-klein:4b", cpu(6), Choice(), ""),
        ("flux2-klein:4b", cpu(32), Choice("auto", "none", 3 << 30), "3.8"),
        ("flux2-klein:4b", cpu(32), Choice("auto", "auto", 3 << 30), ""),  # the rest is read from the disk
        ("flux1:dev", cpu(8), Choice("auto", "group"), ""),
        ("flux1:dev", cpu(8), Choice("bfloat16", "group"), ""),
        ("flux1:dev", card(8, 32), Choice(), ""),
        ("flux1:dev", card(8, 32), Choice("auto", "none"), "11.2"),
        ("flux1:dev", card(12, 32), Choice("auto", "none"), ""),
        ("flux1:dev", card(12, 32), Choice("auto", "none", 8 << 30), "11.2"),
        ("flux1:dev", card(12, 6), Choice(), ""),
        ("flux1:dev", card(12, 6), Choice("auto", "auto", 4 << 30), "11.2"),
        ("flux1:dev", card(8, 8), Choice("auto", "group"), "22.3"),  # what waits in RAM is not packed
        ("flux1:dev", card(8, 16), Choice("auto", "group"), ""),
    ],
)
def test_whether_a_model_fits_heeds_what_was_chosen(model: str, room: Room, choice: Choice, needs: str) -> None:
    """Precision, offload and the limit: each changes what there must be, or where it may be."""
    reason = fitness(known()[model].model, room, choice)
    assert reason.startswith(f"it needs {needs} GiB") if needs else reason == ""


def test_what_is_quantised_in_its_file_is_not_made_smaller() -> None:
    """Nor larger, whatever precision is chosen; and on a CPU it stays in memory."""
    model = known()["flux2-klein:4b"].model
    for choice in (Choice(), Choice("float32"), Choice("nf4", "none"), Choice("auto", "group")):
        assert fitness(model, cpu(7), choice, filed=True).startswith("it needs 7.6 GiB")
        assert fitness(model, cpu(8), choice, filed=True) == ""


def test_a_model_of_unknown_size_is_given_a_try() -> None:
    """What nobody measured is not refused."""
    assert fitness(offer().model, Room(0, 0)) == ""


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


def test_the_cache_is_where_other_tools_have_it(tmp_path: Path) -> None:
    """The same variables lead to the same folder as with the hub's own library."""
    constants = importlib.import_module("huggingface_hub.constants")
    assert cache_folder({"HF_HUB_CACHE": "/x"}) == Path("/x")
    assert cache_folder({"HF_HOME": "/y"}) == Path("/y/hub")
    assert cache_folder({"XDG_CACHE_HOME": "/z"}) == Path("/z/huggingface/hub")
    assert cache_folder({}) == Path(constants.default_home) / "huggingface" / "hub"


def test_every_offer_has_a_page_for_its_licence() -> None:
    """Where it is read, and accepted."""
    assert offers()["flux1:redux"].urls == (
        "https://huggingface.co/black-forest-labs/FLUX.1-dev",
        "https://huggingface.co/black-forest-labs/FLUX.1-Redux-dev",
    )


def test_the_page_for_artists_has_every_model_with_its_numbers() -> None:
    """Sizes, memory and licences on the page are those of the catalog."""
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert list(rows) == list(known())
    for name, given in known().items():
        cells = [cell.strip() for cell in rows[name].strip("|").split("|")]
        numbers = [in_gb(given.model.download), in_gb(given.memory["bf16"]), in_gb(given.memory["fp8"])]
        assert cells[2:] == [*numbers, given.model.licence + (", gated" if given.model.gated else "")]
