"""`underpaint models list` and `show`: what is here, what could be, and what does not fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from underpaint_backend.client import connect
from underpaint_backend.launch import Launched

from tests.backend.cli.models.typed import Say, part
from tests.backend.models.things import TABLE, any_index
from tests.backend.models.weight_files import checkpoint_of, kohya_lora, write


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
        async with asyncio.timeout(60), connect(daemon.url, daemon.token) as client:
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


def test_the_list_has_the_names_of_loras(say: Say, home: Path) -> None:
    """With the family that each was made for, and a word about files that are of no use."""
    assert "LoRA" not in say()[1]
    write(home / "files" / "ink.safetensors", kohya_lora("sd1"))
    write(home / "home" / "loras" / "of my own.safetensors", kohya_lora("sdxl"))
    write(home / "files" / "odd.safetensors", {"strange.lora_A.weight": (1, 1)})
    out = say("add-folder", str(home / "files"))[1]
    assert "odd.safetensors cannot be used: it is a LoRA for a model of an unknown family" in out
    assert "0 models and 1 LoRA in it can be used" in out
    out = say()[1]
    assert "\n  ink        Stable Diffusion 1.5\n  of my own  SDXL\n" in out
    assert f"1 file in {home / 'files'} cannot be used:\n  odd.safetensors: it is a LoRA for a model of an unkn" in out


def test_files_of_no_use_are_named_with_their_folder(say: Say, home: Path) -> None:
    """Also in the data folder, which nobody added; of many, the first ones and how many more there are."""
    loras = home / "home" / "loras"
    loras.mkdir(parents=True)
    for number in range(7):
        (loras / f"{number}.ckpt").write_bytes(b"pickle")
    (home / "other").mkdir()
    (home / "other" / "page.safetensors").write_bytes(b"<html>")
    say("add-folder", str(home / "other"))
    out = say()[1]
    assert f"7 files in {loras} cannot be used:\n  0.ckpt: it is a pickle" in out
    assert "  4.ckpt: " in out
    assert "  5.ckpt: " not in out
    assert "\n  and 2 more\n" in out
    assert f"1 file in {home / 'other'} cannot be used:\n  page.safetensors: it is " in out


def test_a_folder_that_is_copied_into_models_is_listed_or_a_reason_is(say: Say, home: Path) -> None:
    """What nobody described is said, with the words that put it into the list; so is what is not complete."""
    folder = home / "home" / "models" / "Mine"
    part(folder / "unet")
    (folder / "model_index.json").write_bytes(any_index("unet"))
    half = home / "home" / "models" / "artist" / "half"
    half.mkdir(parents=True)
    (half / "model_index.json").write_bytes(any_index("unet", "vae"))
    out = say()[1]
    assert f"The folder {folder} is not in the list yet: “underpaint models add NAME {folder}” puts it there.\n" in out
    assert f"The folder {half} cannot be used: it is not complete: unet, vae missing" in out
    assert say("add", "mine", str(folder))[0] == 0
    out = say()[1]
    assert "Mine" in out
    assert f"The folder {folder}" not in out


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
