"""Builds both distributions from a copy of the checkout, and installs packages into separate environments."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {"byteor": "byteor", "byteor_cloud": "."}


class Failed(Exception):
    """A step failed, or a check of its result."""


def run(
    *command: str | Path, folder: Path, variables: Mapping[str, str] | None = None, codes: tuple[int, ...] = (0,)
) -> str:
    """Run the program in the folder with clean environment variables, and return its standard output.

    Raises Failed if the exit code is not in ``codes``.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment() | dict(variables or {}),
        umask=0o022,  # wheels contain the modes of their files
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in codes:
        raise Failed(
            f"{' '.join(map(str, command))} exited with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"
        )
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment variables without settings and without those that could lead to the checkout."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("BYTEOR_", "PYTHON", "VIRTUAL_ENV"))
    }


def copy_checkout(target: Path) -> Path:
    """Copy the files that a commit would contain. A build then uses no others, and leaves none in the checkout."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        source, copy = ROOT / name, target / name
        if os.path.lexists(source):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy, follow_symlinks=False)
            if not copy.is_symlink():
                copy.chmod(0o644)
    return target


def build(uv: str, folder: Path, *, epoch: int = 1_700_000_000) -> dict[str, Path]:
    """Build both wheels from a copy of the checkout in ``folder``, and return their files.

    ``epoch`` is the time of the files in the wheels, as a Unix timestamp.
    """
    checkout = copy_checkout(folder / "checkout")
    for project in PROJECTS.values():
        run(
            uv, "build", "--quiet", "--wheel", "--build-constraints", checkout / "requirements/build.lock",
            "--out-dir", folder, checkout / project, folder=folder, variables={"SOURCE_DATE_EPOCH": str(epoch)},
        )  # fmt: skip
    return {name: next(folder.glob(f"{name}-*.whl")) for name in PROJECTS}


def install(uv: str, python: str, into: Path, *arguments: str | Path) -> Path:
    """Install packages into an environment, creating it if missing. Return the folder with its programs."""
    if not into.exists():
        run(uv, "venv", "--quiet", "--python", python, into, folder=into.parent)
    run(uv, "pip", "install", "--quiet", "--python", into / "bin/python", *arguments, folder=into.parent)
    return into / "bin"
