"""``make release``: build the files of a release, and sign the list of their hashes.

Exits with 1 and prints the reason if the commit cannot be released or a step fails. Two runs for the same commit, with
the same key, Python and platform, write the same bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from byteor import __version__
from byteor.engine.canonical import canonical
from byteor.engine.signing import release_statement
from byteor.engine.signing.bundle import SIGNING_KEYS, FileEntry
from byteor.engine.signing.release_statement import Release
from byteor.verify.files import RELEASE
from tests.release import signing_key
from tests.release.changelog import ChangelogRelease, find_release
from tests.release.signing_key import SigningKey
from tests.wheels.building import ROOT, Failed, build, install, run

NAME = "byteor-cloud"
SBOM = "sbom.cdx.json"
COPIED = ("requirements/runtime.lock", "docs/openapi.yaml")


@dataclass(frozen=True, slots=True)
class Commit:
    """The commit from which a release is made. ``time`` is a Unix timestamp."""

    id: str
    time: int


def find_commit() -> tuple[Commit, ChangelogRelease]:
    """Return the current commit and its release in the changelog. Raises Failed if the commit cannot be released."""
    # The option overrides git's configuration, which could hide untracked files that the wheels would contain.
    if run("git", "status", "--porcelain", "--untracked-files=all", folder=ROOT):
        raise Failed("the working tree has changes that are not committed")
    commit_id, time = run("git", "log", "-1", "--format=%H %ct", folder=ROOT).split()
    try:
        released = find_release((ROOT / "CHANGELOG.md").read_text(), __version__)
    except ValueError as error:
        raise Failed(f"CHANGELOG.md: {error}") from error
    if released is None:
        raise Failed(f'CHANGELOG.md has no heading "## [{__version__}] - YYYY-MM-DD"')
    if released.commit not in {None, commit_id}:
        raise Failed(f"{__version__} was released from the commit {released.commit}: check out that commit")
    return Commit(commit_id, int(time)), released


def write_files(uv: str, cyclonedx: str, scratch: Path, commit: Commit) -> Path:
    """Write a release's files, except for the signed list and the key set, and return their folder. Raises Failed."""
    files = scratch / "files"
    files.mkdir()
    wheels = build(uv, scratch / "build", epoch=commit.time)
    for file in (*wheels.values(), *(ROOT / name for name in COPIED)):
        shutil.copyfile(file, files / file.name)
    print(f"  ✓ built {', '.join(wheel.name for wheel in wheels.values())}", flush=True)
    environment = scratch / "environment"
    install(uv, sys.executable, environment, "--require-hashes", "--requirement", files / "runtime.lock")
    # The wheels are installed by name. If they were installed by path, the SBOM would contain the path.
    install(
        uv, sys.executable, environment, "--no-deps", "--no-index", "--find-links", files,
        *(f"{name}=={__version__}" for name in wheels),
    )  # fmt: skip
    run(
        cyclonedx, "environment", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible",
        "--output-file", files / SBOM, environment / "bin/python",
        folder=scratch, variables={"SOURCE_DATE_EPOCH": str(commit.time)},
    )  # fmt: skip
    print(f"  ✓ wrote {SBOM} from an environment with the locked packages", flush=True)
    return files


def sign_files(files: Path, commit: Commit, key: SigningKey) -> None:
    """Write the signed list of the files in a folder, and the key set that verifies it."""
    release = Release(
        name=NAME,
        version=__version__,
        commit=commit.id,
        committed_at=datetime.fromtimestamp(commit.time, UTC),
        files={file.name: FileEntry.of_data(file.read_bytes()) for file in sorted(files.iterdir())},
    )
    (files / RELEASE).write_bytes(canonical(release_statement.sign(release, key.private)))
    (files / SIGNING_KEYS).write_bytes(canonical(key.keyset.document()))
    print(f"  ✓ signed {RELEASE} with the key {key.keyset.active.kid}", flush=True)


def make_release(uv: str, cyclonedx: str, key: SigningKey) -> None:
    """Write the files of the current commit's release into a folder in ``dist/``. Raises Failed."""
    commit, released = find_commit()
    target = ROOT / "dist" / f"{NAME}-{__version__}"
    with tempfile.TemporaryDirectory(prefix="byteor-release-") as scratch:
        files = write_files(uv, cyclonedx, Path(scratch), commit)
        sign_files(files, commit, key)
        # Renamed after it was copied, so that an interrupted copy does not look like a release.
        new = target.with_name(f"{target.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(files, new)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    print(f"{target.relative_to(ROOT)}/")
    for file in sorted(target.iterdir()):
        print(f"  {file.stat().st_size:>9,}  {file.name}")
    if released.commit is None:
        print(f"Add this line below the heading of {__version__} in CHANGELOG.md, and commit it:")
        print(f"Commit: `{commit.id}`")


def main() -> int:
    """Make a release or create a key, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make release", description="Build the files of a release, and sign the list of their hashes."
    )
    parser.add_argument("--uv", required=True, help="the uv program")
    parser.add_argument("--cyclonedx", required=True, help="the cyclonedx-py program, which writes the SBOM")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", type=Path, metavar="FILE", help="sign with the private key in this file")
    what.add_argument("--new-key", type=Path, metavar="FILE", help="only create a private key in a new file")
    options = parser.parse_args()
    try:
        if options.new_key is not None:
            print(f"Created the key {signing_key.create(options.new_key)} in {options.new_key}")
        else:
            uv, cyclonedx = (os.path.abspath(shutil.which(name) or name) for name in (options.uv, options.cyclonedx))
            make_release(uv, cyclonedx, signing_key.read(options.key))
    except Failed as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
