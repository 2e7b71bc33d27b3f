"""Tests of side effects: the server's allowlists, the stage's allowlist, consent, the ops of the spec, and failures."""

from __future__ import annotations

from typing import Any

import pytest

from byteor.engine.allowlist import parse_url_prefix
from byteor.engine.replay import Decision, EffectFailed, PipelineRunner, Record, SideEffectPolicy, StageError

HOOK = "http_post:http://hooks.example/replay/a"
TR = "exec:/usr/bin/tr|a-z|A-Z"


def policy(*ops: str, consented: bool = True, config: Any = None) -> SideEffectPolicy:
    stages = frozenset(("s", op) for op in ops)
    return SideEffectPolicy(
        (parse_url_prefix("http://hooks.example/replay"),), ("/usr/bin/tr",), config or {}, consented, stages
    )


@pytest.mark.parametrize(
    ("op", "decision"),
    [
        (HOOK, Decision.ALLOW),
        (TR, Decision.ALLOW),
        ("exec:/usr/bin/tr", Decision.ALLOW),
        ("http_post:http://hooks.example/admin", Decision.DENY),
        ("http_post", Decision.DENY),
        ("exec:tr|a|b", Decision.DENY),
        ("exec:/usr/bin/../bin/tr", Decision.DENY),
        ("exec:/usr/bin/tr ", Decision.DENY),
        ("exec:http://hooks.example/replay", Decision.DENY),
        ("http_post:/usr/bin/tr", Decision.DENY),
        ("exec", Decision.DENY),
        ("unheard_of:/usr/bin/tr", Decision.DENY),
    ],
)
def test_side_effect_must_be_on_server_allowlists(op: str, decision: Decision) -> None:
    assert policy(op).decide("s", op) is decision
    expected = Decision.REQUIRE_APPROVAL if decision is Decision.ALLOW else Decision.DENY
    assert policy(op, consented=False).decide("s", op) is expected
    assert SideEffectPolicy((), (), {}, True, frozenset({("s", op)})).decide("s", op) is Decision.DENY


@pytest.mark.parametrize(
    ("allowlist", "hook", "tr"),
    [
        (None, Decision.ALLOW, Decision.ALLOW),
        (["http://hooks.example/replay/a"], Decision.ALLOW, Decision.DENY),
        (["/usr/bin/tr"], Decision.DENY, Decision.ALLOW),
        (["http://hooks.example/replay/b"], Decision.DENY, Decision.DENY),
        (["/usr/bin/cat"], Decision.DENY, Decision.DENY),
        ([], Decision.DENY, Decision.DENY),
        ("/usr/bin/tr", Decision.DENY, Decision.DENY),
        (5, Decision.DENY, Decision.DENY),
        ([5], Decision.DENY, Decision.DENY),
    ],
)
def test_stage_allowlist_narrows_server_allowlists(allowlist: Any, hook: Decision, tr: Decision) -> None:
    config = {"s": {"allowlist": allowlist}, "other": {"allowlist": []}}

    found = policy(HOOK, TR, config=config)
    assert (found.decide("s", HOOK), found.decide("s", TR)) == (hook, tr)


def test_stage_allowlist_cannot_widen_server_allowlists() -> None:
    config = {"s": {"allowlist": ["http://evil.example", "/bin/sh"]}}

    for op in ("http_post:http://evil.example", "exec:/bin/sh|-c|id"):
        assert policy(op, config=config).decide("s", op) is Decision.DENY


def test_side_effect_must_be_declared_by_stage_of_spec() -> None:
    found = policy(HOOK)

    assert found.decide("s", HOOK) is Decision.ALLOW
    assert found.decide("other", HOOK) is Decision.DENY
    assert found.decide("s", HOOK + "/b") is Decision.DENY


def test_error_of_failed_side_effect_becomes_stage_error_detail(ring: Any) -> None:
    class Failing:
        def decide(self, stage: str, op: str) -> Decision:
            return Decision.ALLOW

        def perform(self, stage: str, op: str, payload: bytes) -> None:
            raise EffectFailed("answered 500")

    with pytest.raises(StageError, match=r"^stage 's0' failed on record 7: answered 500$"):
        PipelineRunner(ring(TR), effects=Failing()).feed(Record(7, 0, b"a"))
