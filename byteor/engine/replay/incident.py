"""The incident bundle v1, a ``.tar.gz``: creating a bundle, and unpacking and checking an untrusted bundle."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from byteor.engine import strict_json
from byteor.engine.compiler import KvError, PipelineSpec, decode, encode, spec_hash

# The keys that each document must have, with alternatives separated by "|"; their values may be null.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "spec_validation.json": ("ok", "description|error"),
    "runtime.json": ("crate",),
    "policy_audit.json": ("ok", "policy_version", "mode", "enforced", "stage_failure_policy", "spec_path"),
    "environment.json": ("pid", "cwd", "args", "env", "proc_status"),
    "outcome.json": ("stopped",),
}
# The only value, besides null, that these keys may have.
_FIXED: Mapping[str, Mapping[str, object]] = {
    "policy_audit.json": {"policy_version": 1, "stage_failure_policy": "stop_pipeline"}
}
_OPTIONAL = ("outcome.json", "runtime_config.json", "single_ring_snapshot.json", "lane_graph_state.json")
# A document is read into memory as a whole, so it has the default limits of the body of an API request.
_MAX_DOCUMENT = 4 * 1024 * 1024
_MAX_NESTING = 200
_MAX_PATH = 1024
_MAX_NAME = 255
_MAX_DEPTH = 16
_MAX_HEADERS = 64 * 1024  # bytes of headers for one entry, since tarfile reads them into memory as a whole
_MAX_PADDING = 1024 * 1024  # bytes of zeros after the last entry
_CHUNK = 64 * 1024
_BROKEN = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError, ValueError, RecursionError, OverflowError)
_MAX_RATIO, _FREE_BYTES = 100, 1024 * 1024
# Even an empty file or folder takes space on the disk, so each counts as a block toward the unpacked size. The first
# 256 are free, because few real bundles have more.
_FREE_ENTRIES, _BLOCK = 256, 4096
# Errors that the host causes: unpacking the same archive may succeed later. Any other OSError is due to a name or a
# file in the archive.
_HOST_ERRNOS = {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENODEV, errno.ENOENT, errno.ENOLCK, errno.ENOMEM, errno.ENOSPC, errno.ENOTCONN, errno.ENXIO, errno.EPERM,
    errno.EROFS, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The limits of an archive: the total size of its files, and the numbers of its entries and folders."""

    max_bytes: int = 512 * 1024 * 1024
    max_entries: int = 10_000


def max_unpacked(packed: int) -> int:
    """Return the maximum unpacked size of an archive with ``packed`` bytes. ``ArchiveLimits`` may allow less."""
    return _MAX_RATIO * packed + _FREE_BYTES


def is_host_error(error: OSError) -> bool:
    """Return whether the host caused the error, rather than the archive that was being unpacked."""
    return error.errno in _HOST_ERRNOS


@dataclass(frozen=True, slots=True)
class RejectionReason:
    """The reason why a bundle is rejected: a stable code and a message."""

    code: str
    detail: str


class RejectedBundle(Exception):
    """Raised for a bundle that cannot be used, for the given ``reasons``."""

    def __init__(self, reasons: list[RejectionReason]) -> None:
        super().__init__("; ".join(f"{reason.code}: {reason.detail}" for reason in reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class IncidentBundle:
    """A checked bundle: its spec, documents by file name, journals by lane, and expected frames by egress.

    The paths of journals and frames were found by listing the bundle's folder, so none leads outside.
    """

    spec: PipelineSpec
    spec_hash: str
    documents: Mapping[str, dict[str, Any]]
    journals: Mapping[str, Path]
    expected: Mapping[str, Path]

    @property
    def stage_config(self) -> dict[str, Any] | None:
        """The parameters of the stages, by stage id; None if the bundle has no ``runtime_config.json``."""
        if (runtime_config := self.documents.get("runtime_config.json")) is None:
            return None
        stage_config: dict[str, Any] = runtime_config.get("stage_config") or {}
        return stage_config


def build_incident(
    spec_kv: str,
    documents: Mapping[str, Mapping[str, Any]],
    *,
    journals: Mapping[str, bytes] | None = None,
    expected: Mapping[str, bytes] | None = None,
) -> bytes:
    """Create the ``.tar.gz`` of a bundle from documents by file name, journals by lane, and expected frames by egress.

    The contents are not checked. With the same versions of Python and zlib, equal arguments yield equal bytes.
    """
    files = {"spec.kv": spec_kv.encode()}
    files |= {name: json.dumps(body, sort_keys=True, indent=1).encode() for name, body in documents.items()}
    files |= {f"journal/{lane}.bin": content for lane, content in (journals or {}).items()}
    files |= {f"expected/{egress}.bin": content for egress, content in (expected or {}).items()}
    # For a journal, level 9 would take much longer, and the result would be only slightly smaller.
    packed = _pack(files, compresslevel=6)
    if sum(map(len, files.values())) > max_unpacked(len(packed)):
        # The bundle compresses so well that the unpacking limit would reject it.
        return _pack(files, compresslevel=0)
    return packed


def _pack(files: Mapping[str, bytes], compresslevel: int) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=compresslevel, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def extract_incident(source: BinaryIO, into: Path, limits: ArchiveLimits | None = None) -> None:
    """Unpack a ``.tar.gz`` of regular files and folders into an empty folder.

    Raises RejectedBundle with one reason at the first fault: ``not_an_archive``, ``truncated``, ``bad_path``,
    ``bad_entry`` (such as a link, a device or a sparse file), ``duplicate_entry``, ``too_many_entries``, ``too_large``
    or ``unwritable`` (the file system refuses a name or file). Raises OSError for an error that the host causes. After
    an error, the caller must remove the files that were already written. No file is written beyond a limit, and nothing
    is written outside the folder. Modes, owners and times in the archive are ignored.
    """
    packed = source.seek(0, os.SEEK_END)
    source.seek(0)
    with gzip.GzipFile(fileobj=source, mode="rb") as unzipped:
        stream = _Metered(unzipped)
        try:
            _unpack(stream, into, limits or ArchiveLimits(), packed)
        except _BROKEN as error:
            code = "truncated" if stream.has_ended or isinstance(error, EOFError) else "not_an_archive"
            raise _rejected(code, str(error)) from error
        except OSError as error:
            if is_host_error(error):
                raise
            raise _rejected("unwritable", f"a file or folder cannot be written: {error.strerror}") from error


class _Metered:
    """A stream from which only the granted number of bytes can be read.

    Otherwise a huge header or a decompression bomb could make the tar reader fill the memory.
    """

    def __init__(self, source: gzip.GzipFile) -> None:
        self.latest = b""
        self.has_ended = False
        self._source = source
        self._granted = 0

    def grant(self, size: int) -> None:
        self._granted = size

    def read(self, size: int) -> bytes:
        self.latest = self._source.read(size)
        self.has_ended = not self.latest
        self._granted -= len(self.latest)
        if self._granted < 0:
            raise _rejected("too_large", "the headers of an entry or the padding at the end are too long")
        return self.latest


def _unpack(stream: _Metered, into: Path, limits: ArchiveLimits, packed: int) -> None:
    paths = _TakenPaths()
    entries = unpacked = 0
    stream.grant(_MAX_HEADERS)
    # With a buffer of one block, the tar reader never reads ahead beyond the end of the archive.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=tarfile.BLOCKSIZE) as archive:  # type: ignore[call-overload]  # only ``read`` is called
        while member := archive.next():
            entries += 1
            unpacked += member.size
            if entries > limits.max_entries or len(paths.folders) > limits.max_entries:
                raise _rejected("too_many_entries", f"more than {limits.max_entries} entries or folders")
            if unpacked > limits.max_bytes:
                raise _rejected("too_large", f"more than {limits.max_bytes} bytes unpacked")
            path = paths.take(member)
            if unpacked + _BLOCK * max(0, paths.count - _FREE_ENTRIES) > max_unpacked(packed):
                raise _rejected("too_large", _describe_ratio(packed, unpacked, paths.count))
            if member.isdir():
                (into / path).mkdir(parents=True, exist_ok=True)
            else:
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                stream.grant(member.size + tarfile.BLOCKSIZE)
                with (into / path).open("xb") as target, archive.extractfile(member) as content:
                    shutil.copyfileobj(content, target)
            stream.grant(_MAX_HEADERS)
    # The tar reader mistakes a damaged header for the end. The true end is a block of zeros, followed only by zeros.
    # Reading up to the end of the gzip stream also checks its length and CRC.
    stream.grant(_MAX_PADDING)
    end = stream.latest
    while end and not end.strip(b"\0"):
        if not (end := stream.read(_CHUNK)):
            return
    raise _rejected("truncated", "the archive does not end like a tar file")


def _describe_ratio(packed: int, unpacked: int, paths: int) -> str:
    return (
        f"more than {max_unpacked(packed)} bytes unpacked. The limit is {_MAX_RATIO} times the size of the archive"
        f" ({packed} bytes) plus {_FREE_BYTES} bytes. The {paths} files and folders that were read have {unpacked}"
        f" bytes. In addition, each of them counts as {_BLOCK} bytes, except the first {_FREE_ENTRIES}"
    )


class _TakenPaths:
    """The paths that the entries of an archive use, so that no path is used twice."""

    def __init__(self) -> None:
        self.folders: set[PurePosixPath] = set()  # including folders without a separate entry
        self._files: set[PurePosixPath] = set()
        self._entries: set[PurePosixPath] = set()

    @property
    def count(self) -> int:
        """The number of files and folders."""
        return len(self._files) + len(self.folders)

    def take(self, member: tarfile.TarInfo) -> PurePosixPath:
        """Return the relative path of an entry.

        Raises RejectedBundle if the path is unsafe or already used, or if the entry is a sparse file, or neither a
        regular file nor a folder.
        """
        path = PurePosixPath(member.name)
        if not _is_safe(member.name, path) or (path == PurePosixPath() and not member.isdir()):
            raise _rejected("bad_path", ascii(member.name[:_MAX_PATH]))
        if not (member.isdir() or member.isreg()) or member.issparse() or member.size < 0:
            raise _rejected("bad_entry", f"{path} is a sparse file, or neither a regular file nor a folder")
        folders = set(path.parents) | ({path} if member.isdir() else set())
        clash = self._files & folders or (not member.isdir() and path in self.folders)
        if clash or path in self._entries:
            detail = f"{path} occurs twice, or the archive contains the same path as a file and as a folder"
            raise _rejected("duplicate_entry", detail)
        self.folders |= folders
        self._entries.add(path)
        if not member.isdir():
            self._files.add(path)
        return path


def _is_safe(name: str, path: PurePosixPath) -> bool:
    try:
        sizes = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError:
        return False
    fits = sum(sizes) <= _MAX_PATH and max(sizes, default=0) <= _MAX_NAME and len(sizes) <= _MAX_DEPTH
    return fits and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def file_digests(root: Path) -> list[dict[str, Any]]:
    """Return ``path, size, sha256`` of each file of an unpacked bundle, sorted by path."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        name = path.relative_to(root).as_posix()
        found.append({"path": name, "size": path.stat().st_size, "sha256": f"sha256:{digest}"})
    return found


def validate_incident(root: Path) -> IncidentBundle:
    """Check an unpacked bundle. Unknown keys and files are ignored.

    Raises RejectedBundle with all reasons. Their codes are ``missing_file``, ``missing_key``, ``bad_value``,
    ``bad_json``, ``bad_spec`` and ``too_large``.
    """
    reasons: list[RejectionReason] = []
    spec = _spec(root, reasons)
    documents = {}
    for name in dict.fromkeys((*_KEYS, *_OPTIONAL)):
        if (root / name).is_file():
            if (document := _document(root / name, reasons)) is not None:
                documents[name] = document
        elif name not in _OPTIONAL:
            reasons.append(RejectionReason("missing_file", name))
    for name, document in documents.items():
        _check_keys(name, document, reasons)
    if spec is None or reasons:
        raise RejectedBundle(reasons)
    journals, expected = _binaries(root / "journal"), _binaries(root / "expected")
    return IncidentBundle(spec, spec_hash(encode(spec)), documents, journals, expected)


def _spec(root: Path, reasons: list[RejectionReason]) -> PipelineSpec | None:
    if not (root / "spec.kv").is_file():
        reasons.append(RejectionReason("missing_file", "spec.kv"))
    elif (content := _content(root / "spec.kv", reasons)) is not None:
        try:
            spec = decode(content)
            if encode(spec).encode() == content:
                return spec
            detail = "it is not in canonical form, so its hash would differ from that of the decoded spec"
            reasons.append(RejectionReason("bad_spec", f"spec.kv: {detail}"))
        except KvError as error:
            reasons.append(RejectionReason("bad_spec", f"spec.kv: {error}"))
    return None


def _document(path: Path, reasons: list[RejectionReason]) -> dict[str, Any] | None:
    content = _content(path, reasons)
    if content is None:
        return None
    try:
        return strict_json.read_object(content, strict_json.JsonLimits(max_depth=_MAX_NESTING))
    except strict_json.MalformedJson as error:
        code = "too_large" if error.fault is strict_json.JsonFault.VALUES else "bad_json"
        reasons.append(RejectionReason(code, f"{path.name}: {error}"))
        return None


def _content(path: Path, reasons: list[RejectionReason]) -> bytes | None:
    if path.stat().st_size > _MAX_DOCUMENT:
        reasons.append(RejectionReason("too_large", f"{path.name}: larger than {_MAX_DOCUMENT} bytes"))
        return None
    return path.read_bytes()


def _check_keys(name: str, document: dict[str, Any], reasons: list[RejectionReason]) -> None:
    missing = [key for key in _KEYS.get(name, ()) if document.keys().isdisjoint(key.split("|"))]
    if name == "runtime.json" and (crate := document.get("crate")) is not None:
        members = crate if isinstance(crate, dict) else {}
        missing += [f"crate.{key}" for key in ("name", "version") if key not in members]
    reasons += [RejectionReason("missing_key", f"{name}: {key}") for key in missing]
    for key, value in _FIXED.get(name, {}).items():
        if document.get(key) not in (None, value):
            reasons.append(RejectionReason("bad_value", f"{name}: {key} must be {value!r}"))
    if detail := _value_fault(name, document):
        reasons.append(RejectionReason("bad_value", f"{name}: {detail}"))


def _value_fault(name: str, document: dict[str, Any]) -> str | None:
    """Return the fault in the type of a value that the replay or the console uses, or None."""
    if name in {"spec_validation.json", "policy_audit.json"} and not isinstance(document.get("ok"), bool | None):
        return "ok must be true, false or null"
    if name == "environment.json" and not _is_pairs(document.get("env")):
        return "env must be a list of pairs or null"
    if name == "outcome.json" and (stopped := document.get("stopped")) is not None:
        types = {"stage": str, "sequence": int, "error": str | None, "ingress": str | None}
        if not (isinstance(stopped, dict) and {"stage", "sequence", "error"} <= stopped.keys()):
            return "stopped must be null, or have stage, sequence and error"
        if any(not isinstance(stopped.get(key), kind) for key, kind in types.items()):
            return "stopped has a value of the wrong type"
    if name == "runtime_config.json" and not isinstance(document.get("stage_config"), dict | None):
        return "stage_config must be an object or null"
    return None


def _is_pairs(env: object) -> bool:
    return env is None or (isinstance(env, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in env))


def _binaries(folder: Path) -> dict[str, Path]:
    """Return the ``<name>.bin`` files of a folder by name.

    The folder is listed, because a path that is built from the name of a lane or egress could lead out of the folder.
    """
    return {path.name.removesuffix(".bin"): path for path in sorted(folder.glob("*.bin")) if path.is_file()}


def _rejected(code: str, detail: str) -> RejectedBundle:
    return RejectedBundle([RejectionReason(code, detail)])
