"""`underpaint models` as someone types it, against a stand-in for the hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.cli import main
from underpaint_backend.cli.models.progress import in_words
from underpaint_backend.client import connect
from underpaint_backend.launch import Launched
from underpaint_backend.models.catalog import default_roots, find_models
from underpaint_backend.models.download import Progress
from underpaint_backend.models.offers import offers
from underpaint_backend.models.store import Store

from tests.backend.models.hub import Repository, StandIn, stand_in
from tests.backend.models.test_folders import lora, write
from tests.backend.models.test_recognise import checkpoint_of
from tests.backend.models.things import REPOSITORY, TABLE, UNET, WANTED, brush, model_index, weights

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with stand_in(artist__brush=brush()) as running:
        yield running


@pytest.fixture
def home(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders, of whom nobody knows anything yet."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("UNDERPAINT_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def say(home: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Type `underpaint models ...`; the exit code, and what was printed."""

    def typed(*words: str) -> tuple[int, str, str]:
        code = main(["models", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return typed


def store() -> Store:
    return Store(Path(os.environ["HF_HOME"]) / "hub")


def state_of(name: str) -> str:
    return find_models(default_roots())[name].model.state


def test_the_list_says_what_is_here_and_what_could_be(say: Say) -> None:
    """A line for each model, with its size and its licence."""
    code, out, _ = say()
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert " ready " in lines["primer-inpaint"]
    assert " absent 33.7 GB FLUX.1 [dev] Non-Commercial " in " ".join(lines["flux1:dev"].split())
    assert "to be accepted" in lines["flux1:dev"]
    assert lines["flux2-klein:4b"].endswith("Apache-2.0")
    assert say("list")[1] == out


def test_what_does_not_fit_says_why(say: Say, home: Path) -> None:
    """Below the list, with what it needs and what is there; and what no memory would help."""
    (home / "home").mkdir()
    common = "".join(f"{key} = {json.dumps(value)}\n" for key, value in TABLE.items())
    (home / "home" / "models.toml").write_text(f"[[model]]\n{common}parameters = {{ denoiser = 90000 }}\n")
    write(home / "single" / "lonely.safetensors", without(checkpoint_of("sd1"), "first_stage_model."))
    say("add-folder", str(home / "single"))
    out = say()[1]
    row = next(line for line in out.splitlines() if line.startswith("brush:small "))
    assert "  does not fit  " in row
    assert "\nbrush:small does not fit: it needs 83819.0 GiB of memory at least, and there are " in out
    assert "\nfile/lonely cannot be used: its file has no vae; fetch a model" in out
    assert "    does not fit: it needs 83819.0 GiB" in say("show", "brush:small")[1]


def without(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def test_the_daemon_says_what_fits_its_device(say: Say, daemon: Launched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one runs, it knows better; the list is the same as Krita's."""
    monkeypatch.setenv("UNDERPAINT_HOME", str(daemon.home))

    async def unfit() -> dict[str, str]:
        async with connect(daemon.url, daemon.token) as client:
            while client.worker.state != "ready":
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            return {model.id: model.detail for model in client.welcome.models if model.state == "unfit"}

    there = asyncio.run(unfit())
    out = say()[1]
    assert {line.partition(" does not fit: ")[0] for line in out.splitlines() if " does not fit: " in line} == set(
        there
    )
    assert all(f"{name} does not fit: {reason}.\n" in out for name, reason in there.items())


def test_show_says_everything(say: Say) -> None:
    """Steps, memory by precision, where it comes from."""
    out = say("show", "flux2-klein:9b")[1]
    for words in ("absent", "steps: 4", "up to 4", "18.3 GB in bf16", "34.7 GB", "FLUX.2-klein-9B", "to be accepted"):
        assert words in out
    assert "memory: 18.3 GB in bf16, 9.2 GB in fp8, 5.3 GB in nf4\n" in out
    assert "paints best at: 1 megapixel, sides a multiple of 16 px\n" in out
    assert "ready" in say("show", "primer-inpaint")[1]


@pytest.mark.parametrize("action", ["show", "pull", "remove", "verify"])
def test_an_unknown_model_is_said_in_one_line(say: Say, action: str) -> None:
    """With where to look for those that there are."""
    code, _, err = say(action, "nothing:like-that")
    assert code == 2
    assert err == "underpaint: there is no model called nothing:like-that; “underpaint models” lists them\n"


def test_a_name_that_is_nearly_right_is_guessed(say: Say) -> None:
    """As everybody forgets the colon."""
    for action in ("show", "pull", "remove"):
        assert "there is no model called flux2-klein4b; did you mean flux2-klein:4b?" in say(action, "flux2-klein4b")[2]


def test_the_built_in_model_can_be_neither_pulled_nor_removed(say: Say) -> None:
    """It is part of the program."""
    assert say("remove", "primer-inpaint", "--yes") == (
        2,
        "",
        "underpaint: primer-inpaint comes with Underpaint and cannot be removed\n",
    )
    assert say("pull", "primer-inpaint") == (0, "primer-inpaint is here already.\n", "")


def test_what_is_not_here_cannot_be_removed(say: Say) -> None:
    """Nobody is asked about it, and nothing is said of bytes; an entry of one's own goes, and says so."""
    assert say("remove", "sd15")[:2] == (0, "sd15 is not on this machine, so there is nothing to delete.\n")
    say("add", "brush", REPOSITORY)
    assert say("remove", "brush", "--yes")[1] == "brush is out of the list. Nothing of it was on this machine.\n"
    assert "brush" not in find_models(default_roots())


def test_a_repository_is_added_pulled_verified_and_removed(say: Say, hub: StandIn) -> None:
    """From its name alone to a model that is ready, and away again."""
    code, out, err = say("add", "my:brush", REPOSITORY, "--licence", "MIT")
    assert (code, err) == (0, "")
    assert "family stable_diffusion" in out
    assert state_of("my:brush") == "absent"
    assert find_models(default_roots())["my:brush"].model.download == sum(
        len(hub.repositories[REPOSITORY].files[path]) for path in WANTED
    )
    code, out, err = say("pull", "my:brush")
    assert (code, out) == (0, "my:brush is here.\n")
    assert state_of("my:brush") == "ready"
    assert say("pull", "my:brush")[1] == "my:brush is here already.\n"
    assert say("verify")[:2] == (0, "my:brush: all is well.\n")
    code, out, _ = say("remove", "my:brush", "--yes")
    assert code == 0
    assert "3.2 MB are free again" in out
    assert "my:brush" not in find_models(default_roots())
    assert not store().repository(REPOSITORY).exists()


def test_remove_asks_first(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked, nothing is deleted."""
    say("add", "brush", REPOSITORY)
    say("pull", "brush")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, _, err = say("remove", "brush")
    assert (code, err) == (2, "underpaint: nobody is there to be asked; say --yes\n")
    assert state_of("brush") == "ready"


def test_what_another_model_needs_is_kept(say: Say) -> None:
    """Two entries of one repository: removing the one leaves the other whole."""
    say("add", "brush", REPOSITORY)
    say("add", "brush:full", REPOSITORY, "--variant", "full")
    say("pull", "brush", "brush:full")
    code, out, _ = say("remove", "brush:full", "--yes")
    assert code == 0
    assert "6.3 MB are free again" in out
    assert "What brush needs as well was kept." in out
    assert state_of("brush") == "ready"
    assert say("verify", "brush")[0] == 0


def test_blobs_of_another_commit_stay(say: Say, hub: StandIn) -> None:
    """What a snapshot of another tool links to is not deleted."""
    say("add", "brush", REPOSITORY)
    say("pull", "brush")
    snapshots = store().repository(REPOSITORY) / "snapshots"
    other = snapshots / "other-tool" / "unet.safetensors"
    other.parent.mkdir()
    other.symlink_to(os.path.relpath((snapshots / ("c" * 40) / UNET).resolve(), other.parent))
    say("remove", "brush", "--yes")
    assert other.read_bytes() == hub.repositories[REPOSITORY].files[UNET]


def test_damage_is_found_and_repaired(say: Say, hub: StandIn) -> None:
    """One flipped bit, a missing file and one that was cut: each is named, and only those come again."""
    say("add", "brush", REPOSITORY)
    say("pull", "brush")
    snapshot = store().snapshot(REPOSITORY, "c" * 40)
    unet = (snapshot / UNET).resolve()
    unet.write_bytes(bytes([unet.read_bytes()[0] ^ 1]) + unet.read_bytes()[1:])
    (snapshot / "vae/config.json").unlink()
    cut = (snapshot / "tokenizer/merges.txt").resolve()
    cut.write_bytes(b"#")
    code, out, _ = say("verify", "brush")
    assert code == 1
    assert f"brush: {UNET} is damaged\n" in out
    assert "brush: vae/config.json is missing\n" in out
    assert "brush: tokenizer/merges.txt is damaged\n" in out
    hub.asked.clear()
    assert say("verify", "brush", "--repair")[0] == 0
    assert {asked.path.rpartition("/")[2] for asked in hub.requests("cdn")} == {UNET.rpartition("/")[2]}
    assert say("verify", "brush")[:2] == (0, "brush: all is well.\n")


def test_what_other_tools_fetched_is_verified_by_its_names(say: Say) -> None:
    """Without a list, a blob's name is its hash."""
    say("add", "brush", REPOSITORY)
    say("pull", "brush")
    (store().repository(REPOSITORY) / "trees" / f"{'c' * 40}.json").unlink()
    assert say("verify", "brush")[0] == 0
    unet = (store().snapshot(REPOSITORY, "c" * 40) / UNET).resolve()
    unet.write_bytes(weights(0, unet.stat().st_size))
    code, out, _ = say("verify", "brush")
    assert (code, f"{UNET} is damaged" in out) == (1, True)


def test_a_gated_model_says_how_to_get_it(say: Say, hub: StandIn) -> None:
    """No traceback, and no other error than the one that helps; the token then opens it."""
    hub.repositories["black-forest-labs/FLUX.2-klein-9B"] = Repository(
        {
            "model_index.json": model_index("transformer"),
            "scheduler/scheduler_config.json": b"{}",
            "tokenizer/tokenizer.json": b"{}",
            **{f"{part}/config.json": b"{}" for part in ("transformer", "text_encoder", "vae")},
            **{f"{part}/model.safetensors": weights(5) for part in ("transformer", "text_encoder", "vae")},
        },
        commit=offers()["flux2-klein:9b"].sources[0].revision,
        gated=True,
    )
    code, _, err = say("pull", "flux2-klein:9b")
    assert code == 1
    assert "https://huggingface.co/black-forest-labs/FLUX.2-klein-9B" in err
    assert "no token was given" in err
    assert "Traceback" not in err
    assert say("pull", "flux2-klein:9b", "--hub-token", "hf_good")[0] == 0
    assert state_of("flux2-klein:9b") == "ready"


def test_the_token_of_other_tools_is_used(say: Say, hub: StandIn, home: Path) -> None:
    """Whoever has logged in once need not do so again."""
    hub.repositories[REPOSITORY].gated = True
    (home / "hf").mkdir()
    (home / "hf" / "token").write_text("hf_good\n")
    assert say("add", "brush", REPOSITORY)[0] == 0
    assert say("pull", "brush")[0] == 0


def test_offline_is_obeyed(say: Say, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """By word and by environment, and not a request is made."""
    err = say("pull", "sd15", "--offline")[2]
    assert ("offline" in err, "HF_HUB_OFFLINE" in err) == (True, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert say("pull", "sd15")[0] == 1
    assert say("add", "brush", REPOSITORY)[0] == 2
    assert hub.asked == []


def test_without_a_network_a_mirror_is_told_of(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that there is no folder of this name, in case one was meant."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = say("add", "x", "artist/brush")
    assert (code, "there is no folder artist/brush here, and http://127.0.0.1:9 says nothing of it" in err) == (2, True)
    assert "--endpoint or HF_ENDPOINT" in err


def test_a_mirror_is_used(say: Say, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """--endpoint goes before HF_ENDPOINT."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert say("add", "brush", REPOSITORY, "--endpoint", hub.url)[0] == 0
    assert say("pull", "brush", "--endpoint", hub.url)[0] == 0
    assert hub.asked


@pytest.mark.parametrize("words", [["--endpoint", "http://example.org"], ["--hub-token", "with space"]])
def test_a_hub_that_cannot_be_one_is_said_in_one_line(say: Say, words: list[str]) -> None:
    """Before anything is asked."""
    code, _, err = say("pull", "sd15", *words)
    assert code == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("UPPER", REPOSITORY, "begin with a small letter or a digit"),
        ("a..b", REPOSITORY, "as in my-model or sdxl:mine"),
        ("sdxl", REPOSITORY, "already"),
        ("x", "artist/../brush", "there is no folder or file artist/../brush"),
        ("x", "artist/pencil", "there is no folder artist/pencil here, and no such repository at http://127.0.0.1"),
        ("x", "/nowhere", "there is no folder or file /nowhere"),
        ("sdxl", "/nowhere", "there is no folder or file /nowhere"),
        ("UPPER", "./nowhere", "there is no folder or file ./nowhere"),
        ("x", "", "it was empty"),
        ("x", "tests", "tests has no model_index.json, so it is no model in diffusers' layout"),
    ],
)
def test_what_cannot_be_added_is_said_in_one_line(say: Say, name: str, where: str, reason: str) -> None:
    """And nothing is written."""
    code, _, err = say("add", name, where)
    assert code == 2
    assert reason in err
    assert err.count("\n") == 1
    assert not (Path(os.environ["UNDERPAINT_HOME"]) / "models.toml").exists()


@pytest.mark.parametrize(
    ("what", "option", "value"),
    [
        *(("file", option, "x") for option in ("--revision", "--variant", "--endpoint", "--hub-token")),
        ("file", "--family", "flux1"),
        *(("folder", option, "x") for option in ("--configuration", "--revision", "--variant", "--endpoint")),
        ("folder", "--hub-token", "x"),
        ("repository", "--configuration", "flux1-kontext"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(say: Say, home: Path, what: str, option: str, value: str) -> None:
    """And not passed over: whoever gave it meant something by it. Without it the same is added."""
    folder = home / "whole"
    folder.mkdir()
    (folder / "model_index.json").write_bytes(model_index("unet"))
    part(folder / "unet")
    file = write(home / "paint.safetensors", checkpoint_of("sd1"))
    where = {"file": str(file), "folder": str(folder), "repository": REPOSITORY}[what]
    code, _, err = say("add", "x", where, option, value)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"underpaint: {option} does not apply to {where}, which is a {what}")
    assert not (Path(os.environ["UNDERPAINT_HOME"]) / "models.toml").exists()
    assert say("add", "x", where)[0] == 0


def test_the_page_of_a_repository_names_it(say: Say) -> None:
    """What a browser's address line has is as good as owner/name."""
    assert say("add", "brush", f"https://huggingface.co/{REPOSITORY}/tree/main")[0] == 0
    assert say("pull", "brush")[0] == 0


def test_a_folder_without_weights_is_refused(say: Say, home: Path) -> None:
    """A list of parts is no model; also where the weights are of a kind that is never opened."""
    folder = home / "half"
    folder.mkdir()
    (folder / "model_index.json").write_bytes(model_index("unet", "vae"))
    part(folder / "vae")
    part(folder / "unet").rename(folder / "unet" / "weights.bin")
    code, _, err = say("add", "half", str(folder))
    assert code == 2
    assert f"{folder} is not complete: unet missing, or without weights in safetensors" in err
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert "lists no parts of a model" in say("add", "half", str(folder))[2]
    assert "half" not in find_models(default_roots())


def test_a_folder_that_loses_its_weights_is_not_ready(say: Say, home: Path) -> None:
    """It is absent with the reason, in the list and when it is to be fetched."""
    folder = home / "whole"
    folder.mkdir()
    (folder / "model_index.json").write_bytes(model_index("unet"))
    weights_file = part(folder / "unet")
    assert say("add", "whole", str(folder))[0] == 0
    assert state_of("whole") == "ready"
    os.truncate(weights_file, 0)
    assert state_of("whole") == "absent"
    weights_file.unlink()
    assert "absent: its folder whole is not complete: unet" in say("show", "whole")[1]
    code, _, err = say("pull", "whole")
    assert (code, "is not complete: unet" in err) == (1, True)
    (folder / "model_index.json").unlink()
    assert "absent: its folder whole has no model_index.json" in say("show", "whole")[1]


def part(folder: Path) -> Path:
    """The weights of a part in its folder, with what goes with them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return write(folder / "diffusion_pytorch_model.safetensors", {"x": (1,)})


def test_a_folder_is_added_and_never_deleted(say: Say, home: Path) -> None:
    """It stays where it is, also when the entry is removed."""
    folder = home / "My “own”\tmodel"
    folder.mkdir()
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "Flux2KleinPipeline", "is_distilled": True, "vae": ["diffusers", "X"]})
    )
    part(folder / "vae")
    assert say("add", "mine", str(folder), "--name", 'Mein \\ " Модель')[0] == 0
    entry = find_models(default_roots())["mine"]
    assert (entry.model.state, entry.folder, entry.model.family) == ("ready", folder, "flux2")
    assert (entry.model.default_steps, entry.model.name) == (4, 'Mein \\ " Модель')
    assert say("verify", "mine")[0] == 0
    assert say("remove", "mine", "--yes")[0] == 0
    assert folder.is_dir()
    assert "mine" not in find_models(default_roots())


@pytest.mark.parametrize(
    ("config", "pipeline", "defaults"),
    [
        ({"guidance_embeds": True}, "FluxPipeline", (28, 3.5)),
        ({"guidance_embeds": False}, "FluxPipeline", (4, 1.0)),
        ({}, "FluxImg2ImgPipeline", (4, 1.0)),  # which for diffusers is the same as false
        ({"guidance_embeds": True}, "FluxFillPipeline", (50, 30.0)),
    ],
)
def test_a_schnell_of_one_s_own_takes_four_steps(
    say: Say, hub: StandIn, home: Path, config: dict[str, bool], pipeline: str, defaults: tuple[int, float]
) -> None:
    """The transformer tells it from a dev, for their pipelines have one name; in a folder and in a repository."""
    folder = home / "whole"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, "transformer": ["diffusers", "X"]}))
    part(folder / "transformer")
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    hub.repositories["artist/flux"] = Repository(files)
    for where in (str(folder), "artist/flux"):
        assert say("add", "mine", where)[0] == 0
        model = find_models(default_roots())["mine"].model
        assert (model.default_steps, model.default_guidance) == defaults


def test_entries_that_people_wrote_survive_another(say: Say, home: Path) -> None:
    """What `add` does not know is written again as it was."""
    path = home / "home" / "models.toml"
    say("add", "one", REPOSITORY)
    text = path.read_text() + '[[model.also]]\nrepository = "a/b"\nfiles = ["x/*"]\nparts = { eye = "x" }\n'
    path.write_text(text)
    before = tomllib.loads(text)["model"]
    say("add", "two", REPOSITORY)
    after = tomllib.loads(path.read_text())["model"]
    assert after[:1] == before
    assert [table["id"] for table in after] == ["one", "two"]


def test_a_damaged_list_of_one_s_own_is_said_and_not_overwritten(say: Say, home: Path) -> None:
    """The file stays for its owner to mend; the other models are listed."""
    path = home / "home" / "models.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[[model]]\nid = "x"\n')
    code, _, err = say("add", "two", REPOSITORY)
    assert code == 2
    assert err.count("models.toml") == 1
    assert say("show", "sd15")[2].count("models.toml") == 1
    assert path.read_text() == '[[model]]\nid = "x"\n'
    assert "flux1:dev" in say()[1]


def test_a_folder_of_another_program_is_added_and_forgotten(say: Say, home: Path) -> None:
    """Its checkpoints are models, what cannot be used is said with its reason, and its files stay."""
    checkpoint = write(home / "ComfyUI" / "checkpoints" / "Dreamer v8.safetensors", checkpoint_of("sd1"))
    (checkpoint.parent / "old.ckpt").write_bytes(b"pickle")
    (checkpoint.parent / "small.gguf").write_bytes(b"GGUF")
    code, out, _ = say("add-folder", str(home / "ComfyUI"))
    assert code == 0
    assert "file/dreamer-v8: Dreamer v8" in out
    assert "checkpoints/old.ckpt cannot be used: " in out
    assert "checkpoints/small.gguf cannot be used: it is cut off inside its header" in out
    assert "1 model and 0 LoRAs" in out
    entry = find_models(default_roots())["file/dreamer-v8"]
    assert (entry.model.state, entry.checkpoint) == ("ready", checkpoint)
    assert "Dreamer v8" in say("show", "file/dreamer-v8")[1]
    code, _, err = say("remove", "file/dreamer-v8", "--yes")
    assert (code, f"is the file {checkpoint}" in err) == (2, True)
    assert say("remove-folder", str(home / "ComfyUI"))[0] == 0
    assert "file/dreamer-v8" not in find_models(default_roots())
    assert checkpoint.exists()


def test_the_list_has_the_names_of_loras(say: Say, home: Path) -> None:
    """With the family that each was made for, and a word about files that are of no use."""
    assert "LoRA" not in say()[1]
    write(home / "files" / "ink.safetensors", lora("sd1"))
    write(home / "home" / "loras" / "of my own.safetensors", lora("sdxl"))
    write(home / "files" / "odd.safetensors", {"strange.lora_A.weight": (1, 1)})
    out = say("add-folder", str(home / "files"))[1]
    assert "odd.safetensors cannot be used: it is a LoRA for a model of an unknown family" in out
    assert "0 models and 1 LoRA in it can be used" in out
    out = say()[1]
    assert "\n  ink        Stable Diffusion 1.5\n  of my own  SDXL\n" in out
    assert "1 file in added folders cannot be used" in out


def test_a_folder_that_is_not_there_is_said(say: Say, home: Path) -> None:
    """In words, with the exit code for bad input."""
    code, _, err = say("add-folder", str(home / "nowhere"))
    assert code == 2
    assert "there is no folder" in err.lower()
    assert say("remove-folder", str(home))[0] == 2


def test_an_empty_word_is_no_folder(say: Say, home: Path) -> None:
    """A variable without a value is not the folder where one happens to be."""
    for action in ("add-folder", "remove-folder"):
        with pytest.raises(SystemExit):
            say(action, "")
    assert not (home / "home" / "folders.json").exists()


def test_a_file_is_no_folder(say: Say, home: Path) -> None:
    """Whoever names one is told what to name instead."""
    checkpoint = write(home / "files" / "dreamer.safetensors", checkpoint_of("sd1"))
    code, _, err = say("add-folder", str(checkpoint))
    assert (code, err.count("\n")) == (2, 1)
    assert f"{checkpoint} is a file: name the folder that it lies in" in err
    assert "underpaint models add NAME" in err
    code, _, err = say("add", "x", str(checkpoint.parent))
    assert (code, f"underpaint models add-folder {checkpoint.parent}" in err) == (2, True)


def test_progress_in_words() -> None:
    """Bytes, share, speed, time and file, as far as they are known."""
    known = Progress(4_200_000_000, 16_000_000_000, 11_200_000, 1050, "vae/x.safetensors")
    assert in_words(known) == "4.2 GB of 16.0 GB, 26 %, 11.2 MB/s, 18 min left: vae/x.safetensors"
    assert in_words(Progress(0, 0, 0, None, "x")) == "0 bytes of 0 bytes, 0 %: x"


def test_ctrl_c_keeps_what_came_and_says_so(hub: StandIn, home: Path, say: Say) -> None:
    """On a terminal the line changes in place; Ctrl-C ends with 130 and the way to go on."""
    say("add", "brush", REPOSITORY)
    hub.hold_after = 1 << 20
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "underpaint_backend", "models", "pull", "brush"]
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as if this run were not in the background
    process = subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE)
    signal.signal(signal.SIGINT, ignored)
    os.close(theirs)
    try:
        assert hub.held.wait(30)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        said = b""
        with contextlib.suppress(OSError):  # how a terminal says that the other side is gone
            while piece := os.read(ours, 65536):
                said += piece
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    text = said.decode()
    assert "\r" in text
    assert "of 3.2 MB" in text
    assert "underpaint models pull brush” goes on" in text
    assert "Traceback" not in text
    hub.hold_after = None
    hub.asked.clear()
    assert say("pull", "brush")[0] == 0
    assert hub.requests("cdn")[0].range == f"bytes={1 << 20}-"
