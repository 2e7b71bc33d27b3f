"""Reads backups.

Checks the dump and the blob list against their hashes in the manifest, and each blob against its hash in the blob list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from django.conf import settings

from byteor_cloud.backup import manifest
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import ListedBlob, Manifest, StoredFile
from byteor_cloud.backup.tar_target import TarTarget
from byteor_cloud.backup.targets import PIECE, FolderTarget, Readable, Target, copy


class AlteredError(BackupError):
    """A file's content does not have the expected hash or size."""


def open_target(location: str) -> Target:
    """Return the place that a command line names: ``s3://bucket/prefix``, a file ``*.tar``, or a folder.

    Raises BackupError if the text names no place. Nothing is read yet.
    """
    if location.startswith("s3://"):
        from byteor_cloud.backup.bucket_target import BucketTarget  # noqa: PLC0415  boto3 takes long to import

        config = settings.CONFIG
        return BucketTarget(location, endpoint_url=config.s3_endpoint_url, region=config.s3_region)
    if not location or "://" in location:
        # An address of another kind may contain a password, so it is not shown.
        raise BackupError("the location is neither a folder, nor a tar file FILE.tar, nor s3://BUCKET/PREFIX")
    path = Path(location).absolute()
    return TarTarget(path) if path.suffix == ".tar" else FolderTarget(path)


class CheckedReader:
    """A stream that hashes what is read from it. At its end, it raises AlteredError if the hash is not ``expected``.

    ``name`` is the file's name in the error. Without ``expected``, the stream only hashes and counts. With ``max_size``
    (bytes), the read that exceeds this size raises AlteredError, so that an altered file cannot fill the disk.
    """

    def __init__(
        self, source: Readable, name: str, expected: str | None = None, *, max_size: int | None = None
    ) -> None:
        self._source, self._name, self._expected, self._max_size = source, name, expected, max_size
        self._digest, self._size = hashlib.sha256(), 0

    def read(self, size: int = -1, /) -> bytes:
        """Return exactly ``size`` bytes, or all that are left. Raises AlteredError, or BackupError if reading fails."""
        pieces, left = [], size
        # Callers may stop after a short read, so this method itself reads until the end.
        while left and (piece := self._read(left)):
            self._digest.update(piece)
            pieces.append(piece)
            left -= len(piece) if size > 0 else 0
        content = b"".join(pieces)
        self._size += len(content)
        if self._max_size is not None and self._size > self._max_size:
            raise AlteredError(f"{self._name} was altered")
        if left and self._expected is not None and self._digest.hexdigest() != self._expected:
            raise AlteredError(f"{self._name} was altered")
        return content

    def _read(self, size: int) -> bytes:
        try:
            return self._source.read(size)
        except OSError as error:
            raise BackupError(f"{self._name} cannot be read: {error.strerror or type(error).__name__}") from error

    def result(self) -> StoredFile:
        """Return the hash and the size of the bytes read so far."""
        return StoredFile(self._digest.hexdigest(), self._size)


class StoredBackup:
    """A complete backup. Use it in a ``with`` block."""

    def __init__(self, target: Target, name: str) -> None:
        try:
            with closing(target.open(manifest.manifest_path(name))) as file:
                content = file.read(manifest.MAX_BYTES + 1)
        except FileNotFoundError:
            raise BackupError(f"{target.location} contains no complete backup {name}") from None
        if len(content) > manifest.MAX_BYTES:
            raise BackupError(f"{manifest.manifest_path(name)} is too large")
        self.target = target
        self.manifest = Manifest.from_bytes(content)
        self.manifest_hash = manifest.hash_of(content)
        if self.manifest.name != name:
            raise BackupError(f"{manifest.manifest_path(name)} belongs to the backup {self.manifest.name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.target.close()

    def copy_dump(self, file: IO[bytes]) -> None:
        """Copy the dump to a file. Raises BackupError if it is missing or altered."""
        with closing(self._open(manifest.dump_path(self.manifest.name))) as source:
            copy(_checked(source, manifest.dump_path(self.manifest.name), self.manifest.dump), file)

    def list_blobs(self) -> Iterator[ListedBlob]:
        """Yield the listed blobs in the order of their hashes.

        Checks the list's hash before it yields the first blob. Raises BackupError if the list is missing or altered.
        """
        path = manifest.blob_list_path(self.manifest.name)
        with closing(self._open(path)) as source:
            checked = _checked(source, path, self.manifest.blob_list)
            while checked.read(PIECE):
                pass
        with closing(self._open(path)) as source:
            for line in source:
                yield ListedBlob.from_line(line)

    def copy_blob(self, blob: ListedBlob, file: IO[bytes]) -> None:
        """Copy a blob to a file. Raises BackupError if it is missing or altered."""
        path = manifest.blob_path(blob.sha256)
        with closing(self._open(path)) as source:
            copy(_checked(source, path, StoredFile(blob.sha256, blob.size)), file)

    def _open(self, path: str) -> IO[bytes]:
        try:
            return self.target.open(path)
        except FileNotFoundError:
            raise BackupError(f"{path} is missing") from None


def _checked(source: Readable, name: str, expected: StoredFile) -> CheckedReader:
    return CheckedReader(source, name, expected.sha256, max_size=expected.size)


def open_backup(location: str, name: str | None = None) -> StoredBackup:
    """Open the backup ``name``, or by default the newest complete one.

    Raises BackupError if there is none, if the location cannot be used, or if the manifest is invalid. Raises
    BackupError or OSError if reading the manifest fails.
    """
    target = open_target(location)
    try:
        if name is None:
            complete = [each for each, is_complete in target.list_names() if is_complete]
            if not complete:
                raise BackupError(f"{location} contains no complete backup")
            name = complete[-1]
        elif not manifest.is_name(name):
            raise BackupError(f"{name!r} is not the name of a backup")
        return StoredBackup(target, name)
    except BaseException:
        target.close()
        raise
