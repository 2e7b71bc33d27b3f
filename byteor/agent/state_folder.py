"""The state folder: the files that an agent needs after a restart. Only the owner of the folder can read them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from byteor.engine.canonical import Fields, Json, canonical, parse_object, sha256
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import Refused

from .identity import BaseUrl, Credentials, SecretValue
from .progress import Progress

_NEXT_KEY = "api_key.next"
_SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}", re.ASCII)


class StateError(Exception):
    """The state folder cannot be used, the pipeline cannot be captured, or an enrollment response is unreadable."""


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """An agent's ids, name and control plane, without its credential."""

    base_url: str
    agent_id: str
    environment_id: str
    name: str


@dataclass(frozen=True, slots=True)
class StoredKeySet:
    """The last received key set with its ETag, which is empty for the key set in an enrollment response."""

    keyset: KeySet
    etag: str


class StateFolder:
    """One agent's folder. Files are replaced atomically, so a crash leaves the old or the new content, never a mix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise StateError(f"the state folder {folder} cannot be used: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one running agent. Raises StateError if another agent has locked it."""
        with os.fdopen(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateError(f"another agent is running with the state folder {self.folder}") from error
            yield

    def identity(self) -> AgentIdentity | None:
        """Return the identity of the agent that this folder belongs to, or None if it belongs to none."""
        document = self._read("agent.json")
        if document is None:
            return None
        with self._parsing("agent.json"):
            members = Fields(document)
            return AgentIdentity(*(members.text(name) for name in ("base_url", "agent_id", "environment_id", "name")))

    def save_identity(self, identity: AgentIdentity) -> None:
        """Store the identity of the agent that this folder belongs to."""
        self._write(
            "agent.json",
            canonical(
                {
                    "base_url": identity.base_url,
                    "agent_id": identity.agent_id,
                    "environment_id": identity.environment_id,
                    "name": identity.name,
                }
            ),
        )

    def credentials(self) -> Credentials | None:
        """Return the stored credentials, or None if the identity or the key is missing."""
        identity = self.identity()
        path = self.folder / "api_key"
        if identity is None or not path.exists():
            return None
        return Credentials(BaseUrl.parse(identity.base_url), identity.agent_id, SecretValue(path.read_text().strip()))

    def save_api_key(self, api_key: SecretValue) -> None:
        """Store the agent's key."""
        self._write("api_key", api_key.reveal().encode())

    def next_api_key(self) -> SecretValue | None:
        """Return the new key that has not replaced the agent's key yet, or None."""
        path = self.folder / _NEXT_KEY
        return SecretValue(path.read_text().strip()) if path.exists() else None

    def save_next_api_key(self, api_key: SecretValue) -> None:
        """Store a new key next to the agent's key."""
        self._write(_NEXT_KEY, api_key.reveal().encode())

    def promote_next_api_key(self) -> None:
        """Replace the agent's key with the new one atomically. Does nothing if the new key is no longer there."""
        with suppress(FileNotFoundError):
            (self.folder / _NEXT_KEY).replace(self.folder / "api_key")
        self._sync(self.folder)

    def drop_next_api_key(self) -> None:
        """Remove the new key."""
        (self.folder / _NEXT_KEY).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Raise OSError if the folder cannot be written, for example because the disk is full."""
        self._write("probe", b"a key could be stored here")
        (self.folder / "probe").unlink(missing_ok=True)

    def keys(self) -> StoredKeySet | None:
        """Return the stored key set, or None if there is none."""
        document = self._read("signing_keys.json")
        if document is None:
            return None
        with self._parsing("signing_keys.json"):
            members = Fields(document)
            keyset = KeySet.from_document(members.object("key_set"))
            return StoredKeySet(keyset, str(members.member("etag")))

    def save_keys(self, keys: StoredKeySet) -> None:
        """Store a received key set."""
        self._write("signing_keys.json", canonical({"etag": keys.etag, "key_set": keys.keyset.document()}))

    def progress(self) -> Progress:
        """Return the stored progress. It is empty for a new agent."""
        document = self._read("progress.json")
        if document is None:
            return Progress()
        with self._parsing("progress.json"):
            return Progress.from_document(document)

    def save_progress(self, progress: Progress) -> None:
        """Store the progress."""
        self._write("progress.json", canonical(progress.document()))

    def bundle(self, bundle_hash: str) -> bytes | None:
        """Return a downloaded bundle's tar, or None if it is missing or damaged."""
        path = self._bundle_path(bundle_hash)
        data = path.read_bytes() if path.exists() else None
        return data if data is not None and sha256(data) == bundle_hash else None

    def save_bundle(self, bundle_hash: str, chunks: Iterable[bytes]) -> None:
        """Store a bundle's tar from a stream. The caller must check that the stream has this hash."""
        self._write(f"bundles/{_hex(bundle_hash)}.tar", chunks)

    def save_capture(self, bundle_hash: str, files: Mapping[str, bytes]) -> None:
        """Store the input and output of a bundle's pipeline."""
        for name, data in files.items():
            self._write(f"captures/{_hex(bundle_hash)}/{name}", data)

    def capture(self, bundle_hash: str) -> dict[str, bytes]:
        """Return the stored input and output of a bundle's pipeline as files, by path."""
        folder = self.folder / "captures" / _hex(bundle_hash)
        # Names that begin with a dot are of files whose writing was interrupted.
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def remove_other_bundles(self, kept_hashes: Collection[str]) -> None:
        """Remove the tars and captures of all bundles except those with ``kept_hashes``."""
        kept = {_hex(bundle_hash) for bundle_hash in kept_hashes}
        for tar in (self.folder / "bundles").glob("*"):
            if tar.stem not in kept:
                tar.unlink(missing_ok=True)
        for capture in (self.folder / "captures").glob("*"):
            if capture.name not in kept:
                shutil.rmtree(capture)

    def secret(self, name: str, environment: Mapping[str, str]) -> str | None:
        """Return a secret's value from the host's environment or from ``secrets/NAME``, or None if there is none.

        Invalid names are never found, and neither are names that begin with ``BYTEOR_``: a deployment must not read its
        agent's key.
        """
        if not _SECRET_NAME.fullmatch(name) or name.startswith("BYTEOR_"):
            return None
        if name in environment:
            return environment[name]
        path = self.folder / "secrets" / name
        return path.read_text().removesuffix("\n") if path.is_file() else None

    def _bundle_path(self, bundle_hash: str) -> Path:
        return self.folder / "bundles" / f"{_hex(bundle_hash)}.tar"

    def _read(self, name: str) -> Json | None:
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        with self._parsing(name):
            return parse_object(data)

    @contextmanager
    def _parsing(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, Refused) as error:
            raise StateError(f"{self.folder / name} is damaged: {error}") from error

    def _write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        path = self.folder / name
        for parent in reversed(Path(name).parents):
            (self.folder / parent).mkdir(mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")  # created with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
        self._sync(path.parent)

    @staticmethod
    def _sync(path: Path) -> None:
        """Flush a folder to disk, so that the names of its files survive a power failure."""
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _hex(bundle_hash: str) -> str:
    return bundle_hash.removeprefix("sha256:")
