"""Helpers that build, upload and ingest incident bundles."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.artifacts.models import Artifact
from apps.artifacts.services import folders
from apps.fleet.models import Agent
from byteor.engine.replay import Frame, Record, build_incident, encode_frame, encode_journal
from tests.engine.replay.replays import DOCUMENTS
from tests.worlds import Api, World, run_jobs

BOUNDARY = "byteor-boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
FORM = {"kind": "telemetry", "captured_at": "2026-11-01T10:00:00Z"}
PAYLOADS = [b'{"id":1,"card":"1234567890"}', b'{"no":"id"}', b'{"id":3,"card":"0987654321"}']


def form(fields: Mapping[str, str], content: bytes | None, *, name: str = "file") -> bytes:
    """Return a multipart body with the fields and, unless ``content`` is None, one file."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    if content is not None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="f.bin"\r\n'
        parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def upload(api: Api, agent: Agent, content: bytes | None = b"bytes", **fields: str) -> Any:
    """Upload ``content`` as the agent. Returns the response."""
    path = f"/api/v1/agents/{agent.pk}/artifacts"
    return api.post(path, form({**FORM, **fields}, content), Content_Type=MULTIPART)


def journal(payloads: Sequence[bytes] = PAYLOADS) -> bytes:
    """Return a journal of the payloads, with sequence numbers that start at 1."""
    return encode_journal(Record(number, 1_000 * number, payload) for number, payload in enumerate(payloads, 1))


def frames(*outputs: tuple[int, bytes]) -> bytes:
    """Return the outputs as frames, the format of ``expected/`` and of the bytes that a result's digest covers."""
    return b"".join(encode_frame(Frame(sequence, payload)) for sequence, payload in outputs)


def digest_of(*outputs: tuple[int, bytes]) -> str:
    return "sha256:" + hashlib.sha256(frames(*outputs)).hexdigest()


def incident(spec_kv: str, *, stage_config: Any = None, expected: bytes | None = None, **journals: bytes) -> bytes:
    """Return an incident bundle with the given journals by lane. Defaults to three records on ``quotes_in``."""
    documents = dict(DOCUMENTS)
    if stage_config is not None:
        documents["runtime_config.json"] = {"stage_config": stage_config}
    egress = None if expected is None else {"quotes_out": expected}
    return build_incident(spec_kv, documents, journals=journals or {"quotes_in": journal()}, expected=egress)


def archive(files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """Return a .tar.gz archive with the files and with the headers of the ``extra`` entries."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            assert tar.fileobj is not None
            tar.fileobj.write(member.tobuf(tar.format or tarfile.PAX_FORMAT))
    return packed.getvalue()


def files_of(spec_kv: str, **documents: Any) -> dict[str, bytes]:
    """Return the files of a valid bundle without journals. ``documents`` replace files or are added."""
    made = {name: json.dumps(body).encode() for name, body in DOCUMENTS.items()}
    return {"spec.kv": spec_kv.encode(), **made, **documents}


def ingested(world: World, content: bytes, **fields: str) -> Artifact:
    """Upload an incident bundle and run the jobs. Returns the artifact."""
    agent, api = world.agent(name=hashlib.sha256(content).hexdigest()[:12])
    response = upload(api, agent, content, kind="incident_bundle", **fields)
    assert response.status_code == 201, response.json()
    run_jobs()
    return Artifact.objects.get(pk=response.json()["id"])


def kept_folder(artifact: Artifact) -> Path:
    """Return the capture folder that this host keeps for the artifact."""
    (path,) = [each.path for each in folders.list_folders() if each.artifact == artifact.pk]
    return path
