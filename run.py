#!/usr/bin/env python3
"""Everything that one does with a checkout of Underpaint. Needs Python 3.11 or later and nothing else.

The first call makes `.venv` and installs what is needed, under the tested versions of `constraints.txt`; later calls
notice when those changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "installed.sha256"
EXTRAS = VENV / "extras"
QUANTISERS = ("bitsandbytes", "gguf", "torchao")
"""Extras that only their own tests see, in a folder of their own: all else is tested as it is without them, and
libraries that find them import them all, which takes seconds."""
MODELS = ("primer-inpaint",)
KRITAS_PYTHON = (
    *("--quiet", "--target=3.8-", "--violations", "--backport=typing", "--no-tips", "--exclude-regex=_vendor"),
    *("protocol/underpaint_protocol", "plugin_krita/underpaint_krita"),
)
"""What vermin is told: whatever Krita loads must run on Python 3.8."""
COVERED = (
    "sessions.py",
    "history.py",
    "outbox.py",
    "book.py",
    "farewells.py",
    "shares.py",
    "late.py",
    "restoring.py",
    "intake.py",
    "uploads.py",
    "pixels.py",
    "turns.py",
    "journal/*",
)
"""Of the daemon's server, what must lose nothing."""
TESTERS = min(4, max(2, os.cpu_count() or 2))
"""Processes that run tests at the same time."""
KRITA_RUNS = "import sys; from underpaint_backend.cli.krita import is_running; sys.exit(is_running())"
UNTIMED = "-k=not quickly"
"""Counting branches takes time: what measures it is left to `test`."""
COVERED_BY = (
    "tests/protocol",
    *(
        f"tests/backend/server/test_{name}*.py"
        for name in ("sess", "hist", "out", "book", "shares", "int", "upl", "turns", "jour", "queue")
    ),
)


def main() -> int:
    """Run one command; its exit code is this program's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, _) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    arguments, rest = parser.parse_known_args()
    if sys.version_info < (3, 11):
        print(f"Underpaint needs Python 3.11 or later; this is {sys.version.split()[0]}.", file=sys.stderr)
        return 2
    try:
        set_up()
        return COMMANDS[arguments.command][1](rest)
    except subprocess.CalledProcessError as error:
        words = " ".join(str(word) for word in error.cmd)
        print(f"This failed with exit code {error.returncode}: {words}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def set_up() -> None:
    """Make `.venv` and install into it, if that was not done for this checkout and these versions."""
    wanted = _fingerprint()
    if not (STAMP.is_file() and STAMP.read_text() == wanted and PYTHON.exists()):
        print("Setting up .venv; this takes a few minutes the first time.", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", "constraints.txt"]
        # torch by its exact version first: it is the one package whose newest build is much larger
        python(*install, _pinned("torch"))
        python(*install, "--editable", ".[backend,dev]")
        STAMP.write_text(wanted)
    python("plugin_krita/vendor.py")


def set_up_extras() -> None:
    """Put the extras for quantised weights beside the packages, if that was not done for these versions."""
    pins = [_pinned(package) for package in QUANTISERS]
    stamp = EXTRAS / "installed"
    if stamp.is_file() and stamp.read_text().split() == pins:
        return
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    python(*install, "--target", str(EXTRAS), *pins)
    stamp.write_text("\n".join(pins))


def _fingerprint() -> str:
    """What the installed packages depend on: the files that list them, and where this checkout lies."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([*parts, str(ROOT).encode(), sys.version.encode()])).hexdigest()


def _pinned(package: str) -> str:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line
    raise KeyError(package)


def python(*words: str, **more_environment: str) -> None:
    """Run the environment's Python in the checkout. Raises `CalledProcessError` if it fails."""
    subprocess.run([str(PYTHON), *words], check=True, cwd=ROOT, env={**os.environ, **more_environment})


def code_of(*words: str, **more_environment: str) -> int:
    """Run the environment's Python in the checkout and return its exit code."""
    return subprocess.run([str(PYTHON), *words], cwd=ROOT, env={**os.environ, **more_environment}).returncode


def become(*words: str) -> int:
    """Run the environment's Python in place of this program, so that whoever ends this one ends that one."""
    if os.name == "posix":
        os.chdir(ROOT)
        os.execv(PYTHON, [str(PYTHON), *words])
    return code_of(*words)


def demo(rest: Sequence[str]) -> int:
    """Paint into a photograph, without Krita."""
    return code_of("demo/demo.py", *rest)


def test(rest: Sequence[str]) -> int:
    """All tests; further words go to pytest. Several processes share them, file by file: most wait for a daemon."""
    set_up_extras()
    # threads that wait for a core that another process has are slower than one
    threads = str(max(1, (os.cpu_count() or 1) // TESTERS))
    return code_of("-m", "pytest", f"--numprocesses={TESTERS}", "--dist=loadfile", *rest, OMP_NUM_THREADS=threads)


def coverage(rest: Sequence[str]) -> int:
    """Every branch of what must lose nothing: the protocol, sessions and the journal."""
    server = "backend/underpaint_backend/server"
    included = ("protocol/underpaint_protocol/*", *(f"{server}/{name}" for name in COVERED))
    tests = [str(path) for name in COVERED_BY for path in sorted(ROOT.glob(name))]
    data = {"COVERAGE_FILE": str(ROOT / "build" / "coverage")}
    (ROOT / "build").mkdir(exist_ok=True)
    measure = (
        "-m",
        "coverage",
        "run",
        "--branch",
        f"--include={','.join(included)}",
        "-m",
        "pytest",
        UNTIMED,
        *rest,
        *tests,
    )
    return code_of(*measure, **data) or code_of(
        "-m", "coverage", "report", "--show-missing", "--fail-under=100", **data
    )


def lint(rest: Sequence[str]) -> int:
    """Style, types and import rules."""
    checks = (
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"],
        ["-c", "from vermin.main import main; main()", *KRITAS_PYTHON],
    )
    return max(code_of(*check, PYTHONPATH=str(ROOT / "plugin_krita")) for check in checks)


def bench(rest: Sequence[str]) -> int:
    """One measurement, by name."""
    names = sorted(
        path.stem
        for path in (ROOT / "bench").glob("*.py")
        if path.stem not in ("report", "plugin_client", "worker_line")
    )
    if not rest or rest[0] not in names:
        print(f"Choose one of: {', '.join(names)}", file=sys.stderr)
        return 2
    # the worker's threads sleep while they wait; whatever is compared with it must do the same
    return code_of(f"bench/{rest[0]}.py", *rest[1:], OMP_WAIT_POLICY="PASSIVE")


def train(rest: Sequence[str]) -> int:
    """Train a built-in model."""
    if not rest or rest[0] not in MODELS:
        print(f"Choose one of: {', '.join(MODELS)}", file=sys.stderr)
        return 2
    return code_of("-m", f"{rest[0].replace('-', '_')}.train", *rest[1:], PYTHONPATH=str(ROOT / "backend" / "training"))


def plugin(rest: Sequence[str]) -> int:
    """Build the plugin's zip."""
    return code_of("plugin_krita/package.py", *rest)


def krita(rest: Sequence[str]) -> int:
    """Install the plugin into this user's Krita and open Krita with a daemon running."""
    if shutil.which("krita") is None:
        print("Krita was not found. Install it from krita.org or with your package manager.", file=sys.stderr)
        return 2
    if code_of("-c", KRITA_RUNS):
        print(
            "Krita is running. Close it first: it reads plugins when it starts, and writes its settings when it ends.",
            file=sys.stderr,
        )
        return 2
    python("plugin_krita/install.py")
    return become("-m", "underpaint_backend", "krita", *rest)


def docs(rest: Sequence[str]) -> int:
    """Write the pages that are made from the sources."""
    return code_of("docs/make_errors.py", *rest)


def serve(rest: Sequence[str]) -> int:
    """Run the daemon."""
    return become("-m", "underpaint_backend", "serve", *rest)


COMMANDS = {
    "demo": ("paint into a photograph, without Krita", demo),
    "test": ("run all tests; further words go to pytest", test),
    "coverage": ("show that every branch of protocol, sessions and journal is tested", coverage),
    "lint": ("check style, types and import rules", lint),
    "bench": ("print one measurement, by name", bench),
    "train": ("train a built-in model", train),
    "plugin": ("build the plugin's zip", plugin),
    "krita": ("install the plugin, start a daemon and open Krita", krita),
    "serve": ("run the daemon", serve),
    "docs": ("write the pages that are made from the sources", docs),
}

if __name__ == "__main__":
    sys.exit(main())
