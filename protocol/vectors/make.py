"""Writes `messages.json`, the golden vectors: bytes and what they mean.

Run it only to add a vector. A vector that changes means that the language changed, and needs a new version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from underpaint_protocol.blobs import digest_of, image_of
from underpaint_protocol.errors import describe
from underpaint_protocol.fields import Record
from underpaint_protocol.messages import (
    Accepted,
    BlobChunk,
    Cancel,
    Cancelled,
    Done,
    Error,
    Failed,
    Hello,
    Limits,
    Model,
    Preview,
    Progress,
    Request,
    Result,
    Status,
    Submit,
    Welcome,
    Worker,
    vocabulary,
)

PIXELS = bytes(range(16))
MASK = b"\x00\x80\xff\xff"
JOB = "job-1"
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
    image=image_of(2, 2, 4, PIXELS),
    mask=image_of(2, 2, 1, MASK),
)

MESSAGES: tuple[Record, ...] = (
    Hello("underpaint_krita 0.1.0"),
    Welcome("underpaint 0.1.0", Worker("starting"), (MODEL,), Limits(16777216, 64, 8, 268435456)),
    Status(Worker("ready", "cpu", "")),
    BlobChunk(digest_of(PIXELS), 16, 0, PIXELS[:10]),
    BlobChunk(digest_of(PIXELS), 16, 10, PIXELS[10:]),
    Submit(JOB, REQUEST),
    Submit("job-2", Request(model="a/b.c-d", task="text_to_image", width=64, height=48, steps=4, guidance=0.0), False),
    Cancel(JOB),
    Accepted(JOB, 3),
    Progress(JOB, "denoising", 0.5, 6, 12),
    Preview(JOB, 0, 6, 8, 8, b"\xff\xd8\xff\xd9", 1764000000.25),
    Result(JOB, 0, 7, image_of(2, 2, 4, PIXELS)),
    Done(JOB, 1.5),
    Failed(JOB, describe("worker_died", detail="SIGKILL")),
    Cancelled(JOB),
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


def main() -> None:
    """Write the file beside this script."""
    accepted = [
        {
            "hex": vocabulary.encode(message).hex(),
            "message": {"type": vocabulary.name_of(message), **in_json(message.to_wire())},
        }
        for message in MESSAGES
    ]
    refused = [{"what": what, "hex": data, "code": code} for what, data, code in REFUSED]
    path = Path(__file__).with_name("messages.json")
    path.write_text(json.dumps({"messages": accepted, "refused": refused}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
