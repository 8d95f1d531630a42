"""One odd file or entry costs nothing but itself: the others are listed, and painted with."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from underpaint_backend.models import catalog, folders
from underpaint_backend.models import offers as offering
from underpaint_backend.models.adding import folder_table, place_of
from underpaint_backend.models.catalog import Entry, default_roots, find_models
from underpaint_backend.models.folder_list import add_folder
from underpaint_backend.models.folders import Contents, folder_entries
from underpaint_backend.models.headers import MAX_NAME, BadFile, Header, Stored, parse_header
from underpaint_backend.models.recognise import PACKS, parts_in, recognise
from underpaint_backend.models.store import Store
from underpaint_backend.server.hosts.local import LocalHost, LocalOptions
from underpaint_protocol.messages import Done, Request, Submit

from tests.backend.models.odd import BRUSH, DEEP, PLANTED, described, own
from tests.backend.models.things import offer
from tests.backend.models.weight_files import checkpoint_of, kohya_lora, write
from tests.backend.server.host_jobs import run

SOUND = {"primer-inpaint", "sdxl", "mine", "file/sound"}
"""Models that are here whatever is odd."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with an entry of one's own, and an added folder beside it with a checkpoint and a LoRA."""
    home, folder = tmp_path / "home", tmp_path / "mine"
    monkeypatch.setenv("UNDERPAINT_HOME", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write(folder / "sound.safetensors", checkpoint_of("sd1"))
    write(folder / "ink.safetensors", kohya_lora("sd1"))
    add_folder(folder)
    (home / "models.toml").write_text(own("mine"))
    return home


def plant(name: str, home: Path) -> None:
    """Put what is odd under this name where models are looked for."""
    PLANTED[name](home, home.parent / "mine")


def found() -> dict[str, Entry]:
    """All models, as everybody looks for them."""
    return find_models(default_roots())


def broken(contents: Contents) -> dict[str, str]:
    """What is said of files that cannot be used, by their names."""
    return {each.path.name: each.reason for each in contents.broken}


# What is odd hides nothing


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_odd_hides_no_other_model(name: str, home: Path) -> None:
    """Whatever it is, the others are found, and what is said of it can be printed and sent."""
    plant(name, home)
    start = time.perf_counter()

    entries, contents = found(), folder_entries()

    assert time.perf_counter() - start < 1
    assert set(entries) >= SOUND
    assert "ink" in [lora.name for lora in contents.loras]
    said = [f"{entry.model.name} {entry.model.detail}" for entry in entries.values()]
    said += [lora.name for lora in contents.loras] + [each.reason for each in contents.broken]
    assert all(words.isprintable() and words.encode() for words in said)
    assert not any("nobody foresaw" in words for words in said)


async def test_beside_all_that_is_odd_one_paints(home: Path) -> None:
    """The daemon's host is made, lists the sound models, and its worker paints with one."""
    for name in PLANTED:
        if "deep" not in name:  # which lie at the same place
            plant(name, home)
    plant("deep_lender", home)

    host = LocalHost(LocalOptions(device="cpu", threads=1))
    models = {model.id: model for model in host.models()}
    assert set(models) >= SOUND
    assert "licence is accepted at https://" in models["flux2:dev"].detail
    await host.start(lambda worker: None)
    request = Request("primer-inpaint", "text_to_image", 64, 64, steps=1)
    end = (await asyncio.wait_for(run(host, Submit("job", request)), 60))[-1]
    await host.close()

    assert isinstance(end, Done)


@pytest.fixture
def traps(home: Path) -> None:
    """Models of each kind that have “trap” in their name, and two that lend parts to a third."""
    folder = home.parent / "mine"
    for name in ("trap", "willing"):
        lender = described(home / "models" / name, f"{name}:described")
        for part in ("vae", "text_encoder"):
            write(lender / part / "model.safetensors", {"a": (1,)})
        (lender / "unet" / "config.json").write_text('{"cross_attention_dim": 768}')
    lacks = {name: value for name, value in checkpoint_of("sd1").items() if "diffusion_model" in name}
    write(folder / "borrows.safetensors", lacks)
    write(folder / "trap.safetensors", checkpoint_of("sd1-inpaint"))
    at = described(home.parent / "trap-there", "there")
    write(at / "unet" / "model.safetensors", {"a": (1,)})
    (at / "unet" / "config.json").write_text("{}")
    odd = own("trap:folder", f'folder = "{at}"') + own("trap:file", f'file = "{folder / "trap.safetensors"}"')
    odd += own("trap:hub", BRUSH.replace("brush", "trap-hub"))
    (home / "models.toml").write_text(odd + own("mine"))


FAULTS = {
    (folders, "header_of"): {"file/trap": None, "trap:file": "unfit"},
    (folders, "_entry"): {"file/trap": None},
    (folders, "_filed"): {"trap:file": "unfit"},
    (folders, "_lends"): {},
    (catalog, "_read"): {"trap:described": None},
    (catalog, "reason_against"): {"trap:described": "unfit", "trap:folder": "unfit"},
    (catalog, "gap_in"): {"trap:folder": "unfit"},
    (catalog, "_folder_of"): {"trap:hub": "unfit"},
    (offering, "offer_of"): {"trap:folder": None, "trap:file": None, "trap:hub": None},
}
"""Where something may happen that nobody foresaw, and the models, by their state, that it costs; None if not listed."""


@pytest.mark.parametrize(("where", "costs"), FAULTS.items(), ids=[name for _, name in FAULTS])
@pytest.mark.usefixtures("traps")
def test_a_fault_in_looking_at_one_costs_only_that_one(
    where: tuple[ModuleType, str],
    costs: dict[str, str | None],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is raised: what is listed says so, and the log has a line of it."""
    before = states()
    module, name = where
    looks = getattr(module, name)

    def stumbles(*about: Any, **options: Any) -> Any:
        if "trap" in str(about):
            raise ZeroDivisionError("nobody foresaw this")
        return looks(*about, **options)

    monkeypatch.setattr(module, name, stumbles)
    for path in (home.parent / "mine" / "trap.safetensors", home / "models.toml"):
        os.utime(path, (1, 1))  # what is known of it is out of date
    caplog.clear()

    after = states()

    assert after == {id: state for id, state in {**before, **costs}.items() if state}
    assert "ZeroDivisionError" in caplog.text or "nobody foresaw this" in caplog.text
    details = [entry.model.detail for id, entry in found().items() if costs.get(id)]
    assert all("in a way that nobody foresaw" in detail for detail in details)
    hidden = broken(folder_entries())
    assert ("trap.safetensors" in hidden) == ("file/trap" in costs)


def states() -> dict[str, str]:
    """The states of all models that are not the catalog's."""
    return {id: entry.model.state for id, entry in found().items() if entry.model.name in NAMES or "file/" in id}


NAMES = ("Mine", "Brush", "Primer (built in)")


# What is said of it


def test_a_name_that_is_no_unicode_is_shown_as_far_as_it_is(home: Path) -> None:
    """The model is listed, and the LoRA chosen by what is shown."""
    plant("no_unicode", home)
    names = [entry.model.name for entry in found().values()]
    assert "caf??[2J (Stable Diffusion 1.5)" in names
    lora = folder_entries().lora("ink??[2J")
    assert lora is not None
    assert lora.path.is_file()


def test_a_file_without_a_proper_name_cannot_be_added(home: Path) -> None:
    """For a list of models has no way of writing it."""
    plant("no_unicode", home)
    path = next(path for path in (home.parent / "mine").iterdir() if "caf" in path.name)
    with pytest.raises(ValueError, match=r"caf\?\?\[2J.safetensors cannot be written into a list"):
        place_of(str(path))


def test_an_own_entry_says_what_is_wrong_with_it(home: Path) -> None:
    """A number that is none, and a file that no disk can have."""
    for count in ("inf", "nan", "-1", "9" * 400):
        with pytest.raises(ValueError, match="the model “brush:small”: its parameters must be numbers"):
            offer(parameters={"denoiser": float(count) if len(count) < 9 else int(count)})
    plant("nul_in_file", home)
    plant("nul_in_folders", home)
    assert found()["odd"].model.detail == "its file a?b cannot be read: embedded null byte"


def test_an_own_list_that_is_nested_too_deep_costs_only_one_s_own(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As one that is damaged in another way."""
    (home / "models.toml").write_text(f"model = {'[' * 20_000}{']' * 20_000}")
    assert set(found()) >= SOUND - {"mine"}
    assert "models.toml" in caplog.text
    (home / "models.toml").write_text("")
    (home / "folders.json").write_text(DEEP)
    assert "primer-inpaint" in found()
    assert "folders.json" in caplog.text


def test_an_index_that_is_nested_too_deep_is_damaged(tmp_path: Path) -> None:
    """Whoever adds the folder hears which part is not whole."""
    folder = described(tmp_path / "deep", "deep")
    (folder / "unet" / "model.safetensors.index.json").write_text(DEEP)
    with pytest.raises(ValueError, match="is not complete: unet missing"):
        folder_table("deep", folder)
    tree = Store(tmp_path).keep_tree
    tree("a/b", "0" * 40, [], {})
    path = tmp_path / "models--a--b" / "trees" / f"{'0' * 40}.json"
    path.write_text(DEEP)
    assert Store(tmp_path).listing(offer().sources[0], "0" * 40) is None


# Headers


def test_a_name_of_a_tensor_is_not_without_end() -> None:
    """A kilobyte is more than any has."""
    for length in (MAX_NAME, MAX_NAME + 1):
        text = json.dumps({"a" * length: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
        if length <= MAX_NAME:
            assert parse_header(text, 2).shape("a" * length) == (1,)
        else:
            with pytest.raises(BadFile, match="a name in it has 1025 letters"):
                parse_header(text, 2)


PREFIXES = ("", "lora_unet_", "lora_transformer_", "transformer.", "diffusion_model.", "model.diffusion_model.", "vae.")
BLOCKS = (
    *("double_blocks.", "single_blocks.", "transformer_blocks.", "single_transformer_blocks.", "joint_blocks."),
    *(
        "input_blocks.",
        "down_blocks.",
        "lora_te2_",
        "text_encoder_2.",
        "decoder.conv_in",
        "img_in",
        "txt_in",
        "conv_in",
    ),
    *("x_embedder", "context_embedder", "encoder.conv_in", "single_stream_modulation.lin", "time_in.", "conv_in"),
)
LAYERS = (
    *("attn.to_q", "attn_to_qkv_mlp_proj", "img_mlp.0", "linear1", "1.transformer_blocks.0.attn2.to_k", "proj_mlp"),
    *("attentions.0.transformer_blocks.0.attn2.to_k", "img_mod.lin", "ff.net.0.proj", "ff_linear_in", ""),
)
ENDINGS = (
    *(
        ".lora_A.weight",
        ".lora_B.weight",
        ".lora_down.weight",
        ".lora_up.weight",
        ".weight",
        ".processor.to_q_lora.down.weight",
    ),
    *(".processor.to_q_lora.down.weight", ".hada_w1_a", ".lora_linear_layer.down.weight", ".absmax"),
)
NUMBERS = ("", "0.", "7.", "19.", "99999.", f"{'9' * 900}.")
SIDES = (0, 1, 4, 9, 16, 32, 64, 128, 320, 384, 768, 1024, 1280, 1536, 2048, 3072, 4096, 6144, 7680, 12288)
names = st.tuples(*map(st.sampled_from, (PREFIXES, BLOCKS, NUMBERS, LAYERS, ENDINGS))).map("".join)
shapes = st.lists(st.sampled_from(SIDES), max_size=4).map(tuple)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(names, shapes, max_size=8))
def test_no_header_is_too_odd_to_be_told_what_it_is(tensors: dict[str, tuple[int, ...]]) -> None:
    """Whatever names of those that are looked for it has, in whatever shapes: it is something, or a bad file."""
    header = Header({name: Stored("F16", shape, 1) for name, shape in tensors.items()}, {})
    try:
        what = recognise(header)
    except BadFile:
        return
    assert what.family
    assert set(parts_in(header)) <= {"unet", "transformer", "vae", "text_encoder", "text_encoder_2"}
    assert what.pack("odd") in (None, *(folder for folder in PACKS.iterdir() if folder.is_dir()))


def test_names_take_no_time_out_of_proportion(home: Path) -> None:
    """A header as large as may be, of names that look like a LoRA's, is told in seconds."""
    header = Header(
        {f"{'attn_to_q_processor' * 53}_{number}": Stored("F16", (4, 8), 1) for number in range(10_000)}, {}
    )
    tensors = {**header.tensors, "a.lora_A.weight": Stored("F16", (4, 8), 1)}
    start = time.perf_counter()
    with pytest.raises(BadFile):
        recognise(Header(tensors, {}))
    assert time.perf_counter() - start < 5
