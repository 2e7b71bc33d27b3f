"""Helpers of tests that run replays."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from byteor_cloud.engine.compiler import PipelineSpec
from byteor_cloud.engine.replay import (
    Frame,
    IncidentBundle,
    Record,
    ReplayOutcome,
    encode_frame,
    replay,
)

HOOK = "http_post:http://127.0.0.1:9000/hook"


RECORDS = [
    Record(1, 10, b'{"user": "ann", "bid": 1}'),
    Record(2, 11, b'{"ask": 1}'),
    Record(3, 12, b'{"bid": 3.0}'),
]


type MakeRing = Callable[..., PipelineSpec]


type MakeBundle = Callable[..., IncidentBundle]


def run(bundle: IncidentBundle, **options: Any) -> ReplayOutcome:
    where: dict[str, Any] = {"created_unix_ms": 1_700_000_000_000, "bundle_dir": "/b", "policy_env": "dev"}
    return replay(bundle, **(where | options))


def frames(*items: Frame) -> bytes:
    return b"".join(encode_frame(item) for item in items)


def sha(payload: bytes) -> str:
    return f"sha256:{sha256(payload).hexdigest()}"
