#!/usr/bin/env python3
"""Writes errors.md from the table of `underpaint_protocol.errors`: `python3 run.py docs`."""

from __future__ import annotations

import re
from pathlib import Path

from underpaint_protocol.errors import TABLE, Row

PAGE = Path(__file__).with_name("errors.md")

HEAD = """\
# Errors

Everything that can go wrong has a code for programs, a sentence, and a hint what to do; “…” is filled in when it
happens. *Again* says whether the same request may succeed later, unchanged. This page is made from
[errors.py](../protocol/underpaint_protocol/errors.py) by `python3 run.py docs`; do not edit it.

| code | what is said | what helps | again |
|---|---|---|---|
"""


def page() -> str:
    """The page as it should be."""
    return HEAD + "".join(_line(code, row) for code, row in TABLE.items())


def _line(code: str, row: Row) -> str:
    return f"| `{code}` | {_words(row.message)} | {_words(row.hint)} | {'yes' if row.retryable else 'no'} |\n"


def _words(template: str) -> str:
    """A sentence with its places left open, as text that Markdown does not take for marks."""
    opened = re.sub(r"\{\w+\}", "…", template).replace("….", "…")
    opened = opened[:1].upper() + opened[1:]
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", opened)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(TABLE)} errors")
