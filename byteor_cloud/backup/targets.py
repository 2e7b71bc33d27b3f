"""Where backups are stored: a folder, a bucket (``bucket_target``) or a tar file (``tar_target``)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, override

from byteor_cloud.backup import manifest
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.storage.file_storage import sync_folder

PIECE = 1 << 20  # bytes per read
PARTIAL = ".partial-"  # the prefix of the names of files that are being written
_FOLDER_MODE = 0o700  # a dump contains personal data and encrypted secrets
OWN = {"blobs", "backups"}
_IGNORED = {"lost+found"}  # the root of a new file system contains this folder


class Readable(Protocol):
    """A file or a stream that is read once from its beginning."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, or no bytes at the end."""


class Target(ABC):
    """A place for backups. Paths in it are relative, with slashes (see ``manifest``).

    Methods raise BackupError if the place cannot be used. Reading an opened file raises BackupError or OSError.
    """

    location: str
    """The place, for messages: a URL or an absolute path."""
    concurrency: ClassVar[int] = 4
    """How many threads may read or write files at the same time."""

    @abstractmethod
    def prepare(self) -> None:
        """Prepare to write a backup. Raises BackupError if that is not possible, or if other files are stored here."""

    def remove_leftovers(self) -> None:  # noqa: B027  a tar target removes its own in ``prepare``
        """Remove partial blobs or unfinished uploads of killed backups. No other backup may be running."""

    @abstractmethod
    def write(self, path: str, source: Readable) -> None:
        """Store a file. If reading ``source`` fails, or the process is killed, no file with this name appears."""

    def sync(self) -> None:  # noqa: B027  a bucket has nothing to do
        """Make sure that the files written so far survive a power failure. For a tar file, only ``finish`` does so."""

    def finish(self) -> None:
        """Make the backup permanent after its manifest was written."""
        self.sync()

    def close(self) -> None:  # noqa: B027  most targets need no cleanup
        """Remove the temporary files of a backup that was not finished."""

    @abstractmethod
    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading. Raises FileNotFoundError if there is none."""

    @abstractmethod
    def list_blobs(self, folder: str) -> dict[str, int]:
        """Return the names and sizes of the blobs in one of the 256 folders, such as "a0"."""

    @abstractmethod
    def list_names(self) -> list[tuple[str, bool]]:
        """Return the name of each backup, oldest first, and whether it is complete."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove the incomplete backup ``name``, but not its blobs."""


@contextmanager
def disk_errors(location: str) -> Iterator[None]:
    """Convert an OSError to BackupError."""
    try:
        yield
    except OSError as error:
        raise BackupError(f"{location}: {error.strerror or type(error).__name__}") from error


class FolderTarget(Target):
    """A local folder. Files are written with a temporary name and then renamed."""

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self._folder = folder
        self._changed: set[Path] = set()  # folders whose entries may not be on the disk yet

    @override
    def prepare(self) -> None:
        with disk_errors(self.location):
            try:
                self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            except FileNotFoundError:
                raise BackupError(f"{self.location}: the folder {self._folder.parent} does not exist") from None
            except FileExistsError:
                raise BackupError(f"{self.location} is not a folder") from None
            foreign = sorted({each.name for each in self._folder.iterdir()} - OWN - _IGNORED)
            if foreign:
                raise BackupError(f"{self.location} contains other files, such as {foreign[0]}: use an empty folder")
            for name in sorted(OWN):
                self._make(self._folder / name)

    @override
    def remove_leftovers(self) -> None:
        with disk_errors(self.location):
            for leftover in (self._folder / "blobs").rglob(f"{PARTIAL}*"):
                leftover.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        """Create a folder that only its owner can read, and its parents, so that they survive a power failure."""
        if folder.is_dir():
            return
        if folder != self._folder:
            self._make(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)

    @override
    def write(self, path: str, source: Readable) -> None:
        target = self._folder / path
        with disk_errors(self.location):
            self._make(target.parent)
            with temporary_file(target.parent) as file:
                copy(source, file)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, target)
        self._changed.add(target.parent)

    @override
    def sync(self) -> None:
        with disk_errors(self.location):
            while self._changed:
                sync_folder(self._changed.pop())

    @override
    def open(self, path: str) -> IO[bytes]:
        try:
            return (self._folder / path).open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BackupError(f"{self.location}: {error.strerror}") from error

    @override
    def list_blobs(self, folder: str) -> dict[str, int]:
        path = self._folder / "blobs/sha256" / folder
        with disk_errors(self.location), contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return {}

    @override
    def list_names(self) -> list[tuple[str, bool]]:
        with disk_errors(self.location), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = sorted(each.name for each in (self._folder / "backups").iterdir() if manifest.is_name(each.name))
            return [(name, (self._folder / manifest.manifest_path(name)).is_file()) for name in found]
        return []

    @override
    def remove(self, name: str) -> None:
        with disk_errors(self.location), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder / "backups" / name)


def copy(source: Readable, file: IO[bytes]) -> None:
    """Copy all bytes."""
    while piece := source.read(PIECE):
        file.write(piece)


@contextmanager
def temporary_file(folder: Path) -> Iterator[Any]:
    """Create a file in the folder, which only the file's owner can read. Remove it at the end unless it was renamed."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=PARTIAL, delete=False) as file:
        try:
            yield file
        finally:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
