"""Folders of other programs: what is in them is found, named and described, and what is broken is said to be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from underpaint_backend.models import folders as module
from underpaint_backend.models import weight_files
from underpaint_backend.models.catalog import Entry
from underpaint_backend.models.exceptions import ModelError
from underpaint_backend.models.folder_list import add_folder, folders, folders_file, remove_folder
from underpaint_backend.models.folders import Contents, file_table, folder_entries, sister_among
from underpaint_backend.models.offers import offer_of
from underpaint_backend.models.recognise import PACKS
from underpaint_protocol.messages import Model

from tests.backend.models.weight_files import checkpoint_of, kohya_lora, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def ids(contents: Contents) -> list[str]:
    """The ids of the models found."""
    return [entry.model.id for entry in contents.entries]


# The list


def test_folders_are_added_and_removed(tmp_path: Path) -> None:
    """Each once, in order, and for good."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    assert folders() == ()

    assert add_folder(first) == first
    add_folder(second)
    add_folder(tmp_path / "b" / ".." / "a")
    assert folders() == (first, second)

    remove_folder(first)
    assert folders() == (second,)
    assert first.is_dir()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """So is a file, and to forget what was never added."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ModelError, match="There is no folder"):
            add_folder(path)
    with pytest.raises(ModelError, match="was not added"):
        remove_folder(tmp_path)
    assert not folders_file().exists()


@pytest.mark.parametrize("content", ["{", "{}", "[1]", "\x00"])
def test_a_damaged_list_counts_as_none(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a line in the log; adding a folder makes it whole."""
    folders_file().parent.mkdir(parents=True)
    folders_file().write_text(content)

    assert folders() == ()
    assert "folders.json" in caplog.text
    add_folder(tmp_path)
    assert folders() == (tmp_path,)


# Layouts


def test_comfyui_is_known(tmp_path: Path) -> None:
    """Checkpoints and LoRAs are found in subfolders, too; what lies elsewhere is no matter."""
    models = tmp_path / "ComfyUI" / "models"
    write(models / "checkpoints" / "Dream Shaper 8.safetensors", checkpoint_of("sd1"))
    write(models / "checkpoints" / "xl" / "base.safetensors", checkpoint_of("sdxl-inpaint"))
    write(models / "loras" / "styles" / "Ink.safetensors", kohya_lora("sdxl"))
    (models / "upscale_models").mkdir()
    (models / "upscale_models" / "4x.pth").write_bytes(b"PK")
    (models / "vae").mkdir()
    (models / "vae" / "bad.safetensors").write_bytes(b"")
    add_folder(tmp_path / "ComfyUI")

    found = folder_entries()

    assert ids(found) == ["file/dream-shaper-8", "file/base"]
    assert [(each.name, each.what.family) for each in found.loras] == [("Ink", "stable_diffusion_xl")]
    assert found.broken == ()


def test_a1111_is_known(tmp_path: Path) -> None:
    """Its folders have other names."""
    models = tmp_path / "webui" / "models"
    write(models / "Stable-diffusion" / "v1-5-pruned.safetensors", checkpoint_of("sd1"))
    write(models / "Lora" / "ink.safetensors", kohya_lora("sd1"))
    add_folder(models)

    found = folder_entries()

    assert ids(found) == ["file/v1-5-pruned"]
    assert [each.name for each in found.loras] == ["ink"]


def test_any_other_folder_is_searched(tmp_path: Path) -> None:
    """But models in diffusers' layout, hidden folders and pieces of larger files are none of our business."""
    write(tmp_path / "mine" / "deep" / "down" / "v1-5.safetensors", checkpoint_of("sd1"))
    diffusers = tmp_path / "mine" / "sd" / "unet"
    write(diffusers / "diffusion_pytorch_model.safetensors", {"conv_in.weight": (320, 4, 3, 3)})
    (diffusers / "config.json").write_text("{}")
    write(tmp_path / "mine" / "flux-00001-of-00002.safetensors", {"a": (1,)})
    write(tmp_path / "mine" / ".trash" / "old.safetensors", {"a": (1,)})

    found = folder_entries(roots=[tmp_path / "mine"])

    assert ids(found) == ["file/v1-5"]
    assert found.broken == ()


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    """People keep models on other disks."""
    write(tmp_path / "disk" / "v1-5.safetensors", checkpoint_of("sd1"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "mine")

    assert ids(folder_entries(roots=[tmp_path / "mine"])) == ["file/v1-5"]


def test_no_more_files_are_looked_at_than_is_sensible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor deeper folders: somebody may have added the root of the disk."""
    monkeypatch.setattr(weight_files, "MOST_FILES", 3)
    for number in range(5):
        write(tmp_path / "many" / f"{number}.safetensors", {"strange": (1,)})
    write(tmp_path.joinpath("deep", *"abcdefghij") / "x.safetensors", {"strange": (1,)})

    assert len(folder_entries(roots=[tmp_path / "many"]).broken) == 3
    assert folder_entries(roots=[tmp_path / "deep"]).broken == ()


# Descriptions


@pytest.mark.parametrize("variant", ["sd1", "sd1-inpaint", "sdxl", "sdxl-inpaint"])
def test_a_checkpoint_is_a_model(tmp_path: Path, variant: str) -> None:
    """It is ready at once, with the values that suit its family, and all configurations come from the pack."""
    path = write(tmp_path / "model.safetensors", checkpoint_of(variant))

    (entry,) = folder_entries(roots=[tmp_path]).entries

    assert entry.checkpoint == path
    assert entry.folder == PACKS / variant
    assert entry.model.state == "ready"
    assert entry.model.native_area == (512 * 512 if "sd1" in variant else 1024 * 1024)
    assert entry.model.default_scheduler in entry.model.schedulers
    assert "inpaint" in entry.model.tasks
    assert entry.model.name.startswith("model (")
    assert Model.from_wire(entry.model.to_wire()) == entry.model
    assert 1e9 < entry.model.memory < 8e9


def sister_of(tmp_path: Path, name: str, family: str, width: int, parts: tuple[str, ...]) -> Entry:
    """A model in diffusers' layout with these parts."""
    folder = tmp_path / name
    for part in parts:
        write(folder / part / "model.safetensors", {"a": (1,)})
    (folder / "transformer").mkdir(parents=True, exist_ok=True)
    (folder / "transformer" / "config.json").write_text(json.dumps({"joint_attention_dim": width}))
    model = Model(name, name, family, ("text_to_image",), ("euler",), 1 << 20, 16, 4, 1.0, "euler")
    return Entry(model, folder)


def test_a_transformer_borrows_from_a_sister(tmp_path: Path) -> None:
    """Text encoders and VAE come from a model that is ready, of the same family, whose text is as wide."""
    write(tmp_path / "files" / "flux2-klein.safetensors", checkpoint_of("flux2-klein-9b"))
    small = sister_of(tmp_path, "small", "flux2", 7680, ("vae", "text_encoder"))
    other = sister_of(tmp_path, "other", "flux1", 12288, ("vae", "text_encoder"))
    empty = sister_of(tmp_path, "empty", "flux2", 12288, ("vae",))
    odd = sister_of(tmp_path, "odd", "flux2", 12288, ("vae", "text_encoder"))
    (odd.folder / "transformer" / "config.json").write_text("[]")
    right = sister_of(tmp_path, "right", "flux2", 12288, ("vae", "text_encoder"))

    (alone,) = folder_entries(roots=[tmp_path / "files"]).entries
    (lost,) = folder_entries(sister_among([small, other, empty, odd]), [tmp_path / "files"]).entries
    (found,) = folder_entries(sister_among([small, odd, right]), [tmp_path / "files"]).entries

    for entry in (alone, lost):
        assert entry.model.state == "unfit"
        assert "its file has no text_encoder, vae" in entry.model.detail
    assert found.model.state == "ready"
    assert found.folder == right.folder
    assert found.model.default_steps == 4


def test_a_unet_borrows_from_a_sister(tmp_path: Path) -> None:
    """As a transformer does."""
    unet = {name: value for name, value in checkpoint_of("sd1-inpaint").items() if ".diffusion_model." in name}
    write(tmp_path / "files" / "unet.safetensors", unet)
    sister = sister_of(tmp_path, "sister", "stable_diffusion", 0, ("vae", "text_encoder"))
    (sister.folder / "transformer" / "config.json").unlink()
    (sister.folder / "unet").mkdir()
    (sister.folder / "unet" / "config.json").write_text('{"cross_attention_dim": 768}')

    (entry,) = folder_entries(sister_among([sister]), [tmp_path / "files"]).entries

    assert (entry.folder, entry.model.state) == (sister.folder, "ready")


def test_what_only_the_name_tells_is_told_by_the_name(tmp_path: Path) -> None:
    """A base model of [klein] wants guidance and many steps, and [Kontext] edits."""
    write(tmp_path / "flux-2-klein-base-4b.safetensors", checkpoint_of("flux2-klein-4b"))
    write(tmp_path / "flux1-dev-kontext.safetensors", checkpoint_of("flux1-dev"))
    write(tmp_path / "flux1-dev.safetensors", checkpoint_of("flux1-dev"))

    entries = {entry.model.id: entry for entry in folder_entries(roots=[tmp_path]).entries}
    models = {name: entry.model for name, entry in entries.items()}

    assert entries["file/flux1-dev-kontext"].pack == PACKS / "flux1-kontext"
    assert "[Kontext]" in models["file/flux1-dev-kontext"].name
    assert models["file/flux-2-klein-base-4b"].default_steps == 50
    assert models["file/flux1-dev-kontext"].max_references == 1
    assert "edit" in models["file/flux1-dev-kontext"].tasks
    assert models["file/flux1-dev"].max_references == 0


def test_a_file_of_one_s_own_has_the_configuration_that_is_wanted(tmp_path: Path) -> None:
    """Its name tells it, or who adds it does; what does not fit, or is no model, is refused with a reason."""
    file = write(tmp_path / "mine.safetensors", checkpoint_of("flux1-dev"))
    kontext = write(tmp_path / "Kontext-fp16.safetensors", checkpoint_of("flux1-dev"))
    assert file_table("mine", file)["tasks"] == ["text_to_image", "image_to_image", "inpaint"]
    assert "edit" in file_table("mine", kontext)["tasks"]
    table = file_table("mine", file, "flux1-kontext")
    assert (table["configuration"], table["max_references"], table["file"]) == ("flux1-kontext", 1, str(file))
    assert offer_of(table).pack == PACKS / "flux1-kontext"
    with pytest.raises(ValueError, match=r"mine\.safetensors is FLUX\.1 \[dev\], and “sdxl” is for the family"):
        file_table("mine", file, "sdxl")
    with pytest.raises(ValueError, match=r"there is no configuration “\.\./flux1-dev”; there are flux1-dev, flux1-f"):
        file_table("mine", file, "../flux1-dev")
    with pytest.raises(ValueError, match="is no model: it is a lora for SDXL"):
        file_table("mine", write(tmp_path / "ink.safetensors", kohya_lora("sdxl")))
    with pytest.raises(ValueError, match="its file must be written in full"):
        offer_of(table | {"file": "mine.safetensors"})


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By a mark that stays the same; names become ids whatever letters they have."""
    for place in ("a/Mix v1.safetensors", "b/mix_v1!.safetensors", "c/mix-v1.safetensors", "d/模型.safetensors"):
        write(tmp_path / place, checkpoint_of("sd1"))
    for place in ("e/ink.safetensors", "f/ink.safetensors"):
        write(tmp_path / place, kohya_lora("sd1"))

    found = folder_entries(roots=[tmp_path])

    assert len(set(ids(found))) == 4
    assert "file/mix_v1" in ids(found)
    assert "file/model" in ids(found)
    assert sum(name.startswith("file/mix-v1-") for name in ids(found)) == 2
    assert ids(folder_entries(roots=[tmp_path])) == ids(found)
    assert len({each.name for each in found.loras}) == 2
    for each in found.loras:
        assert found.lora(each.name) == each
        assert found.lora(f"{each.name}.safetensors") == each
    for wrong in ("ink", "../e/ink", str(tmp_path / "e" / "ink"), ""):
        assert found.lora(wrong) is None


def test_vaes_alone_are_neither_models_nor_broken(tmp_path: Path) -> None:
    """They are parts of models, which have their own."""
    weights = {
        name.removeprefix("first_stage_model."): value
        for name, value in checkpoint_of("sd1").items()
        if name.startswith("first_stage_model.")
    }
    write(tmp_path / "vae.safetensors", weights)

    assert folder_entries(roots=[tmp_path]) == Contents()


# What is broken


def test_what_is_broken_is_listed_with_its_reason(tmp_path: Path) -> None:
    """And all that is not is found as if nothing were."""
    write(tmp_path / "good.safetensors", checkpoint_of("sd1"))
    cut = write(tmp_path / "cut.safetensors", checkpoint_of("sd1"))
    os.truncate(cut, cut.stat().st_size - 1)
    (tmp_path / "old.ckpt").write_bytes(b"PK")
    (tmp_path / "flux1-dev-Q4.GGUF").write_bytes(b"GGUF" + bytes(60))
    torch.save({"a": torch.zeros(1)}, tmp_path / "sly.safetensors")
    write(tmp_path / "wan.safetensors", {"head.modulation": (1, 2, 1536)})
    write(tmp_path / "tiny.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": (32, 4, 3, 3)})
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "lost.safetensors").symlink_to(tmp_path / "nowhere")

    found = folder_entries(roots=[tmp_path])

    assert ids(found) == ["file/good"]
    reasons = {broken.path.name: broken.reason for broken in found.broken}
    assert list(reasons) == sorted(reasons)
    for name, words in {
        "cut.safetensors": "it is cut off: 1 of its",
        "old.ckpt": "pickle",
        "flux1-dev-Q4.GGUF": "another version of the GGUF format",
        "sly.safetensors": "pickle",
        "wan.safetensors": "it is Wan",
        "tiny.safetensors": "a size for which there is no configuration",
        "pipe.safetensors": "it is not a file",
        "lost.safetensors": "No such file",
    }.items():
        assert words in reasons.pop(name)
    assert reasons == {}


def test_folders_that_are_gone_hold_nothing(tmp_path: Path) -> None:
    """A disk may not be plugged in; it may be again tomorrow."""
    folder = tmp_path / "usb"
    folder.mkdir()
    add_folder(folder)
    folder.rmdir()

    assert folder_entries() == Contents()
    assert folders() == (folder,)


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again only when a file changed."""
    path = write(tmp_path / "model.safetensors", checkpoint_of("sd1"))
    reads: list[Path] = []
    real = module.header_of

    def counted(path: Path) -> Any:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(module, "header_of", counted)
    for _ in range(3):
        assert ids(folder_entries(roots=[tmp_path])) == ["file/model"]
    assert reads == [path]

    write(path, checkpoint_of("sdxl"))
    (entry,) = folder_entries(roots=[tmp_path]).entries
    assert entry.model.family == "stable_diffusion_xl"
    assert len(reads) == 2
