"""Releases that run on this machine: their source in a folder, and a virtual environment with their packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import ROOT
from tests.release.changelog import find_release
from tests.system.conftest import Installation

OVERLAY = Path(__file__).with_name("next_release")
# The folders and files that are not part of the product, and that a copy of the checkout does not need.
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "var", "tests", "pictures")


@dataclass(frozen=True)
class Release:
    """A release's source, and the Python of its virtual environment."""

    name: str
    source: Path
    python: Path

    @property
    def program(self) -> list[str]:
        """The command line of its ``manage.py``."""
        return [str(self.python), str(self.source / "manage.py")]


class Host(Installation):
    """A data folder on which different releases run, one after the other."""

    def __init__(self, release: Release, *, is_prepared: bool = False) -> None:
        super().__init__(is_prepared=is_prepared)
        self.use(release)

    def use(self, release: Release) -> None:
        """Let ``manage`` and ``serve`` run this release from now on."""
        self.release, self.program = release, release.program
        self.folder = release.source  # gunicorn of old releases imports modules from the working folder

    def copy_static_files(self, host: Host) -> None:
        """Copy the static files that another host collected for the same release."""
        shutil.rmtree(self.data_dir / "static", ignore_errors=True)
        subprocess.run(
            ["cp", "-a", host.data_dir / "static", host.data_dir / "static.collected", self.data_dir], check=True
        )


def find_first_release() -> tuple[str, str]:
    """Return the commit of release 0.1.0 and a sentence that says where the commit comes from.

    The commit is HEAD as long as the changelog names none for this release.
    """
    release = find_release((ROOT / "CHANGELOG.md").read_text(), "0.1.0")
    if release is not None and release.commit is not None:
        return release.commit, f"release 0.1.0 is commit {release.commit}, as CHANGELOG.md says"
    return "HEAD", "RELEASE 0.1.0 NOT TESTED: CHANGELOG.md names no commit of 0.1.0 yet, so HEAD was used instead"


def check_out(name: str, commit: str, folder: Path) -> Release:
    """Extract a commit, and create an environment with the packages of its lock file.

    Skips the test if the clone does not contain the commit, or if the packages cannot be installed.
    """
    found = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"],
        capture_output=True, check=False,
    )  # fmt: skip
    if found.returncode:
        pytest.skip(f"NOT TESTED: commit {commit} is not in this clone; run git fetch --unshallow --tags")
    source = folder / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    return _with_environment(name, source, folder / "environment")


def make_next_release(folder: Path) -> Release:
    """Copy the checkout, add the files in ``next_release``, and create an environment for the copy."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_NOT_COPIED)
    shutil.copytree(OVERLAY, source, dirs_exist_ok=True, ignore=_NOT_COPIED)
    return _with_environment("next", source, folder / "environment")


def _with_environment(name: str, source: Path, folder: Path) -> Release:
    lock = "requirements/runtime.lock"
    if (source / lock).read_bytes() == (ROOT / lock).read_bytes():
        # The environment finds the release's own source first, then the packages of this process's environment. Python
        # ignores the .pth files next to these packages, which would add this checkout.
        venv.EnvBuilder(symlinks=True).create(folder)
        _add_to_path(folder, source, Path(sysconfig.get_path("purelib")))
    else:
        _install(source, lock, folder)
    return Release(name, source, folder / "bin" / "python")


def _add_to_path(environment: Path, *folders: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "release.pth").write_text("".join(f"{folder}\n" for folder in folders))


def _install(source: Path, lock: str, folder: Path) -> None:
    """Create an environment with the packages of the lock file and the project itself, as ``bootstrap.sh`` does.

    Skips the test if they cannot be installed.
    """
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    projects = [path.parent for path in (source / "byteor/pyproject.toml", source / "pyproject.toml") if path.exists()]
    editable = [argument for project in projects for argument in ("--editable", str(project))]
    python = str(folder / "bin" / "python")
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        ["pip", "sync", "--quiet", "--python", python, "--require-hashes", lock],
        ["pip", "install", "--quiet", "--python", python, "--no-deps",
         "--build-constraints", "requirements/build.lock", *editable],
    ):  # fmt: skip
        done = subprocess.run([uv, *command], cwd=source, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT TESTED: the packages of {source / lock} cannot be installed: {done.stderr[-300:]}")
