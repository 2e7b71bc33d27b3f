"""The state folder: everything an agent must still know after a crash, readable by its owner only."""

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

from byteor_cloud.engine.delivery.encoding import Fields, Json, canonical, parse_object, sha256
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import Refused

from .identity import BaseUrl, Credentials, Secret
from .progress import Progress

_SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}", re.ASCII)


class StateError(Exception):
    """The state folder can't be used."""


@dataclass(frozen=True, slots=True)
class Node:
    """What the control plane says this agent is; no secret in it."""

    base_url: str
    agent_id: str
    environment_id: str
    name: str


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The key set as last fetched, with its ETag."""

    keyset: KeySet
    etag: str


class State:
    """One agent's folder. Every file is replaced atomically, so that each is the old one or the new one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise StateError(f"the state folder {folder} can't be used: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one running agent; a second one is a ``StateError``."""
        with os.fdopen(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateError(f"another agent runs on {self.folder}") from error
            yield

    def node(self) -> Node | None:
        """Return who this folder belongs to, if anyone enrolled with it."""
        document = self._read("agent.json")
        if document is None:
            return None
        with self._intact("agent.json"):
            members = Fields(document)
            return Node(*(members.text(name) for name in ("base_url", "agent_id", "environment_id", "name")))

    def save_node(self, node: Node) -> None:
        """Keep who this folder belongs to."""
        self._write(
            "agent.json",
            canonical(
                {
                    "base_url": node.base_url,
                    "agent_id": node.agent_id,
                    "environment_id": node.environment_id,
                    "name": node.name,
                }
            ),
        )

    def credentials(self) -> Credentials | None:
        """Return the stored credentials, if there are any."""
        node = self.node()
        path = self.folder / "api_key"
        if node is None or not path.exists():
            return None
        return Credentials(BaseUrl.parse(node.base_url), node.agent_id, Secret(path.read_text().strip()))

    def save_api_key(self, api_key: Secret) -> None:
        """Keep the agent's key: the only file with a secret of ours."""
        self._write("api_key", api_key.reveal().encode())

    def keys(self) -> StoredKeys | None:
        """Return the key set that was last fetched, if any."""
        document = self._read("signing_keys.json")
        if document is None:
            return None
        with self._intact("signing_keys.json"):
            members = Fields(document)
            keyset = KeySet.of(members.object("key_set"))
            return StoredKeys(keyset, str(members.member("etag")))

    def save_keys(self, keys: StoredKeys) -> None:
        """Keep a fetched key set."""
        self._write("signing_keys.json", canonical({"etag": keys.etag, "key_set": keys.keyset.document()}))

    def progress(self) -> Progress:
        """Return what is remembered of offers."""
        document = self._read("progress.json")
        if document is None:
            return Progress()
        with self._intact("progress.json"):
            return Progress.from_document(document)

    def save_progress(self, progress: Progress) -> None:
        """Keep what is remembered of offers."""
        self._write("progress.json", canonical(progress.document()))

    def bundle(self, bundle_hash: str) -> bytes | None:
        """Return a downloaded tar if it is here and undamaged."""
        path = self._bundle_path(bundle_hash)
        data = path.read_bytes() if path.exists() else None
        return data if data is not None and sha256(data) == bundle_hash else None

    def save_bundle(self, bundle_hash: str, chunks: Iterable[bytes]) -> None:
        """Stream a tar into the folder under the name of its hash; the caller checks what it streams."""
        self._write(f"bundles/{_hex(bundle_hash)}.tar", chunks)

    def save_capture(self, bundle_hash: str, files: Mapping[str, bytes]) -> None:
        """Keep what a bundle's pipeline processed and made."""
        for name, data in files.items():
            self._write(f"captures/{_hex(bundle_hash)}/{name}", data)

    def capture(self, bundle_hash: str) -> dict[str, bytes]:
        """Return what a bundle's pipeline processed and made."""
        folder = self.folder / "captures" / _hex(bundle_hash)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def prune(self, keep: Collection[str]) -> None:
        """Forget the tars and captures of all other bundles."""
        kept = {_hex(bundle_hash) for bundle_hash in keep}
        for tar in (self.folder / "bundles").glob("*"):
            if tar.stem not in kept:
                tar.unlink(missing_ok=True)
        for capture in (self.folder / "captures").glob("*"):
            if capture.name not in kept:
                shutil.rmtree(capture)

    def secret(self, name: str, environment: Mapping[str, str]) -> str | None:
        """Resolve a ``secret_ref`` from the node's environment, else from ``secrets/NAME``.

        Nothing of the agent's own: a deployment must not read the key that its agent signs in with.
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
        with self._intact(name):
            return parse_object(data)

    @contextmanager
    def _intact(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, Refused) as error:
            raise StateError(f"{self.folder / name} is damaged: {error}") from error

    def _write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        path = self.folder / name
        for parent in reversed(Path(name).parents):
            (self.folder / parent).mkdir(mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")  # made with mode 0600
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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _hex(bundle_hash: str) -> str:
    return bundle_hash.removeprefix("sha256:")
