"""`underpaint models remove`: what goes, what stays, and who is asked before."""

from __future__ import annotations

import os
import sys

import pytest
from underpaint_backend.models.catalog import default_roots, find_models

from tests.backend.cli.models.typed import Say, state_of, store
from tests.backend.models.hub import StandIn
from tests.backend.models.things import REPOSITORY, UNET, WANTED


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


@pytest.mark.parametrize("commit", ["d" * 40, "other-tool"])
def test_what_another_program_fetched_stays(say: Say, hub: StandIn, commit: str) -> None:
    """Another snapshot is not touched, nor are blobs to which it links; they are not ours."""
    say("add", "brush", REPOSITORY)
    say("pull", "brush")
    snapshots = store().repository(REPOSITORY) / "snapshots"
    other = snapshots / commit / UNET
    other.parent.mkdir(parents=True)
    other.symlink_to(os.path.relpath((snapshots / ("c" * 40) / UNET).resolve(), other.parent))
    own = other.with_name("config.json")
    own.write_text("{}", encoding="utf-8")
    say("remove", "brush", "--yes")
    assert not (snapshots / ("c" * 40)).exists()
    assert other.read_bytes() == hub.repositories[REPOSITORY].files[UNET]
    assert own.exists()
