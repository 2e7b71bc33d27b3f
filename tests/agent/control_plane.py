"""A fake control plane: the API operations for agents, in memory, on a real socket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, override

from byteor.engine.canonical import Json, sha256
from byteor.engine.signing import bundle, credential, dsse, keys
from byteor.engine.signing.keys import KeySet, KeyStatus, PublicKey

NOW = datetime(2026, 10, 20, 8, tzinfo=UTC)
AGENT_ID = "0192-agent"
API_KEY = "bor_agent_nobody-may-ever-see-this"
TOKEN = "bor_enroll_spent-once"
ENVIRONMENT = "0192-environment"
ENVIRONMENT_PATH = f"/api/v1/orgs/0192-org/projects/0192-project/environments/{ENVIRONMENT}"
SPEC = b"""\
spec.v=1
spec.model=single_ring
spec.name=quotes
single_ring.ingress=quotes_in
single_ring.egress=quotes_out
single_ring.shards=1
single_ring.ordering=strict
single_ring.producer=single
single_ring.scheduling=dedicated
single_ring.stages.0.id=check
single_ring.stages.0.op=dataguard_check
"""
CHECKED = {"check": {"schema": {"type": "object", "required": ["price"]}}}
CONFIG: Json = {
    "tuning_profile": "low-latency",
    "wait": "spin",
    "stage_config": CHECKED,
    "adapters": {},
    "env": {"REGION": "eu"},
    "snapshot": {"enabled": False, "interval_s": 60},
}

_HEARTBEAT = {
    "status",
    "agent_version",
    "runtime_version",
    "uptime_s",
    "boot_id",
    "active",
    "tuning",
    "resources",
    "pipeline",
}
_REPORT = {"deployment_id", "status", "bundle_hash", "detail", "tuning", "boot_id"}
_FIELD = re.compile(rb'Content-Disposition: form-data; name="(\w+)"(?:; filename="([^"]+)")?\r\n\r\n', re.DOTALL)


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, bytes]:
        boundary = b"--" + self.headers["Content-Type"].partition("boundary=")[2].encode()
        parts = (part[2:-2] for part in self.body.split(boundary)[1:-1])
        found = ((_FIELD.match(part), part) for part in parts)
        return {match[1].decode(): part[match.end() :] for match, part in found if match}


@dataclass(frozen=True)
class Reply:
    """A response. With ``cut`` the server sends only that many bytes of the body and closes the connection."""

    status: int = 200
    body: Json | bytes = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


class FakeControlPlane:
    """Serves the operations that agents call. Unexpected requests are recorded in ``violations`` and get status 500."""

    reply = Reply
    config = CONFIG
    spec = SPEC

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.faults: dict[tuple[str, str], list[Reply]] = {}
        self.private = bytes(range(32))
        self.keyset = KeySet((PublicKey(keys.public_key(self.private), KeyStatus.ACTIVE, NOW),))
        self.desired: Json | None = None
        self.delivered: Json | None = None
        self.tars: dict[str, bytes] = {}
        self.withdrawn: set[str] = set()
        self.commands: list[Json | str] = []
        # The captures that are requested and not uploaded yet.
        self.captures: list[Json] = []
        # The response to an upload waits for this event.
        self.takes_uploads = Event()
        self.takes_uploads.set()
        # All keys that were ever issued, and whether each is still accepted.
        self.keys = {API_KEY: True}
        self.unused: str | None = None
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # otherwise each response waits 40 ms for an acknowledgement

            def do_GET(self) -> None:
                plane._serve(self)

            do_POST = do_GET

            @override
            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def etag(self) -> str:
        return sha256(json.dumps(self.keyset.document()).encode())[7:23]

    def fail(self, method: str, tail: str, *replies: Reply) -> None:
        """Send these replies to the next requests with this method whose paths end with ``tail``."""
        self.faults.setdefault((method, tail), []).extend(replies)

    def sent(self, method: str, tail: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and r.path.partition("?")[0].endswith(tail)]

    @property
    def reports(self) -> list[tuple[str, str]]:
        """The deployment and status of every report."""
        return [(r.json["deployment_id"], r.json["status"]) for r in self.sent("POST", "/deployment")]

    @property
    def beats(self) -> list[Any]:
        return [r.json for r in self.sent("POST", "/heartbeat")]

    def publish(self, private: bytes) -> None:
        """Publish the next signing key before it becomes active."""
        self.keyset = KeySet((PublicKey(keys.public_key(private), KeyStatus.NEXT, NOW), self.keyset.active))

    def sign_again(self) -> None:
        """Sign the offered bundle again with the active key."""
        assert self.delivered is not None
        self.delivered = {**self.delivered, "envelope": dsse.sign_envelope(*self.signed, self.private)}

    def rotate(self, private: bytes, *, retire: bool = False) -> None:
        old = self.keyset.active
        status = KeyStatus.RETIRED if retire else KeyStatus.RETIRING
        self.private = private
        self.keyset = KeySet(
            (
                PublicKey(keys.public_key(private), KeyStatus.ACTIVE, NOW),
                PublicKey(old.public, status, old.not_before, NOW if retire else None),
            )
        )

    def build(
        self,
        deployment_id: str,
        *,
        environment_id: str = ENVIRONMENT,
        config: Json = CONFIG,
        spec: bytes = SPEC,
        is_approved: bool = False,
    ) -> bundle.BuiltBundle:
        approval = credential.issue(
            private_key=self.private,
            org_id="0192-org",
            project_id="0192-project",
            environment_id=environment_id,
            environment_posture="prod",
            spec_hash=sha256(spec),
            capabilities=["deploy"],
            issued_at=NOW,
            expires_at=NOW,
            issued_by="ada@example.com",
            approval_id="0192-approval",
        )
        about = bundle.ManifestFields(
            org_id="0192-org",
            project_id="0192-project",
            environment_id=environment_id,
            deployment_id=deployment_id,
            version_id="0192-version",
            config_bundle_id="0192-config",
            posture="prod",
            spec_hash=sha256(spec),
            config_hash=sha256(json.dumps(config).encode()),
            capabilities=("deploy",),
            created_at=NOW,
            approved_at=NOW if is_approved else None,
        )
        return bundle.build_bundle(about, spec, config, approval if is_approved else None, self.keyset)

    def offer(
        self,
        deployment_id: str,
        *,
        action: str = "activate",
        built: bundle.BuiltBundle | None = None,
        tar: bytes | None = None,
        key: bytes | None = None,
        **changes: Any,
    ) -> bundle.BuiltBundle:
        """Offer a bundle. By default it is valid, belongs to this deployment, and is signed with the active key."""
        built = built or self.build(deployment_id)
        self.tars[built.bundle_hash] = built.tar if tar is None else tar
        self.signed = (built.bundle_hash, built.manifest)
        url = f"/api/v1/agents/{AGENT_ID}/deployment/bundle?hash={built.bundle_hash}"
        self.desired = {
            "deployment_id": deployment_id,
            "action": action,
            "bundle_hash": built.bundle_hash,
            "bundle_url": url,
        } | {name: changes[name] for name in ("offered_at",) if name in changes}
        self.delivered = {
            **self.desired,
            "bundle_size": len(built.tar),
            "envelope": dsse.sign_envelope(built.bundle_hash, built.manifest, key or self.private),
        } | changes
        return built

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        request = Request(handler.command, handler.path, dict(handler.headers), body)
        self.requests.append(request)
        try:
            reply = self._fault(request) or self._respond(request)
        except Exception as error:
            self.violations.append(f"{request.method} {request.path}: {error!r}")
            reply = Reply(500, {"detail": "the fake does not support this request"})
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(data))} | reply.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        if reply.status != 304:
            handler.wfile.write(data[: reply.cut])
        handler.close_connection = reply.cut is not None

    def _fault(self, request: Request) -> Reply | None:
        for (method, tail), replies in self.faults.items():
            if request.method == method and request.path.partition("?")[0].endswith(tail) and replies:
                return replies.pop(0)
        return None

    def _respond(self, request: Request) -> Reply:
        if request.path == f"{ENVIRONMENT_PATH}/agents":
            return self._enroll(request)
        scheme, _, key = request.headers["Authorization"].partition(" ")
        assert scheme == "Bearer"
        if not self.keys[key]:
            return Reply(401, {"detail": "this key was revoked"})
        if key == self.unused:
            self.keys = {each: each == key for each in self.keys}
            self.unused = None
            self.commands = []
        route = request.path.partition("?")[0].removeprefix(f"/api/v1/agents/{AGENT_ID}")
        handlers: dict[tuple[str, str], Callable[[Request], Reply]] = {
            ("GET", ""): lambda _: Reply(
                200, {"id": AGENT_ID, "name": "node-1", "environment_id": ENVIRONMENT, "status": "enrolled"}
            ),
            ("POST", "/heartbeat"): self._heartbeat,
            ("POST", "/rotate-key"): lambda _: self._rotate_key(),
            ("GET", "/deployment"): lambda _: Reply(200, {"desired": self.delivered}, {"ETag": '"d"'}),
            ("POST", "/deployment"): self._report,
            ("GET", "/deployment/bundle"): self._bundle,
            ("GET", "/signing-key"): self._signing_key,
            ("POST", "/artifacts"): self._artifact,
            ("GET", "/capture"): lambda _: Reply(200, {"capture": next(iter(self.captures), None)}),
        }
        return handlers[request.method, route](request)

    def _enroll(self, request: Request) -> Reply:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.headers["Idempotency-Key"]
        assert request.json.keys() <= {"name", "hostname", "labels", "public_key"}
        return Reply(
            201,
            {
                "agent_id": AGENT_ID,
                "api_key": API_KEY,
                "name": request.json.get("name", "derived"),
                "environment_id": ENVIRONMENT,
                "heartbeat_interval_s": 30,
                "signing_keys": self.keyset.document(),
            },
        )

    def _heartbeat(self, request: Request) -> Reply:
        assert request.json.keys() <= _HEARTBEAT
        assert request.json.keys() >= {"status", "agent_version", "active"}
        return Reply(
            200,
            {
                "server_time": "2026-10-20T08:00:00Z",
                "next_heartbeat_s": 29.5,
                "desired": self.desired,
                "signing_key_etag": f'"{self.etag}"',
                "commands": [*self.commands, *(["capture"] if self.captures else [])],
            },
        )

    def _rotate_key(self) -> Reply:
        if self.unused is not None:
            self.keys[self.unused] = False
        self.unused = f"bor_agent_new-{len(self.keys)}"
        self.keys[self.unused] = True
        return Reply(201, {"agent_id": AGENT_ID, "token": self.unused})

    def _report(self, request: Request) -> Reply:
        assert request.json.keys() <= _REPORT
        assert request.json.keys() >= {"deployment_id", "status", "bundle_hash"}
        if request.json["deployment_id"] in self.withdrawn:
            return Reply(409, {"title": "Conflict", "detail": "the offer was withdrawn"})
        return Reply(200, request.json)

    def _bundle(self, request: Request) -> Reply:
        bundle_hash = request.path.partition("?hash=")[2]
        if bundle_hash not in self.tars:
            return Reply(409, {"detail": "not desired"})
        return Reply(200, self.tars[bundle_hash], {"Content-Type": "application/x-tar"})

    def _signing_key(self, request: Request) -> Reply:
        headers = {"ETag": f'"{self.etag}"', "Cache-Control": "private, max-age=60"}
        if request.headers.get("If-None-Match") == f'"{self.etag}"':
            return Reply(304, b"", headers)
        return Reply(200, self.keyset.document(), headers)

    def _artifact(self, request: Request) -> Reply:
        form = request.form
        assert form.keys() <= {"kind", "captured_at", "spec_hash", "deployment_id", "metadata", "file", "capture_id"}
        assert form.keys() >= {"kind", "captured_at", "file"}
        assert self.takes_uploads.wait(60)
        self.captures = [each for each in self.captures if each["id"] != form.get("capture_id", b"").decode()]
        artifact: Json = {"id": "0192-artifact", "kind": form["kind"].decode(), "status": "received"}
        return Reply(201, artifact | {"content_hash": sha256(form["file"])})
