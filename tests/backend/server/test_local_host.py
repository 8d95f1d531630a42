"""What only the local host does: it starts processes, and they can refuse to start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from underpaint_backend.server.hosts.local import MAX_FAILED_STARTS, LocalHost, LocalOptions
from underpaint_protocol.messages import Failed, Request, Submit, Worker

JOB = Submit("job", Request("primer-inpaint", "text_to_image", 64, 64))


async def test_a_worker_that_never_starts_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After some failed starts the host says so, and jobs fail with the reason instead of waiting for ever."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    host = LocalHost(LocalOptions())
    states: list[Worker] = []
    await host.start(states.append)
    (end,) = [message async for message in host.run(JOB, [])]
    await host.close()
    assert isinstance(end, Failed)
    assert end.error.code == "worker_unavailable"
    assert "exit code 7" in end.error.message
    assert [worker.state for worker in states] == ["restarting"] * (MAX_FAILED_STARTS - 1) + ["failed"]
