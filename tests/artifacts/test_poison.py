"""Malformed and unusual uploads, the limit on the unpacked size, and errors during the check of an upload."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import random
import re
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays, uploads
from apps.tenancy.models import AuditEvent
from byteor.engine.compiler import compile_plan
from byteor.engine.replay import RejectedBundle, extract_incident
from byteor_cloud.storage import blobs
from byteor_cloud.worker import jobs
from tests.artifacts.incidents import archive, files_of, incident, ingested, journal, upload
from tests.artifacts.test_stuck import work
from tests.worlds import PLAN, World, run_jobs

SPEC_KV = str(compile_plan(PLAN).spec_kv)
ODD_LANES = [
    "x" * 251, "ü" * 125, "", ".", "..", "...", " ", "a b", "%2e%2e", "é\u202e", "e\u0301", "con", "nul.", "0",
    "0.part", "x.bin", "a:b", "a\\b", 'quo"te', "semi;colon", "\x01\x7f", "line\nend", "\U0001f980", "-rf", "~", "*",
]  # fmt: skip
LARGEST = 2**64 - 1


def tarball(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a bundle of valid files, followed by these entries. The entries can make the bundle invalid."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=format) as tar:
        for info, content in (*(member(name, body) for name, body in files_of(SPEC_KV).items()), *members):
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def damaged(seed: int) -> bytes:
    """Return a bundle with random bytes in two tar headers, whose checksums match the random bytes."""
    chance = random.Random(seed)
    names = [chance.choice(ODD_LANES) for _ in range(3)]
    format = chance.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    try:
        packed = tarball(*(member(f"journal/{name}.bin", journal()) for name in names), format=format)
    except ValueError:  # the format does not support such names
        packed = tarball()
    data = bytearray(gzip.decompress(packed))
    blocks = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for at in chance.sample(blocks, 2):
        first, size = chance.choice([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (257, 8), (345, 155)])
        start = at + first + chance.randrange(size)
        data[start : at + first + size] = chance.randbytes(at + first + size - start)
        block = data[at : at + 148] + b" " * 8 + data[at + 156 : at + 512]
        data[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(data), 1)


def odd_uploads() -> Iterator[bytes]:
    """Yield uploads that are malformed or unusual."""
    yield from (b"\0", b"\x1f\x8b", gzip.compress(b""), gzip.compress(bytes(10_240)))
    yield from (archive({**files_of(SPEC_KV), f"journal/{lane}.bin": journal()}) for lane in ODD_LANES)
    yield from (tarball(member(f"journal/{lane}.bin", journal())) for lane in ("y" * 252, "z" * 4096, "caf\udce9"))
    yield tarball(member("/".join(["d" * 255] * 16)))
    yield tarball(member("/".join("d" * 17)))
    yield tarball(member("journal", type=tarfile.REGTYPE), member("expected/out.bin"))
    yield tarball(member("spec.kv/journal"))
    yield tarball(member("JOURNAL/in.bin"), member("journal/in.bin"), member("Journal/IN.BIN"))
    yield tarball(member("journal/in.bin", pax_headers={"size": "9" * 5000}))
    yield tarball(member("journal/in.bin", pax_headers={"mtime": "inf", "size": "-1", "uid": "1e999"}))
    yield tarball(member("journal/in.bin", pax_headers={"path": "a\0b", "GNU.sparse.realsize": "nan"}))
    yield tarball(member("a", mtime=2**62), format=tarfile.GNU_FORMAT)
    for content in (
        b"",
        b"BYTJ",
        b"BYTJ\x02\0\0\0" + struct.pack("<IQQI", 2**32 - 1, LARGEST, LARGEST, 0),
        bytes(5000),
    ):
        yield tarball(member("journal/in.bin", content), member("expected/out.bin", content))
    for text in (b"[" * 100_000, b'{"a":' * 300, b'{"crate": 1e999999}', b'{"n": ' + b"9" * 5000 + b"}", b"\xff\xfe{}"):
        yield archive({**files_of(SPEC_KV), "runtime.json": text, "outcome.json": text})
    for kv in (b"spec.v=" + b"9" * 5000, b"\xff" * 99, SPEC_KV.encode() * 2, b"=" * 9999, b"a=b\n" * 50_000):
        yield archive({**files_of(SPEC_KV), "spec.kv": kv})
    yield from (damaged(seed) for seed in range(30))


@pytest.mark.django_db
def test_malformed_and_unusual_uploads_are_verified_or_rejected_without_error(world: World) -> None:
    agent, _ = world.agent()
    contents = list(dict.fromkeys(odd_uploads()))
    for content in contents:
        artifact, _ = uploads.receive(
            environment=world.dev,
            agent=agent,
            kind="incident_bundle",
            captured_at=timezone.now(),
            content_hash=f"sha256:{hashlib.sha256(content).hexdigest()}",
            file=ContentFile(content),
            actor=world.admin.actor,
        )
        uploads.ingest(str(artifact.pk))  # must not raise any error

    found = list(Artifact.objects.order_by("id").values_list("status", "reasons"))
    assert len(found) == len(contents) > 70
    assert {status for status, _ in found} == {"verified", "rejected"}
    assert all(bool(reasons) == (status == "rejected") for status, reasons in found)
    # With each lane name, the journal has a valid file name, so these captures are verified.
    assert [status for status, _ in found[4 : 4 + len(ODD_LANES)]] == ["verified"] * len(ODD_LANES)


@pytest.mark.django_db
def test_capture_with_unusual_file_names_can_be_listed_and_replayed(world: World) -> None:
    world.version()
    files = {**files_of(SPEC_KV), "journal/quotes_in.bin": journal()}
    for number, lane in enumerate(ODD_LANES):
        files |= {f"journal/{lane}.bin": journal([b"%d" % number]), f"expected/{lane}.bin": b"", f"{lane}é": b"1"}
    artifact = ingested(world, archive({name: body for name, body in files.items() if name not in {"é", ".é"}}))
    path, api = world.path(rest=f"/artifacts/{artifact.pk}"), world.operator.api
    assert artifact.status == "verified"

    listed = {each["path"] for each in api.get(f"{path}/files").json()["results"]}
    assert {f"journal/{lane}.bin" for lane in ODD_LANES} <= listed
    for each in sorted(listed)[::2]:
        response = api.get(f"{path}/files?path={quote(each, safe='')}")
        assert response.status_code == (200 if each.isprintable() or "\u202e" in each else 400), each
        assert response.status_code == 400 or b"".join(response) == files[each]
    for number, lane in enumerate(ODD_LANES):
        response = api.get(f"{path}/journal/{quote(lane, safe='')}")
        if response.status_code == 200:
            assert [record["json"] for record in response.json()["results"]] == [number]
        else:
            assert response.status_code in {400, 404}, lane
    assert api.get(f"{path}/journal/{'x' * 251}").status_code == 200

    for journal_lane in (None, "..", "ü" * 125):
        replays.request(artifact, environment=world.dev, journal_lane=journal_lane, actor=world.operator.actor)
    run_jobs()
    succeeded, *refused = Replay.objects.order_by("id")
    assert (succeeded.status, [each.error_code for each in refused]) == ("succeeded", ["bad_input"] * 2)
    for ingress in ("", "&ingress=..", f"&ingress={'x' * 251}"):
        traced = api.get(world.path(rest=f"/replays/{succeeded.pk}/trace?sequence=1{ingress}"))
        assert traced.status_code in {200, 400, 409}


# -- the limit on the unpacked size


@pytest.mark.django_db
def test_capture_may_unpack_to_100_times_its_size_plus_1_mib(world: World) -> None:
    within = ingested(world, archive({**files_of(SPEC_KV), "zeros": bytes(900_000)}))
    beyond = archive({**files_of(SPEC_KV), "zeros": bytes(2_000_000)})
    above = ingested(world, beyond)
    # The files have only 5,000 bytes, but each takes a block on the disk.
    many = ingested(world, archive({**files_of(SPEC_KV), **{f"f{number}": b"1" for number in range(5000)}}))
    earned = ingested(world, archive({**files_of(SPEC_KV), "zeros": bytes(2_000_000), "random": os.urandom(20_000)}))

    assert (within.status, earned.status) == ("verified", "verified")
    for artifact in (above, many):
        (reason,) = artifact.reasons
        assert (artifact.status, reason["code"]) == ("rejected", "too_large")
        assert f"more than {100 * artifact.size_bytes + 1_048_576} bytes unpacked" in reason["detail"]
        assert f"100 times the size of the archive ({artifact.size_bytes} bytes) plus 1048576" in reason["detail"]
    assert above.size_bytes == len(beyond)


def test_unpacking_stops_before_file_that_exceeds_limit(tmp_path: Path) -> None:
    bomb = archive({f"zeros{number}": bytes(500_000) for number in range(100)})

    with pytest.raises(RejectedBundle):
        extract_incident(io.BytesIO(bomb), tmp_path)

    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 100 * len(bomb) + 1_048_576 - 500_000 < written <= 100 * len(bomb) + 1_048_576


@pytest.mark.django_db
def test_replay_fails_if_verified_capture_exceeds_newer_limit(world: World) -> None:
    world.version()
    artifact = ingested(world, archive({**files_of(SPEC_KV), "zeros": bytes(2_000_000)}))
    Artifact.objects.update(status="verified", reasons=[], spec_hash=compile_plan(PLAN).spec_hash)
    artifact.refresh_from_db()

    files = world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}/files"))
    replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    run_jobs()

    assert (files.status_code, "bytes unpacked" in files.json()["detail"]) == (409, True)
    row = Replay.objects.get()
    assert (row.status, row.error_code, "bytes unpacked" in (row.error or "")) == ("failed", "bad_input", True)


# -- errors during the check of an upload


CONTENT = [errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
           errno.EFBIG, errno.EOVERFLOW, errno.ENOTEMPTY, errno.ENOTSUP]  # fmt: skip
MACHINE = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/secret/folder")

    return fail


@pytest.mark.parametrize("number", CONTENT, ids=errno.errorcode.get)
@pytest.mark.django_db
def test_os_error_caused_by_content_rejects_upload(world: World, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(Path, "open", failing(number))

    artifact = ingested(world, incident(SPEC_KV))

    (reason,) = artifact.reasons
    assert (artifact.status, reason["code"]) == ("rejected", "unwritable")
    assert os.strerror(number) in reason["detail"]
    assert "secret" not in reason["detail"]


@pytest.mark.django_db
def test_os_error_caused_by_host_is_treated_as_outage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, api = world.agent()
    made = upload(api, agent, incident(SPEC_KV), kind="incident_bundle").json()

    for number in MACHINE:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", failing(number))
            with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
                uploads.ingest(made["id"])
        assert jobs.is_outage(caught.value), number
        assert Artifact.objects.get().status == "received"

    run_jobs()
    assert Artifact.objects.get().status == "verified"


@pytest.mark.parametrize("error", [KeyError("/secret"), MemoryError(), RecursionError(), UnicodeError()], ids=repr)
@pytest.mark.django_db(transaction=True)
def test_upload_is_rejected_if_its_check_repeatedly_raises_unexpected_error(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    agent, api = world.agent()
    made = upload(api, agent, incident(SPEC_KV), kind="incident_bundle").json()
    tried = []

    def fail(*_: object) -> None:
        tried.append(1)
        raise error

    monkeypatch.setattr(uploads, "build_capture", fail)
    work()

    artifact = Artifact.objects.get()
    detail = f"The check of this artifact failed repeatedly: {type(error).__name__}."
    assert (artifact.status, artifact.reasons) == ("rejected", [{"code": "unreadable", "detail": detail}])
    assert len(tried) == 5
    assert AuditEvent.objects.get(action="artifact.reject").resource_id == made["id"]


@pytest.mark.django_db(transaction=True)
def test_upload_whose_blob_was_lost_is_not_rejected(world: World) -> None:
    agent, api = world.agent()
    made = upload(api, agent, incident(SPEC_KV), kind="incident_bundle").json()
    blobs.delete(made["content_hash"])

    work()

    assert Artifact.objects.get().status == "received"
    shown = world.viewer.api.get(world.path(rest=f"/artifacts/{made['id']}")).json()
    assert json.dumps(shown["reasons"]).count("check_failed") == 1
