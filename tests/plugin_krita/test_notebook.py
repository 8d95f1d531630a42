"""What is remembered when Krita dies."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from underpaint_krita._vendor.underpaint_protocol import messages as m
from underpaint_krita.claim import claim
from underpaint_krita.events import Job, Place
from underpaint_krita.notebook import Notebook, claimed_notebook

from .conftest import PLUGIN

SERVER, OTHER = "ws://127.0.0.1:8738", "wss://painting.example"
SESSION = "ab" * 16
REQUEST = m.Request(model="primer", task="inpaint", width=2, height=1, prompt="ein „Fuchs“", steps=7, seed=2**40)
JOB = Job("job-1", REQUEST, b"12345678", b"12", Place(3, 4, 600, 400, "/home/artist/picture.kra"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "krita-jobs.json"


def test_session_and_jobs_survive(path: Path) -> None:
    """All but the pixels, each under its server."""
    notebook = Notebook(path)
    notebook.begin(SERVER, SESSION)
    notebook.add(SERVER, JOB)
    again = Notebook(path)
    assert again.session(SERVER) == SESSION
    assert again.jobs(SERVER) == {"job-1": Job("job-1", REQUEST, place=JOB.place)}
    assert (again.session(OTHER), again.jobs(OTHER)) == (None, {})


def test_a_job_that_is_safe_is_forgotten(path: Path) -> None:
    """At whichever server it was; the session stays."""
    notebook = Notebook(path)
    notebook.begin(SERVER, SESSION)
    notebook.add(SERVER, JOB)
    notebook.remove("job-1")
    notebook.remove("job-1")
    assert Notebook(path).jobs(SERVER) == {}
    assert Notebook(path).session(SERVER) == SESSION


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_file_is_private_and_whole(path: Path) -> None:
    """Others cannot read the prompts, and nothing half written lies about."""
    notebook = Notebook(path)
    notebook.begin(SERVER, SESSION)
    notebook.add(SERVER, JOB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"ws://x": 3}', '{"ws://x": {"session": "ü", "jobs": {}}}'])
def test_a_damaged_file_counts_as_empty(path: Path, damage: str) -> None:
    """And is written anew."""
    path.parent.mkdir()
    path.write_text(damage, encoding="utf-8")
    notebook = Notebook(path)
    assert notebook.session("ws://x") is None
    notebook.begin(SERVER, SESSION)
    assert Notebook(path).session(SERVER) == SESSION


def test_what_is_not_damaged_is_kept(path: Path) -> None:
    """One server's entry does not take the others along."""
    notebook = Notebook(path)
    notebook.begin(SERVER, SESSION)
    notebook.begin(OTHER, SESSION)
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored[SERVER]["jobs"] = {"job-1": {"request": {}, "place": {}}}
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert (Notebook(path).session(SERVER), Notebook(path).session(OTHER)) == (None, SESSION)


def test_a_disk_that_refuses_is_no_reason_not_to_paint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so; all is remembered until Krita ends."""
    (tmp_path / "file").touch()
    notebook = Notebook(tmp_path / "file" / "krita-jobs.json")
    notebook.begin(SERVER, SESSION)
    notebook.add(SERVER, JOB)
    assert notebook.jobs(SERVER)
    assert "could not be written" in caplog.text


def test_each_window_has_its_own(tmp_path: Path) -> None:
    """Two dockers do not resume each other's session; the next Krita has what the first window had."""
    first, second = claimed_notebook(tmp_path), claimed_notebook(tmp_path)
    first.begin(SERVER, SESSION)
    assert second.session(SERVER) is None
    first.close()
    third = claimed_notebook(tmp_path)
    assert third.session(SERVER) == SESSION
    second.close()
    third.close()


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    """Its claim ends with it."""
    program = (
        "import sys, pathlib, underpaint_krita.claim as c; k = c.claim(pathlib.Path(sys.argv[1])); print(1); input()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PLUGIN) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = claim(tmp_path / "lock")
        process.kill()
    free = claim(tmp_path / "lock")
    assert taken is None
    assert free is not None
    free.close()
