"""`underpaint models verify`: damage is found, named and repaired."""

from __future__ import annotations

import os
from pathlib import Path

from tests.backend.cli.models.typed import Say, part, store
from tests.backend.models.hub import StandIn
from tests.backend.models.things import REPOSITORY, UNET, any_index, weights


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


def test_what_was_never_fetched_is_said_to_be_absent(say: Say) -> None:
    """And how it comes here."""
    code, out, _ = say("verify", "sd15")
    assert (code, out) == (1, "sd15: it is not on this machine. “underpaint models pull sd15” fetches it.\n")


def test_a_folder_of_ones_own_is_looked_at_by_its_headers(say: Say, home: Path) -> None:
    """There are no hashes to compare with; what was cut off is found all the same, and the list says so, too."""
    folder = home / "mine"
    unet = part(folder / "unet")
    (folder / "model_index.json").write_bytes(any_index("unet"))
    assert say("add", "mine", str(folder))[0] == 0
    code, out, _ = say("verify", "mine")
    assert (code, out) == (
        0,
        "mine: it did not come from the hub, so there are no hashes. Its files' headers are well.\n",
    )
    os.truncate(unet, unet.stat().st_size - 1)
    code, out, _ = say("verify", "mine")
    cut = "unet/diffusion_pytorch_model.safetensors cannot be used: it is cut off: 1 of its 2 bytes"
    assert code == 1
    assert cut in out
    listed = say()[1]
    assert cut in listed
    assert say("verify", "primer-inpaint")[:2] == (
        0,
        "primer-inpaint: it did not come from the hub, so there are no hashes. Its files' headers are well.\n",
    )
