"""The incident bundle v1, a .tar.gz of strangers: build one, unpack one safely, check it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from byteor_cloud.engine import strict_json
from byteor_cloud.engine.compiler import KvError, PipelineSpec, decode, encode, spec_hash

# Keys that must exist in each document, any of some alternatives; their values may be null.
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "spec_validation.json": ("ok", "description|error"),
    "runtime.json": ("crate",),
    "policy_audit.json": ("ok", "policy_version", "mode", "enforced", "stage_failure_policy", "spec_path"),
    "environment.json": ("pid", "cwd", "args", "env", "proc_status"),
}
# What these keys hold when they are not null.
_FIXED: Mapping[str, Mapping[str, object]] = {
    "policy_audit.json": {"policy_version": 1, "stage_failure_policy": "stop_pipeline"}
}
_OPTIONAL = ("runtime_config.json", "single_ring_snapshot.json", "lane_graph_state.json")
# A document is read whole, and takes a small multiple of its bytes: as much as a body of the API, and no more values.
_MAX_DOCUMENT = 4 * 1024 * 1024
_MAX_NESTING = 200
_MAX_PATH = 1024
_MAX_NAME = 255
_MAX_DEPTH = 16
_MAX_HEADERS = 64 * 1024  # of one entry: pax and long-name headers are read into memory at once
_MAX_PADDING = 1024 * 1024  # after the last entry
_CHUNK = 64 * 1024
_BROKEN = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold: bytes of all its files together, entries of any kind."""

    max_bytes: int = 512 * 1024 * 1024
    max_entries: int = 10_000


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a bundle is rejected: a stable code and what a person needs to see the fault."""

    code: str
    detail: str


class RejectedBundle(Exception):
    """A bundle that cannot be used."""

    def __init__(self, reasons: list[Reason]) -> None:
        super().__init__("; ".join(f"{reason.code}: {reason.detail}" for reason in reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class IncidentBundle:
    """A checked bundle: its spec, its JSON documents by file name, and its journals and expected frames by
    the name of the lane or egress (only files that were really found below its folder).
    """

    spec: PipelineSpec
    spec_hash: str
    documents: Mapping[str, dict[str, Any]]
    journals: Mapping[str, Path]
    expected: Mapping[str, Path]

    @property
    def stage_config(self) -> dict[str, Any] | None:
        """Stage parameters by stage id from ``runtime_config.json``; ``None`` when it is not there."""
        if (runtime_config := self.documents.get("runtime_config.json")) is None:
            return None
        stage_config: dict[str, Any] = runtime_config.get("stage_config") or {}
        return stage_config


def build(
    spec_kv: str,
    documents: Mapping[str, Mapping[str, Any]],
    *,
    journals: Mapping[str, bytes] | None = None,
    expected: Mapping[str, bytes] | None = None,
) -> bytes:
    """A bundle's .tar.gz: JSON documents by file name, journals by lane, expected frames by egress.

    The same arguments give the same bytes (on one build of zlib). Nothing is checked.
    """
    files = {"spec.kv": spec_kv.encode()}
    files |= {name: json.dumps(body, sort_keys=True, indent=1).encode() for name, body in documents.items()}
    files |= {f"journal/{lane}.bin": content for lane, content in (journals or {}).items()}
    files |= {f"expected/{egress}.bin": content for egress, content in (expected or {}).items()}
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def extract(source: BinaryIO, into: Path, limits: Limits | None = None) -> None:
    """Unpack a .tar.gz of regular files and folders into an empty folder.

    ``RejectedBundle`` (one reason) at the first fault: ``not_an_archive``, ``truncated``, ``bad_path``,
    ``bad_entry`` (a link, a device, a sparse file), ``duplicate_entry``, ``too_many_entries``, ``too_large``.
    No byte over a limit is written, and none outside the folder; what was written stays for the caller to
    remove. Modes, owners and times in the archive are ignored.
    """
    with gzip.GzipFile(fileobj=source, mode="rb") as unzipped:
        stream = _Metered(unzipped)
        try:
            _unpack(stream, into, limits or Limits())
        except _BROKEN as error:
            code = "truncated" if stream.has_ended or isinstance(error, EOFError) else "not_an_archive"
            raise _rejected(code, str(error)) from error


class _Metered:
    """A stream that refuses to be read further than was granted, so that no header or bomb can pull more."""

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
            raise _rejected("too_large", "headers or padding longer than any real archive has")
        return self.latest


def _unpack(stream: _Metered, into: Path, limits: Limits) -> None:
    places = _Places()
    entries = unpacked = 0
    stream.grant(_MAX_HEADERS)
    # Block by block: the tar reader then never holds bytes that we have not seen the end of.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=tarfile.BLOCKSIZE) as archive:  # type: ignore[call-overload]
        while member := archive.next():
            entries += 1
            unpacked += member.size
            if entries > limits.max_entries or len(places.folders) > limits.max_entries:
                raise _rejected("too_many_entries", f"more than {limits.max_entries} entries")
            if unpacked > limits.max_bytes:
                raise _rejected("too_large", f"more than {limits.max_bytes} bytes unpacked")
            path = places.take(member)
            if member.isdir():
                (into / path).mkdir(parents=True, exist_ok=True)
            else:
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                stream.grant(member.size + tarfile.BLOCKSIZE)
                with (into / path).open("xb") as target, archive.extractfile(member) as content:
                    shutil.copyfileobj(content, target)
            stream.grant(_MAX_HEADERS)
    # The tar reader takes a damaged header for the end; the true end is a block of zeros, and only zeros
    # follow. Reading on to the end of the gzip stream also checks its length and CRC.
    stream.grant(_MAX_PADDING)
    end = stream.latest
    while end and not end.strip(b"\0"):
        if not (end := stream.read(_CHUNK)):
            return
    raise _rejected("truncated", "the archive does not end as a tar file does")


class _Places:
    """The paths that an archive has taken, so that none is taken twice."""

    def __init__(self) -> None:
        self.folders: set[PurePosixPath] = set()  # also those that only a path below them implies
        self._files: set[PurePosixPath] = set()
        self._entries: set[PurePosixPath] = set()

    def take(self, member: tarfile.TarInfo) -> PurePosixPath:
        """The relative path of an entry; refused when it is unsafe, taken, or of a type we do not unpack."""
        path = PurePosixPath(member.name)
        if not _is_safe(member.name, path) or (path == PurePosixPath() and not member.isdir()):
            raise _rejected("bad_path", ascii(member.name[:_MAX_PATH]))
        if not (member.isdir() or member.isreg()) or member.issparse() or member.size < 0:
            raise _rejected("bad_entry", f"{path} is no regular file or folder")
        folders = set(path.parents) | ({path} if member.isdir() else set())
        clash = self._files & folders or (not member.isdir() and path in self.folders)
        if clash or path in self._entries:
            raise _rejected("duplicate_entry", f"{path} is there twice, or as a file and a folder")
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


def validate(root: Path) -> IncidentBundle:
    """Check an unpacked bundle; ``RejectedBundle`` says all that is wrong at once: ``missing_file``,
    ``missing_key``, ``bad_value``, ``bad_json``, ``bad_spec``, ``too_large``. Unknown keys and files pass.
    """
    reasons: list[Reason] = []
    spec = _spec(root, reasons)
    documents = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        if (root / name).is_file():
            if (document := _document(root / name, reasons)) is not None:
                documents[name] = document
        elif name in _REQUIRED:
            reasons.append(Reason("missing_file", name))
    for name, document in documents.items():
        _check_keys(name, document, reasons)
    if spec is None or reasons:
        raise RejectedBundle(reasons)
    journals, expected = _binaries(root / "journal"), _binaries(root / "expected")
    return IncidentBundle(spec, spec_hash(encode(spec)), documents, journals, expected)


def _spec(root: Path, reasons: list[Reason]) -> PipelineSpec | None:
    if not (root / "spec.kv").is_file():
        reasons.append(Reason("missing_file", "spec.kv"))
    elif (content := _content(root / "spec.kv", reasons)) is not None:
        try:
            return decode(content)
        except KvError as error:
            reasons.append(Reason("bad_spec", f"spec.kv: {error}"))
    return None


def _document(path: Path, reasons: list[Reason]) -> dict[str, Any] | None:
    content = _content(path, reasons)
    if content is None:
        return None
    try:
        return strict_json.read_object(content, strict_json.Limits(max_depth=_MAX_NESTING))
    except strict_json.Malformed as error:
        code = "too_large" if error.fault is strict_json.Fault.VALUES else "bad_json"
        reasons.append(Reason(code, f"{path.name}: {error}"))
        return None


def _content(path: Path, reasons: list[Reason]) -> bytes | None:
    if path.stat().st_size > _MAX_DOCUMENT:
        reasons.append(Reason("too_large", f"{path.name}: over {_MAX_DOCUMENT} bytes"))
        return None
    return path.read_bytes()


def _check_keys(name: str, document: dict[str, Any], reasons: list[Reason]) -> None:
    missing = [key for key in _REQUIRED.get(name, ()) if document.keys().isdisjoint(key.split("|"))]
    if name == "runtime.json" and (crate := document.get("crate")) is not None:
        held = crate if isinstance(crate, dict) else {}
        missing += [f"crate.{key}" for key in ("name", "version") if key not in held]
    reasons += [Reason("missing_key", f"{name}: {key}") for key in missing]
    for key, value in _FIXED.get(name, {}).items():
        if document.get(key) not in (None, value):
            reasons.append(Reason("bad_value", f"{name}: {key} must be {value!r}"))
    if name == "runtime_config.json" and not isinstance(document.get("stage_config"), dict | None):
        reasons.append(Reason("bad_value", f"{name}: stage_config must be an object"))


def _binaries(folder: Path) -> dict[str, Path]:
    """The ``<name>.bin`` files of a folder by name; a lane's name is never made into a path."""
    return {path.name.removesuffix(".bin"): path for path in sorted(folder.glob("*.bin")) if path.is_file()}


def _rejected(code: str, detail: str) -> RejectedBundle:
    return RejectedBundle([Reason(code, detail)])
