from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import bundle, tar
from byteor.engine.signing.refusals import Refused

NAMES = ["approval.cred", "manifest.json", "runtime_config.json", "signing_keys.json", "spec.kv"]


def refusal(archive: bytes) -> str:
    with pytest.raises(Refused) as refused:
        bundle.open_bundle(archive)
    return refused.value.code


def repacked(built: bundle.BuiltBundle, **files: bytes | None) -> bytes:
    """Return the bundle with changed files (None removes a file). A ``__`` in a name stands for a dot."""
    entries = tar.unpack(built.tar) | {name.replace("__", "."): data for name, data in files.items()}
    return tar.pack({name: data for name, data in entries.items() if data is not None})


def remanifested(built: bundle.BuiltBundle, **members: object) -> bytes:
    """Return the bundle with changed members of the manifest (``...`` removes a member)."""
    document = {k: v for k, v in (built.manifest.document() | members).items() if v is not ...}
    return repacked(built, manifest__json=canonical(document))


def test_bundle_hash_matches_pinned_value(world: Any) -> None:
    built = world.bundle()

    assert built.bundle_hash == sha256(built.tar)
    assert built.bundle_hash == "sha256:34e17ef6ec90dd9a215dfe04d8f2ce953ab45c5d54f3bbfdc3d86103481b7914"


def test_equivalent_inputs_yield_same_bytes(world: Any) -> None:
    elsewhere = world.about().approved_at.astimezone(timezone(timedelta(hours=5)))
    shuffled = dict(reversed(world.runtime_config.items()))

    again = bundle.build_bundle(
        world.about(approved_at=elsewhere), world.spec_kv, shuffled, world.credential(), world.keyset
    )

    assert again == world.bundle()


def test_python_tarfile_reads_and_rewrites_same_archive(world: Any) -> None:
    archive = world.bundle().tar

    written = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as read,
        tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as write,
    ):
        entries = read.getmembers()
        for entry in entries:
            write.addfile(entry, read.extractfile(entry))

    assert [entry.name for entry in entries] == NAMES
    for entry in entries:
        assert (entry.mode, entry.uid, entry.gid, entry.mtime, entry.type) == (
            0o644,
            0,
            0,
            0,
            tarfile.REGTYPE,
        )
    assert written.getvalue() == archive


def test_open_bundle_returns_built_content(world: Any) -> None:
    built = world.bundle()

    opened = bundle.open_bundle(built.tar)

    assert opened.bundle_hash == built.bundle_hash
    assert opened.manifest == built.manifest
    assert opened.spec_kv == world.spec_kv
    assert opened.runtime_config == world.runtime_config
    assert opened.credential == world.credential()
    assert opened.signing_keys == world.keyset
    assert sorted(opened.manifest.files) == [name for name in NAMES if name != "manifest.json"]


def test_bundle_without_approval_has_no_credential(world: Any) -> None:
    opened = bundle.open_bundle(world.bundle(approved_at=None).tar)

    assert opened.credential is None
    assert opened.manifest.approved_at is None


def test_build_refuses_invalid_or_contradictory_inputs(world: Any) -> None:
    for about, spec_kv, approval in (
        (world.about(), b"other", world.credential()),
        (world.about(), world.spec_kv, None),
        (world.about(approved_at=None), world.spec_kv, world.credential()),
        (world.about(posture="production"), world.spec_kv, world.credential()),
        (world.about(capabilities=("b", "a")), world.spec_kv, world.credential()),
        (world.about(config_hash="x"), world.spec_kv, world.credential()),
        (world.about(created_at=datetime(2026, 10, 1)), world.spec_kv, world.credential()),
    ):
        with pytest.raises(ValueError, match=r"."):
            bundle.build_bundle(about, spec_kv, {}, approval, world.keyset)
    with pytest.raises(ValueError, match=r"."):
        bundle.build_bundle(world.about(), world.spec_kv, {"a": float("nan")}, world.credential(), world.keyset)


def test_oversized_bundle_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = world.bundle()
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", len(built.tar) - 1)

    assert refusal(built.tar) == "bundle.too_large"
    with pytest.raises(ValueError, match="larger"):
        world.bundle()


@pytest.mark.parametrize("name", NAMES)
def test_missing_entry_is_refused(world: Any, name: str) -> None:
    assert refusal(repacked(world.bundle(), **{name: None})) == "bundle.entry_missing"


def test_extra_entry_is_refused(world: Any) -> None:
    unapproved = world.bundle(approved_at=None)

    assert refusal(repacked(world.bundle(), extra=b"")) == "bundle.entry_extra"
    assert refusal(repacked(unapproved, approval__cred=b"a.b")) == "bundle.entry_extra"
    # The entry is refused even if the manifest lists it.
    files = unapproved.manifest.document()["files"] | {"extra": {"sha256": sha256(b""), "size": 0}}
    listed = remanifested(unapproved, files=files)
    assert refusal(tar.pack(tar.unpack(listed) | {"extra": b""})) == "bundle.entry_extra"
    assert refusal(listed) == "bundle.entry_missing"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "manifest.json"])
def test_altered_entry_is_refused(world: Any, name: str) -> None:
    altered = tar.unpack(world.bundle().tar)[name][:-1] + b"!"

    assert refusal(repacked(world.bundle(), **{name: altered})) == "bundle.entry_altered"


def test_wrong_size_in_manifest_is_refused(world: Any) -> None:
    built = world.bundle()
    files: Any = built.manifest.document()["files"]
    files["spec.kv"]["size"] += 1

    assert refusal(remanifested(built, files=files)) == "bundle.entry_altered"


def test_wrong_spec_hash_in_manifest_is_refused(world: Any) -> None:
    assert refusal(remanifested(world.bundle(), spec_hash=sha256(b""))) == "bundle.spec_hash"


@pytest.mark.parametrize(
    "members",
    [
        {"manifest_v": 2},
        {"manifest_v": ...},
        {"org_id": 1},
        {"deployment_id": ""},
        {"posture": "production"},
        {"spec_hash": "00"},
        {"config_hash": None},
        {"capabilities": ["b", "a"]},
        {"created_at": None},
        {"created_at": "2026-10-20T08:00:00.5Z"},  # a fraction of a second must have six digits
        {"approved_at": ...},
        {"files": []},
        {"files": {"spec.kv": {"sha256": "00", "size": 1}}},
        {"files": {"spec.kv": {"sha256": sha256(b""), "size": -1}}},
        {"files": {"spec.kv": {"sha256": sha256(b""), "size": 0, "more": 1}}},
        {"extra": 1},
    ],
    ids=repr,
)
def test_damaged_manifest_is_refused(world: Any, members: dict[str, object]) -> None:
    assert refusal(remanifested(world.bundle(), **members)) == "bundle.manifest"


def test_non_canonical_manifest_is_refused(world: Any) -> None:
    built = world.bundle()

    assert refusal(repacked(built, manifest__json=json.dumps(built.manifest.document()).encode())) == "bundle.manifest"


@pytest.mark.parametrize(
    ("name", "content"),
    [("runtime_config.json", b"[]"), ("runtime_config.json", b"{ }"), ("approval.cred", b"\xff")],
)
def test_entry_with_malformed_content_is_refused(world: Any, name: str, content: bytes) -> None:
    built = world.bundle()
    files: Any = built.manifest.document()["files"]
    files[name] = {"sha256": sha256(content), "size": len(content)}

    assert refusal(tar.pack(tar.unpack(remanifested(built, files=files)) | {name: content})) == "bundle.malformed"


def _renamed(archive: bytearray) -> None:
    archive[0:13] = b"manifest.json"


def _backwards(archive: bytearray) -> None:
    archive[124:136] = b"-0000001000\0"


def _huge(archive: bytearray) -> None:
    archive[124:136] = b"77777777777\0"


def _link(archive: bytearray) -> None:
    archive[156:157] = b"2"


def _trailing(archive: bytearray) -> None:
    archive += b"!"


def _record_more(archive: bytearray) -> None:
    archive += bytes(10_240)


def _cut(archive: bytearray) -> None:
    del archive[1_000:]


def _emptied(archive: bytearray) -> None:
    archive.clear()


def _second_archive(archive: bytearray) -> None:
    archive += bytes(archive)


def _duplicate(archive: bytearray) -> None:
    archive[0:0] = archive[:1_536]


@pytest.mark.parametrize(
    "damage",
    [
        _renamed,
        _backwards,
        _huge,
        _link,
        _trailing,
        _record_more,
        _cut,
        _emptied,
        _second_archive,
        _duplicate,
    ],
)
def test_damaged_or_non_canonical_tar_is_refused(world: Any, damage: Callable[[bytearray], None]) -> None:
    archive = bytearray(world.bundle().tar)
    damage(archive)

    assert refusal(bytes(archive)) == "bundle.malformed"


def test_tar_with_symbolic_link_is_refused() -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as write:
        link = tarfile.TarInfo("spec.kv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        write.addfile(link)

    assert refusal(written.getvalue()) == "bundle.malformed"


@pytest.mark.parametrize("name", ["", "n" * 101, "é"])
def test_invalid_entry_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        tar.pack({name: b""})
