"""The command line as someone types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from underpaint_backend.cli import COMMANDS
from underpaint_backend.cli.krita import krita_environment
from underpaint_backend.launch import Launched, launch, launched
from underpaint_backend.models.catalog import DESCRIPTION, default_roots
from underpaint_backend.pictures import open_picture
from underpaint_protocol import __version__

from tests.backend.cli.test_token import added
from tests.backend.models.things import TABLE
from tests.certificates import self_signed


def underpaint(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "underpaint_backend", *words],
        env={"UNDERPAINT_HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--image", "missing.png", "--mask", "missing.png"], "there is no file missing.png"),
        (["--image", __file__, "--mask", __file__], "is not a PNG, JPEG or WebP picture"),
        (["--mask", "x.png"], "--mask needs the picture that it is for"),
        (["--edit"], "--edit needs the picture that it is for"),
        (["--reference", "missing.png"], "there is no file missing.png"),
        (["--lora", "ink:9"], "--lora must be like ink or ink:0.8, with a weight from -4 to 4; it was ink:9"),
        (["--lora", "ink:heavy"], "with a weight from -4 to 4; it was ink:heavy"),
        (["--count", "0"], "--count must be from 1 to 1000; it was 0"),
        (["--size", "big"], "--size must be like 512x512"),
        (["--size", "²x64"], "--size must be like 512x512"),
        (["--url", "wss://box.example"], "wants a token of its own"),
        (["--url", "wss://localhost:8748"], "wants a token of its own: give it with --token, or in UNDERPAINT_TOKEN"),
        (["--size", "64x64", "--image", "missing.png"], "--size is for a picture without --image"),
        (["--size", "", "--image", "missing.png"], "--size is for a picture without --image"),
        (["--size", ""], "--size must be like 512x512"),
        (["--size", "20000x20000"], "--size must be from 16x16 to 16384x16384; it was 20000x20000"),
        (["--size", "0x0"], "--size must be from 16x16 to 16384x16384; it was 0x0"),
        (["--size", "512x7"], "--size must be from 16x16 to 16384x16384; it was 512x7"),
        (["--strength", "0.5"], "--strength needs the picture that it is for"),
        (["--image", "missing.png", "--strength", "7"], "strength must be from 0.01 to 1; it was 7"),
        (["--steps", "10000"], "steps must be from 1 to 1000"),
        (["--steps", "20", "--scheduler", "ddim:30+ddpm:20"], "leave --steps away"),
        (["--model", "My Model"], "there is no model called My Model; “underpaint models” lists them"),
        (["--output", "nowhere/out.png"], "in a folder that exists"),
        (["--output", "out.gif"], "--output must be a PNG"),
        ([], "the daemon never ran for this user"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(tmp_path: Path, words: list[str], sentence: str) -> None:
    """What the person at the keyboard can mend is said in one line."""
    run = underpaint(tmp_path, "generate", "a cat", "--output", "out.png", *words)
    assert run.returncode == 2
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serve", "--memory-gib", "lots"], "--memory-gib: must be a number above 0 and below 1048576; it was lots"),
        (["serve", "--memory-gib", "2000000"], "must be a number above 0 and below 1048576; it was 2000000"),
        (["serve", "--drain-seconds", "a few"], "--drain-seconds: must be from 0 to 3600; it was a few"),
        (["serve", "--keep-hours", "²"], "--keep-hours: must be a whole number from 1 to 1000000; it was ²"),
        (["serve", "--threads", "0"], "--threads: must be a whole number from 1 to 1024; it was 0"),
        (["serve", "--threads", "all"], "--threads: must be a whole number from 1 to 1024; it was all"),
        (["serve", "--threads", "9" * 15], "must be a whole number from 1 to 1024; it was 9"),
        (["serve", "--keep-hours", "9" * 5000], "must be a whole number from 1 to 1000000; it was 9"),
        (["generate", "x", "--output", "x.png", "--seed", "abc"], "--seed: must be a whole number; it was abc"),
        (["generate", "x", "--output", "x.png", "--count", "1.5"], "--count: must be a whole number; it was 1.5"),
        (["generate", "x", "--output", "x.png", "--guidance", "much"], "--guidance: must be a number; it was much"),
        (["generate", "x", "--output", "x.png", "--trust", "zzz"], "--trust: must be the 64 digits"),
        (["generate", "x", "--output", "x.png", "--trust", "96C8", "E94A"], "in quotes if there are spaces"),
    ],
)
def test_a_wrong_value_is_said_in_words(tmp_path: Path, words: list[str], sentence: str) -> None:
    """With the option that it was given to and what it should be, and no name from inside the program."""
    run = underpaint(tmp_path, *words)
    assert run.returncode == 2
    assert sentence in run.stderr.splitlines()[-1]
    assert "invalid" not in run.stderr


@pytest.mark.parametrize("words", [["generate", "x", "--output", "x.png"], ["models"], ["models", "pull", "sd15"]])
def test_an_unknown_option_gets_the_usage_of_its_command(tmp_path: Path, words: list[str]) -> None:
    """Not that of `underpaint`, in which no option of a command can be looked up."""
    run = underpaint(tmp_path, *words, "--width=7")
    command = " ".join(word for word in words[:2] if len(word) > 1)
    assert run.returncode == 2
    assert run.stderr.startswith(f"usage: underpaint {command} ")
    assert "unrecognized arguments: --width" in run.stderr


def test_the_version_is_told(tmp_path: Path) -> None:
    """As every program's is."""
    run = underpaint(tmp_path, "--version")
    assert (run.returncode, run.stdout) == (0, f"underpaint {__version__}\n")


def test_the_command_alone_says_what_it_can_do(tmp_path: Path) -> None:
    """Every command, and examples that can be typed as they are; it is no complaint, and no success."""
    run = underpaint(tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    for command in COMMANDS:
        assert f"\n    {command} " in run.stderr
    assert "underpaint models pull flux2-klein:4b" in run.stderr
    assert "error" not in run.stderr


def test_who_reads_no_further_is_told_nothing(tmp_path: Path) -> None:
    """As in `underpaint models | head -1`."""
    command = [sys.executable, "-m", "underpaint_backend", "models"]
    with subprocess.Popen(
        command, env={"UNDERPAINT_HOME": str(tmp_path), "PATH": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_cancels_the_picture(tmp_path: Path, own_daemon: Launched) -> None:
    """It is said, nothing is written, and the daemon does not go on with it."""
    words = ["generate", "a cat", "--steps", "1000", "--output", str(tmp_path / "out.png")]
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as if this run were not in the background
    process = subprocess.Popen(
        [sys.executable, "-m", "underpaint_backend", *words],
        env={"UNDERPAINT_HOME": str(own_daemon.home), "PATH": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, ignored)
    until(lambda: "hello from 'underpaint generate'" in own_daemon.log.read_text())
    time.sleep(0.5)  # in which the job is accepted
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "\nunderpaint: the picture was cancelled, and nothing was written\n")
    assert not (tmp_path / "out.png").exists()
    until(lambda: ": cancelled after" in own_daemon.log.read_text())


def test_several_pictures_are_numbered_and_have_seeds_of_their_own(tmp_path: Path, daemon: Launched) -> None:
    """More than one job's worth; what lies there stays; each is the picture that its seed gives alone."""
    words = ["--steps", "1", "--size", "64x64", "--output"]
    there = tmp_path / "out-2.png"
    there.write_bytes(b"mine")
    run = underpaint(daemon.home, "generate", "red", *words, str(tmp_path / "out.png"), "--count", "9", "--seed", "5")
    assert run.returncode == 0, run.stderr
    numbers = [1, *range(3, 11)]
    paths = [tmp_path / f"out-{number}.png" for number in numbers]
    assert run.stdout.splitlines() == [f"{path} (seed {seed})" for seed, path in enumerate(paths, 5)]
    assert there.read_bytes() == b"mine"
    assert not (tmp_path / "out.png").exists()
    for seed, path in ((7, paths[2]), (13, paths[8])):
        alone = tmp_path / f"{seed}.png"
        underpaint(daemon.home, "generate", "red", *words, str(alone), "--seed", str(seed))
        apart = ImageChops.difference(open_picture(alone, "RGBA").convert("RGB"), open_picture(path, "RGB"))
        assert max(high for _, high in apart.getextrema()) <= 1
    assert len({path.read_bytes() for path in paths}) == 9


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_bad_address_is_said_in_one_line(tmp_path: Path, daemon: Launched) -> None:
    """An address that is none is told as such, with what one looks like."""
    run = underpaint(daemon.home, "generate", "a cat", "--output", str(tmp_path / "out.png"), "--url", "nonsense")
    assert run.returncode == 2
    assert "nonsense is no address" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_damaged_token_is_said_in_one_line(tmp_path: Path) -> None:
    """Bytes that are no token are no reason for a traceback."""
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbf\xe2\x80\xa6")
    run = underpaint(tmp_path, "generate", "a cat", "--output", str(tmp_path / "out.png"))
    assert run.returncode == 2
    assert "cannot be read" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_guest_paints_on_a_box_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """With a token from `token add` and the fingerprint from the box's log, and with no other one."""
    box, pair = tmp_path / "home", self_signed(tmp_path)
    token = added(box, "anna")
    words = ["--listen", "127.0.0.1:0", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    with launched(box, "--threads", "1", *words) as daemon:
        (line,) = [line for line in daemon.log.read_text().splitlines() if "fingerprint" in line]
        guest = ["--url", daemon.url, "--token", token, "--output", str(tmp_path / "out.png"), "--size", "64x64"]
        painted = underpaint(
            tmp_path / "guest", "generate", "a cat", "--steps", "1", *guest, "--trust", line.partition(" is ")[2]
        )
        assert painted.returncode == 0, painted.stderr
        tokenless = underpaint(tmp_path / "guest", "generate", "a cat", "--url", daemon.url, "--output", guest[5])
        assert (tokenless.returncode, "wants a token of its own" in tokenless.stderr) == (2, True)
        refused = underpaint(tmp_path / "guest", "generate", "a cat", *guest, "--trust", "0" * 64)
    assert refused.returncode == 2
    assert "another certificate" in refused.stderr


def test_where_there_is_no_daemon_a_command_starts_one(tmp_path: Path) -> None:
    """The hint is meant for somebody at a terminal."""
    run = underpaint(
        tmp_path, "generate", "a fox", "--url", "ws://127.0.0.1:1", "--token", "x" * 43, "--output", "x.png"
    )
    assert run.returncode == 1
    assert "is not running at ws://127.0.0.1:1" in run.stderr
    assert run.stderr.endswith("“underpaint serve” starts one.\n")


def test_a_daemon_on_another_port_is_found(tmp_path: Path, daemon: Launched) -> None:
    """A command asks where this user's daemon wrote down that it listens."""
    words = ["--steps", "1", "--size", "64x64", "--output", str(tmp_path / "out.png")]
    run = underpaint(daemon.home, "generate", "a cat", *words)
    assert run.returncode == 0, run.stderr


def test_a_photograph_lies_as_its_camera_was_held(tmp_path: Path) -> None:
    """The orientation that a camera wrote down is followed, so that a mask fits what one sees."""
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "phone.jpg", exif=exif)
    assert open_picture(tmp_path / "phone.jpg", "RGBA").size == (20, 40)


def test_a_mask_that_selects_nothing_is_said(tmp_path: Path) -> None:
    """An all-black mask is an empty selection."""
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    picture = str(tmp_path / "black.png")
    run = underpaint(tmp_path, "generate", "a cat", "--output", "out.png", "--image", picture, "--mask", picture)
    assert (run.returncode, run.stderr) == (2, "underpaint: the mask selects nothing\n")


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path, daemon: Launched) -> None:
    """A second daemon on the same port says why it cannot start."""
    run = underpaint(tmp_path, "serve", "--port", daemon.url.rpartition(":")[2])
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("something does already. Use it, or choose --port")


def test_models_lists_the_built_in_one(tmp_path: Path) -> None:
    """A fresh install can paint."""
    run = underpaint(tmp_path, "models")
    assert run.returncode == 0
    assert "primer-inpaint" in run.stdout


def test_generate_changes_nothing_outside_the_mask(tmp_path: Path, daemon: Launched) -> None:
    """A picture painted from the command line is the old one wherever the mask is black."""
    before = Image.effect_noise((120, 90), 60).convert("RGB")
    before.save(tmp_path / "before.png")
    mask = Image.new("L", before.size)
    mask.paste(255, (30, 20, 80, 70))
    mask.save(tmp_path / "mask.png")
    words = [
        "--image",
        "before.png",
        "--mask",
        "mask.png",
        "--output",
        "after.png",
        "--url",
        daemon.url,
        "--steps",
        "3",
    ]
    files = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
    run = underpaint(daemon.home, "generate", "red", *files)
    assert run.returncode == 0, run.stderr
    after = Image.open(tmp_path / "after.png").convert("RGB")
    outside = Image.eval(mask, lambda value: 255 - value)
    black = Image.new("RGB", before.size)
    assert Image.composite(before, black, outside).tobytes() == Image.composite(after, black, outside).tobytes()
    assert before.tobytes() != after.tobytes()


@pytest.mark.parametrize("port", ["99999", "-1", "eight"])
def test_an_impossible_port_is_said(tmp_path: Path, port: str) -> None:
    """What is no port is refused before anything starts."""
    run = underpaint(tmp_path, "serve", f"--port={port}")
    assert run.returncode == 2
    assert "must be from 0 to 65535" in run.stderr


def test_a_daemon_that_does_not_start_says_only_why(tmp_path: Path, daemon: Launched) -> None:
    """Its last words are quoted, and not what an earlier one wrote into the same log."""
    (tmp_path / "daemon.log").write_text("an old story\n")
    with pytest.raises(RuntimeError) as refusal:
        launch(tmp_path, port=int(daemon.url.rpartition(":")[2]))
    assert "something does already" in str(refusal.value)
    assert "old story" not in str(refusal.value)


def test_krita_finds_its_own_python_first() -> None:
    """Another Python in front of the PATH does not lead Krita astray."""
    environment = krita_environment(
        {"PATH": "/pyenv/shims:/usr/bin", "PYTHONHOME": "/x", "HOME": "/h"}, "/usr/bin/krita"
    )
    assert environment == {"PATH": "/usr/bin:/pyenv/shims:/usr/bin", "HOME": "/h"}


def krita(home: Path, program: Path) -> subprocess.CompletedProcess[str]:
    """`underpaint krita` with a Krita that is closed at once."""
    program.mkdir(exist_ok=True)
    (program / "krita").write_text("#!/bin/sh\n")
    (program / "krita").chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "underpaint_backend", "krita"],
        env={"UNDERPAINT_HOME": str(home), "PATH": f"{program}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_krita_takes_the_daemon_that_runs_already(tmp_path: Path, daemon: Launched) -> None:
    """On whichever port it listens."""
    run = krita(daemon.home, tmp_path / "bin")
    assert (run.returncode, run.stdout) == (0, "The daemon runs already.\n"), run.stderr


def test_krita_says_that_a_token_cannot_be_read(tmp_path: Path) -> None:
    """A damaged file is named in one line."""
    (tmp_path / "token").write_bytes(b"\xff\n")
    run = krita(tmp_path, tmp_path / "bin")
    assert run.returncode == 2
    assert run.stderr.startswith(f"underpaint: {tmp_path / 'token'} cannot be read: ")


def test_a_model_without_its_files_is_left_out(tmp_path: Path) -> None:
    """A description alone is no model, and the log says so."""
    folder = tmp_path / "models" / "empty"
    folder.mkdir(parents=True)
    shutil.copy(default_roots()[0] / "primer_inpaint" / DESCRIPTION, folder)
    (folder / DESCRIPTION).write_text((folder / DESCRIPTION).read_text().replace("primer-inpaint", "empty"))
    run = underpaint(tmp_path, "models")
    assert "empty " not in run.stdout
    assert "no model_index.json" in run.stderr


def test_a_picture_is_painted_anew(tmp_path: Path, daemon: Launched) -> None:
    """Without a mask the whole picture is, as far as the strength says."""
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.png")
    output = tmp_path / "out.png"
    words = ["--image", str(tmp_path / "red.png"), "--strength", "0.4", "--steps", "4", "--output", str(output)]
    run = underpaint(daemon.home, "generate", "blue", *words)
    assert run.returncode == 0, run.stderr
    assert open_picture(output, "RGBA").size == (64, 48)


def test_a_second_daemon_is_refused_and_leaves_the_first_alone(daemon: Launched, tmp_path: Path) -> None:
    """It would have no journal; and its address must not take the place of the first one's."""
    run = underpaint(daemon.home, "serve", "--port", "0")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "running already" in run.stderr
    words = ["--steps", "1", "--size", "64x64", "--output", str(tmp_path / "out.png")]
    assert underpaint(daemon.home, "generate", "a cat", *words).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="the folder is one of Linux")
@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["models", "add-folder", "."], ["token", "add", "anna"]])
def test_a_data_folder_that_cannot_be_made_is_said_in_one_line(words: list[str]) -> None:
    """No traceback, and the folder's name."""
    run = underpaint(Path("/proc/nope"), *words)
    assert run.returncode == 2, run.stdout
    assert "Traceback" not in run.stderr
    assert "/proc/nope" in run.stderr.splitlines()[-1]


def test_no_answer_to_a_question_is_no(tmp_path: Path) -> None:
    """Ctrl-D, or no terminal at all."""
    table = {**TABLE, "id": "brush"}
    (tmp_path / "models.toml").write_text(
        "[[model]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    )
    run = subprocess.run(
        [sys.executable, "-m", "underpaint_backend", "models", "remove", "brush"],
        env={"UNDERPAINT_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (run.returncode, run.stderr) == (2, "underpaint: nobody is there to be asked; say --yes\n")
    assert (tmp_path / "models.toml").read_text().count("brush")
