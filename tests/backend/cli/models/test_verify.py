"""`underpaint models verify`: damage is found, named and repaired."""

from __future__ import annotations

from tests.backend.cli.models.typed import Say, store
from tests.backend.models.hub import StandIn
from tests.backend.models.things import REPOSITORY, UNET, weights


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
