"""The deploy bundle: the tar that an agent downloads. Its manifest lists every other file with its size and hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType

from byteor.engine.canonical import Fields, Json, canonical, format_time, parse_canonical_object, sha256

from . import tar
from .keys import KeySet
from .refusals import DeliveryCode, Refused

MAX_BUNDLE_BYTES = 32 * 1024 * 1024

MANIFEST = "manifest.json"
SPEC = "spec.kv"
RUNTIME_CONFIG = "runtime_config.json"
CREDENTIAL = "approval.cred"
SIGNING_KEYS = "signing_keys.json"

_REQUIRED = frozenset({SPEC, RUNTIME_CONFIG, SIGNING_KEYS})
_OPTIONAL = frozenset({CREDENTIAL})
_IDS = ("org_id", "project_id", "environment_id", "deployment_id", "version_id", "config_bundle_id")
POSTURES = ("dev", "staging", "prod")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFields:
    """The facts about a bundle that the server signs. ``approved_at`` is None without an approval."""

    org_id: str
    project_id: str
    environment_id: str
    deployment_id: str
    version_id: str
    config_bundle_id: str
    posture: str
    spec_hash: str
    config_hash: str
    capabilities: tuple[str, ...]
    created_at: datetime
    approved_at: datetime | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """The hash and size of one file of a bundle or a release."""

    sha256: str
    size: int

    @classmethod
    def of_data(cls, data: bytes) -> FileEntry:
        """Return the hash and size of ``data``."""
        return cls(sha256(data), len(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(ManifestFields):
    """Manifest v1: the server's facts about the bundle, and the hash and size of every other file."""

    files: Mapping[str, FileEntry]

    @classmethod
    def of_files(cls, manifest_fields: ManifestFields, files: Mapping[str, bytes]) -> Manifest:
        """Return the manifest of these files. Raises ValueError if a field is invalid."""
        entries = {name: FileEntry.of_data(data) for name, data in files.items()}
        members = {field.name: getattr(manifest_fields, field.name) for field in fields(ManifestFields)}
        # The document is parsed again, so that the server never builds a manifest that an agent cannot read.
        return cls.from_document(cls(**members, files=entries).document())

    @classmethod
    def from_document(cls, document: object) -> Manifest:
        """Parse a manifest's JSON object. Raises ValueError if it is malformed."""
        members = Fields(document)
        members.only("manifest_v", *(field.name for field in fields(cls)))
        if members.integer("manifest_v") != 1:
            raise ValueError("'manifest_v' is not 1")
        files = members.fields("files")
        return cls(
            **{name: members.text(name) for name in _IDS},
            posture=members.constant("posture", *POSTURES),
            spec_hash=members.digest("spec_hash"),
            config_hash=members.digest("config_hash"),
            capabilities=members.sorted_texts("capabilities"),
            created_at=members.time("created_at"),
            approved_at=members.optional_time("approved_at"),
            files=MappingProxyType({name: _file_entry(files.fields(name)) for name in sorted(files.names())}),
        )

    def document(self) -> Json:
        """Return the manifest's JSON object."""
        return {
            "manifest_v": 1,
            **{name: getattr(self, name) for name in _IDS},
            "posture": self.posture,
            "spec_hash": self.spec_hash,
            "config_hash": self.config_hash,
            "capabilities": list(self.capabilities),
            "created_at": format_time(self.created_at),
            "approved_at": None if self.approved_at is None else format_time(self.approved_at),
            "files": {name: {"sha256": f.sha256, "size": f.size} for name, f in self.files.items()},
        }


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle's bytes, their hash, and its manifest."""

    tar: bytes
    bundle_hash: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle whose files match its manifest. Its signature is not verified yet."""

    bundle_hash: str
    manifest: Manifest
    spec_kv: bytes
    runtime_config: Json
    credential: str | None
    signing_keys: KeySet


def build_bundle(
    manifest_fields: ManifestFields,
    spec_kv: bytes,
    runtime_config: Mapping[str, object],
    approval_credential: str | None,
    signing_keys: KeySet,
) -> BuiltBundle:
    """Build a deploy bundle. Equal inputs yield equal bytes. Raises ValueError for invalid or too large inputs."""
    if sha256(spec_kv) != manifest_fields.spec_hash:
        raise ValueError("spec_hash is not the hash of spec_kv")
    if (approval_credential is None) != (manifest_fields.approved_at is None):
        raise ValueError("a bundle must have both a credential and an approved_at, or neither")
    files = {
        SPEC: spec_kv,
        RUNTIME_CONFIG: canonical(dict(runtime_config)),
        SIGNING_KEYS: canonical(signing_keys.document()),
    }
    if approval_credential is not None:
        files[CREDENTIAL] = approval_credential.encode("ascii")
    manifest = Manifest.of_files(manifest_fields, files)
    archive = tar.pack({**files, MANIFEST: canonical(manifest.document())})
    if len(archive) > MAX_BUNDLE_BYTES:
        raise ValueError("a deploy bundle must not be larger than 32 MiB")
    return BuiltBundle(archive, sha256(archive), manifest)


def open_bundle(archive: bytes) -> OpenedBundle:
    """Parse a deploy bundle. Raises Refused if it is too large or malformed, or does not match its manifest."""
    if len(archive) > MAX_BUNDLE_BYTES:
        raise Refused(DeliveryCode.BUNDLE_TOO_LARGE, f"the deploy bundle is larger than {MAX_BUNDLE_BYTES} bytes")
    try:
        files = tar.unpack(archive)
    except ValueError as error:
        raise Refused(DeliveryCode.BUNDLE_MALFORMED, f"the tar is malformed: {error}") from error
    manifest = _manifest(files)
    del files[MANIFEST]
    _check_entries(manifest, files)
    try:
        return OpenedBundle(
            bundle_hash=sha256(archive),
            manifest=manifest,
            spec_kv=files[SPEC],
            runtime_config=parse_canonical_object(files[RUNTIME_CONFIG]),
            credential=files[CREDENTIAL].decode("ascii") if CREDENTIAL in files else None,
            signing_keys=KeySet.parse(files[SIGNING_KEYS]),
        )
    except ValueError as error:
        raise Refused(DeliveryCode.BUNDLE_MALFORMED, f"an entry is unreadable: {error}") from error


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    if MANIFEST not in files:
        raise Refused(DeliveryCode.BUNDLE_ENTRY_MISSING, f"{MANIFEST} is missing")
    try:
        manifest = Manifest.from_document(parse_canonical_object(files[MANIFEST]))
        if canonical(manifest.document()) != files[MANIFEST]:
            raise ValueError("a time is not in its canonical form")
    except ValueError as error:
        raise Refused(DeliveryCode.BUNDLE_MANIFEST, f"{MANIFEST}: {error}") from error
    return manifest


def _check_entries(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    if missing := sorted((_REQUIRED | manifest.files.keys()) - files.keys()):
        raise Refused(DeliveryCode.BUNDLE_ENTRY_MISSING, f"{missing[0]} is missing")
    expected = (_REQUIRED | _OPTIONAL) & manifest.files.keys()
    if extra := sorted(files.keys() - expected):
        raise Refused(DeliveryCode.BUNDLE_ENTRY_EXTRA, f"{extra[0]} is an unexpected file")
    for name, entry in manifest.files.items():
        if FileEntry.of_data(files[name]) != entry:
            raise Refused(DeliveryCode.BUNDLE_ENTRY_ALTERED, f"{name} does not have the hash and size in the manifest")
    if manifest.files[SPEC].sha256 != manifest.spec_hash:
        raise Refused(DeliveryCode.BUNDLE_SPEC_HASH, f"{SPEC} is not the spec that the manifest names")


def _file_entry(members: Fields) -> FileEntry:
    members.only("sha256", "size")
    return FileEntry(members.digest("sha256"), members.integer("size"))
