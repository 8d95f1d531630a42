"""`underpaint models add`: repositories, folders and files get into the list, or it is said why not."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from underpaint_backend.models.catalog import default_roots, find_models
from underpaint_backend.models.families import NEEDED

from tests.backend.cli.models.typed import Say, part, state_of
from tests.backend.models.hub import Repository, StandIn
from tests.backend.models.things import REPOSITORY, any_index, model_index
from tests.backend.models.weight_files import checkpoint_of, write

NAMED = ["diffusers", "Thing"]


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
    (folder / "model_index.json").write_bytes(any_index("unet"))
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


@pytest.mark.parametrize(
    ("token", "accepted", "reason"),
    [
        ((), True, "no token was given"),
        (("--hub-token", "hf_bad"), True, "does not know the token"),
        (("--hub-token", "hf_good"), False, "has not accepted it"),
    ],
)
def test_a_gated_repository_says_what_to_accept_and_where(
    say: Say, hub: StandIn, token: tuple[str, ...], accepted: bool, reason: str
) -> None:
    """As it does when it is fetched, in one line, and with the page; once it is open, the list knows of it."""
    hub.repositories[REPOSITORY].gated = True
    hub.accepted = accepted
    code, _, err = say("add", "brush", REPOSITORY, *token)
    assert (code, err.count("\n")) == (2, 1)
    assert "given only to those who accepted its licence" in err
    assert reason in err
    assert f"Open https://huggingface.co/{REPOSITORY}, accept the licence there" in err
    assert "--hub-token" in err
    hub.accepted = True
    assert say("add", "brush", REPOSITORY, "--hub-token", "hf_good")[0] == 0
    assert "which has to be accepted on its page" in say("show", "brush")[1]


def test_a_folder_without_weights_is_refused(say: Say, home: Path) -> None:
    """A list of parts is no model; also where the weights are of a kind that is never opened."""
    folder = home / "half"
    folder.mkdir()
    (folder / "model_index.json").write_bytes(any_index("unet", "vae"))
    part(folder / "vae")
    part(folder / "unet").rename(folder / "unet" / "weights.bin")
    code, _, err = say("add", "half", str(folder))
    assert code == 2
    assert f"{folder} is not complete: unet missing, or without weights in safetensors" in err
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert "lists no parts of a model" in say("add", "half", str(folder))[2]
    assert "half" not in find_models(default_roots())


@pytest.mark.parametrize(
    ("pipeline", "listed", "reason"),
    [
        ("StableDiffusionPipeline", (), "has a model_index.json that lists no parts of a model"),
        ("ZImagePipeline", (), "has a model_index.json that lists no parts of a model"),
        ("StableDiffusionPipeline", ("unet", "text_encoder"), "has no vae, without which a model of the family stable"),
        ("FluxPipeline", ("transformer", "vae", "text_encoder"), "has no text_encoder_2, without which a model of the"),
        ("Flux2Pipeline", ("scheduler",), "has no transformer and no vae and no text_encoder, without which"),
    ],
)
def test_what_lacks_a_part_that_its_family_needs_is_refused(
    say: Say, hub: StandIn, home: Path, pipeline: str, listed: tuple[str, ...], reason: str
) -> None:
    """A repository as well as a folder: before anything is fetched, and not when a picture is to be painted."""
    folder = home / "half"
    folder.mkdir()
    (folder / "model_index.json").write_bytes(model_index(*listed, pipeline=pipeline))
    for each in listed:
        part(folder / each)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    hub.repositories["artist/half"] = Repository(files)
    for where in (str(folder), "artist/half"):
        code, _, err = say("add", "half", where)
        assert (code, err.count("\n")) == (2, 1)
        assert f"{where} {reason}" in err
    assert "half" not in find_models(default_roots())


def test_a_repository_that_lists_what_it_has_not_is_refused(say: Say, hub: StandIn) -> None:
    """As are pickles in the place of weights."""
    files = hub.repositories[REPOSITORY].files
    del files["vae/diffusion_pytorch_model.safetensors"], files["vae/config.json"]
    code, _, err = say("add", "brush", REPOSITORY)
    assert (code, f"{REPOSITORY} has no vae/* of a kind that can be used" in err) == (2, True)


def test_a_folder_that_loses_its_weights_is_not_ready(say: Say, home: Path) -> None:
    """It is absent with the reason, in the list and when it is to be fetched."""
    folder = home / "whole"
    folder.mkdir()
    (folder / "model_index.json").write_bytes(any_index("unet"))
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


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_gone_cannot_be_fetched_and_says_how_to_mend_that(say: Say, home: Path, kind: str) -> None:
    """Trying again would not help, and nothing came that could be kept."""
    place = home / "mine"
    if kind == "folder":
        place.mkdir()
        (place / "model_index.json").write_bytes(any_index("unet"))
        part(place / "unet")
    else:
        write(place := home / "paint.safetensors", checkpoint_of("sd1"))
    assert say("add", "mine", str(place))[0] == 0
    place.rename(home / "elsewhere")
    code, _, err = say("pull", "mine")
    assert (code, "goes on from there" in err) == (1, False)
    mend = f"put it back, or say with “underpaint models add mine {kind.upper()}” where it is now"
    assert f"it was added as a {kind} of this machine, and {place} is gone; {mend}" in err


def test_a_folder_is_added_and_never_deleted(say: Say, home: Path) -> None:
    """It stays where it is, also when the entry is removed."""
    folder = home / "My “own”\tmodel"
    folder.mkdir()
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "Flux2KleinPipeline", "is_distilled": True, **dict.fromkeys(NEEDED["flux2"], NAMED)})
    )
    for each in NEEDED["flux2"]:
        part(folder / each)
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
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": pipeline, **dict.fromkeys(NEEDED["flux1"], NAMED)})
    )
    for each in NEEDED["flux1"]:
        part(folder / each)
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


def test_a_damaged_list_of_one_s_own_is_said_and_not_overwritten(
    say: Say, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file stays for its owner to mend; the other models are listed and shown."""
    path = home / "home" / "models.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[[model]]\nid = "x"\n')
    code, _, err = say("add", "two", REPOSITORY)
    assert code == 2
    assert err.count("models.toml") == 1
    code, out, _ = say("show", "sd15")
    assert code == 0
    assert "models.toml" in caplog.text
    assert "Stable Diffusion 1.5" in out
    assert path.read_text() == '[[model]]\nid = "x"\n'
    assert "flux1:dev" in say()[1]
