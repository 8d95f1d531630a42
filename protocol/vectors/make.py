"""Writes `messages.json`, the golden vectors: bytes and what they mean.

Run it only to add a vector. A vector that changes means that the language changed, and needs a new version.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.images import image_of
from underpaint_protocol.messages import (
    Accepted,
    Acknowledge,
    Adapter,
    Cancel,
    Cancelled,
    Done,
    Error,
    Failed,
    Fetch,
    Have,
    Hello,
    Limits,
    Missing,
    Model,
    Models,
    Position,
    Preview,
    Progress,
    Pull,
    Pulling,
    Request,
    Result,
    Resume,
    Resumed,
    Started,
    Status,
    Submit,
    Tile,
    Welcome,
    Worker,
    vocabulary,
)
from underpaint_protocol.tiles import name_of

PIXELS = bytes(range(16))
MASK = b"\x00\x80\xff\xff"
IMAGE, _ = image_of(2, 2, 4, PIXELS, x=510, y=7)
SELECTION, _ = image_of(2, 2, 1, MASK, x=510, y=7)
(TILE,) = IMAGE.tiles
SPLIT, SPLIT_TILES = image_of(2, 2, 4, PIXELS, x=255, y=7)
DEEP, DEEP_TILES = image_of(1, 2, 3, bytes(range(12)), depth=16)
STROKE = bytes([1] * 4) + bytes(60)
JOB = "job-1"
SESSION = "0123456789abcdef" * 2
MODEL = Model(
    id="primer-inpaint",
    name="Primer (built in)",
    family="stable_diffusion",
    tasks=("inpaint", "text_to_image"),
    schedulers=("ddim", "euler"),
    native_area=16384,
    size_multiple=8,
    default_steps=12,
    default_guidance=2.5,
    default_scheduler="ddim",
    licence="MIT",
)
REQUEST = Request(
    model="primer-inpaint",
    task="inpaint",
    width=2,
    height=2,
    prompt="a red circle – ein roter Kreis",
    seed=2**63 - 1,
    image=IMAGE,
    mask=SELECTION,
)

MESSAGES: tuple[Record, ...] = (
    Hello("underpaint_krita 0.1.0", ("zlib", "raw")),
    Welcome(
        "underpaint 0.1.0",
        SESSION,
        Worker("starting"),
        (MODEL,),
        Limits(16777216, 64, 8, 1073741824, keep_seconds=86400, stall_seconds=30, work_per_day=5000),
    ),
    Resume(SESSION, 41),
    Resumed(SESSION, (JOB, "job-2")),
    Status(Worker("ready", "cpu", "")),
    Status(Worker("ready", "cpu", ""), draining=True),
    Have(1, (TILE, *SELECTION.tiles)),
    Missing((TILE,), query=1),
    Missing((), query=2),
    Missing((TILE,), job=JOB),
    Tile(TILE, 16, PIXELS),
    Tile(name_of(bytes(64)), 64, bytes.fromhex("78016360a00c000000400001"), "zlib"),
    Tile(name_of(STROKE), 64, bytes.fromhex("78016364646464a0000000013a0005"), "xor", name_of(bytes(64))),
    *(Tile(name, len(data), data) for name, data in (*SPLIT_TILES.items(), *DEEP_TILES.items())),
    Submit(JOB, REQUEST),
    Submit(
        "job-2",
        Request(model="a/b.c-d", task="text_to_image", width=64, height=48, steps=4, guidance=0.0),
        previews=False,
        supersedes=JOB,
    ),
    Submit("job-4", Request(model="m", task="inpaint", width=2, height=2, image=SPLIT)),
    Submit("job-5", Request(model="m", task="inpaint", width=1, height=2, image=DEEP)),
    Submit(
        "job-6",
        Request(
            model="flux2-klein:4b",
            task="edit",
            width=1,
            height=2,
            image=DEEP,
            references=(IMAGE,),
            loras=(Adapter("ink.safetensors", 0.75), Adapter("paper", -1.0)),
        ),
    ),
    Models((MODEL, replace(MODEL, id="flux1:dev", state="absent", download=33_000_000_000, gated=True))),
    Pull("flux1:dev"),
    Pull("flux1:dev", stop=True),
    Pulling("flux1:dev", 1 << 30, 33_000_000_000, 612.5),
    Pulling("flux1:dev", 1 << 30, 33_000_000_000, stopped=True),
    Pulling("flux1:dev", 0, 0, error=describe("model_gated", model="x", detail="no token", url="https://a.example")),
    Cancel(JOB),
    Accepted(JOB, 3, seq=42),
    Position(JOB, 2),
    Started(JOB, 1, seq=43),
    Progress(JOB, "denoising", 0.5, 6, 12, seq=44),
    Preview(JOB, 0, 6, 8, 8, b"\xff\xd8\xff\xd9", 1764000000.25),
    Result(JOB, 0, 7, IMAGE, seq=45),
    Fetch(JOB, (TILE,)),
    Done(JOB, 1.5, seq=46),
    Done(JOB, 1.5, seq=46, notices=("Only the first 75 words counted.",)),
    Failed(JOB, describe("worker_died", detail="SIGKILL"), seq=47),
    Cancelled(JOB, seq=2**63 - 1),
    Acknowledge(JOB),
    Error(describe("unknown_model", detail="nope"), "job-3"),
    Error(describe("unknown_message", detail="dance")),
)

REFUSED: tuple[tuple[str, str, str], ...] = (
    ("an empty frame", "", "malformed_message"),
    ("not a map", "93010203", "malformed_message"),
    ("a map without a type", "81a3666f6fa3626172", "malformed_message"),
    ("half a message", "82a474797065a568656c6c6f", "malformed_message"),
    ("an extension type", "c70401deadbeef", "malformed_message"),
    ("an empty extension type", "83a474797065a568656c6c6fa6636c69656e74a178a36b6579c70005", "malformed_message"),
    ("a type that nobody declared", "81a474797065a564616e6365", "unknown_message"),
    ("hello without its client", "81a474797065a568656c6c6f", "invalid_field"),
    ("cancel with a path for a job", "82a474797065a663616e63656ca36a6f62a72e2e2f68617274", "invalid_field"),
    ("cancel with a number for a job", "82a474797065a663616e63656ca36a6f6207", "invalid_field"),
    ("have with half a name", "83a474797065a468617665a5717565727901a574696c6573c40800112233445566ff", "invalid_field"),
    ("a tile whose name is text", "84a474797065a474696c65a46e616d65a130a473697a6501a464617461c40100", "invalid_field"),
    (
        "a tile of more bytes than a tile can have",
        "84a474797065a474696c65a46e616d65c410" + "00" * 16 + "a473697a65ce00080001a464617461c40100",
        "invalid_field",
    ),
    (
        "a difference to nothing",
        "85a474797065a474696c65a46e616d65c410" + "00" * 16 + "a473697a6501a464617461c40100a8656e636f64696e67a3786f72",
        "invalid_field",
    ),
    (
        "an image of 2 x 2 pixels with two names where it lies in one cell",
        "85a474797065a6726573756c74a36a6f62a161a5696e64657800a47365656400a5696d61676584"
        "a5776964746802a668656967687402a86368616e6e656c7304a574696c6573c420" + "00" * 32,
        "invalid_field",
    ),
    (
        "a resume of a session that is no session",
        "83a474797065a6726573756d65a773657373696f6ea178a86c6173745f73657101",
        "invalid_field",
    ),
)


def in_json(value: Any) -> Any:
    """A wire value as JSON: bytes become {"bytes": hexadecimal}."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {key: in_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [in_json(item) for item in value]
    return value


def vector(message: Record) -> dict[str, Any]:
    """A message as its bytes and as what they mean."""
    return {"hex": vocabulary.encode(message).hex(), "message": in_json(vocabulary.to_wire(message))}


def main() -> None:
    """Write the file beside this script."""
    accepted = [vector(message) for message in MESSAGES]
    refused = [{"what": what, "hex": data, "code": code} for what, data, code in REFUSED]
    path = Path(__file__).with_name("messages.json")
    path.write_text(json.dumps({"messages": accepted, "refused": refused}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
