"""A backup in one tar file, with the same paths as in a folder."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any, ClassVar, override

from byteor_cloud.backup import manifest
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.targets import PARTIAL, Readable, Target, copy, disk_errors
from byteor_cloud.storage.file_storage import sync_folder


class TarTarget(Target):
    """A tar file with one backup. It is written with a temporary name, and renamed when it is complete."""

    concurrency: ClassVar[int] = 1

    def __init__(self, path: Path) -> None:
        self.location = str(path)
        self._path = path
        self._file: Any = None
        self._tar: tarfile.TarFile | None = None
        self._index: dict[str, tuple[int, int]] | None = None

    @override
    def prepare(self) -> None:
        with disk_errors(self.location):
            if self._path.exists():
                raise BackupError(f"{self.location} already exists: a tar file contains one backup")
            try:
                # ``tempfile`` chooses the end of the name. A wildcard would match the temporary files of targets with
                # similar names, to which other backups may be writing.
                temporary = re.compile(re.escape(f"{PARTIAL}{self._path.name}-") + r"[a-z0-9_]{8}")
                for leftover in self._path.parent.iterdir():
                    if temporary.fullmatch(leftover.name):
                        leftover.unlink(missing_ok=True)
                self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115  closed by ``finish`` or ``close``
                    dir=self._path.parent, prefix=f"{PARTIAL}{self._path.name}-", delete=False
                )
            except FileNotFoundError:
                raise BackupError(f"{self.location}: the folder {self._path.parent} does not exist") from None
            self._tar = tarfile.open(fileobj=self._file, mode="w:", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    @override
    def write(self, path: str, source: Readable) -> None:
        assert self._tar is not None  # noqa: S101  ``prepare`` was called
        # The header of each file contains its size, and only complete and valid files may be added.
        with disk_errors(self.location), tempfile.TemporaryFile(dir=self._path.parent) as file:
            copy(source, file)
            member = tarfile.TarInfo(path)
            member.size, member.mode = file.tell(), 0o600
            file.seek(0)
            self._tar.addfile(member, file)
            _forget_members(self._tar)

    @override
    def finish(self) -> None:
        assert self._tar is not None  # noqa: S101  ``prepare`` was called
        with disk_errors(self.location):
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self._file.name, self._path)
            sync_folder(self._path.parent)

    @override
    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._file.name)

    @override
    def open(self, path: str) -> IO[bytes]:
        offset, size = self._read_index().get(path, (0, -1))
        if size < 0:
            raise FileNotFoundError(path)
        with disk_errors(self.location):
            file = self._path.open("rb", buffering=0)
            file.seek(offset)
            return io.BufferedReader(_Part(file, size))

    def _read_index(self) -> dict[str, tuple[int, int]]:
        """Return the offset and the size of each file. Raises BackupError if the tar file cannot be read."""
        if self._index is None:
            index: dict[str, tuple[int, int]] = {}
            with disk_errors(self.location):
                try:
                    with tarfile.open(self._path, "r:") as tar:
                        while (member := tar.next()) is not None:
                            if member.isfile():
                                index[member.name.removeprefix("./")] = member.offset_data, member.size
                            _forget_members(tar)
                except FileNotFoundError:
                    raise BackupError(f"{self.location} does not exist") from None
                except tarfile.TarError:
                    raise BackupError(f"{self.location} is not a complete tar file") from None
            self._index = index
        return self._index

    @override
    def list_blobs(self, folder: str) -> dict[str, int]:
        if self._tar is not None:  # a new tar file
            return {}
        prefix = f"blobs/sha256/{folder}/"
        return {
            path.removeprefix(prefix): size for path, (_, size) in self._read_index().items() if path.startswith(prefix)
        }

    @override
    def list_names(self) -> list[tuple[str, bool]]:
        if self._tar is not None:  # a new tar file
            return []
        names = {path.split("/")[1] for path in self._read_index() if path.startswith("backups/")}
        found = sorted(filter(manifest.is_name, names))
        return [(name, manifest.manifest_path(name) in self._read_index()) for name in found]

    @override
    def remove(self, name: str) -> None:
        """Do nothing, because ``close`` removes the whole file."""


def _forget_members(tar: tarfile.TarFile) -> None:
    """Clear the list of the files read or written so far, which takes a kilobyte of memory per file."""
    tar.members.clear()  # type: ignore[attr-defined]  # the stubs lack this attribute


class _Part(io.RawIOBase):
    """A part of an open file, from the file's current position. Closing the part closes the file."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file, self._left = file, size

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), self._left))
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)

    @override
    def close(self) -> None:
        self._file.close()
        super().close()
