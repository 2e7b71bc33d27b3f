"""Tests of requested captures: the agent uploads each, or a diagnostic, without delaying its heartbeats."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from byteor.agent import requested_captures
from byteor.engine.replay import JournalReader, read_frames


def requested(plane: Any, capture_id: str = "c1", last_n: int | None = None) -> None:
    plane.captures.append(
        {"id": capture_id, "reason": "p99 is high", "last_n": last_n, "expires_at": "2026-10-20T09:00:00Z", "new": 1}
    )


def uploads(plane: Any) -> list[tuple[str, str]]:
    """Return the id of the requested capture and the kind of each upload."""
    forms = [request.form for request in plane.sent("POST", "/artifacts")]
    return [(form["capture_id"].decode(), form["kind"].decode()) for form in forms]


def files(form: Any) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(form["file"])) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar.getmembers()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("last_n", "sequences", "output"), [(None, [1, 2, 3], [1, 3]), (2, [2, 3], [3]), (9, [1, 2, 3], [1, 3])]
)
def test_capture_is_uploaded_with_reason_and_requested_records(
    node: Any, plane: Any, last_n: Any, sequences: list[int], output: list[int]
) -> None:
    plane.offer("d1")
    requested(plane, last_n=last_n)

    node.settle()

    assert uploads(plane) == [("c1", "incident_bundle")]
    form = plane.sent("POST", "/artifacts")[0].form
    assert json.loads(form["metadata"]) == {"reason": "p99 is high"}
    assert form["deployment_id"] == b"d1"
    content = files(form)
    assert [r.sequence for r in JournalReader(io.BytesIO(content["journal/quotes_in.bin"]))] == sequences
    assert [f.sequence for f in read_frames(io.BytesIO(content["expected/quotes_out.bin"]))] == output


def test_agent_without_pipeline_uploads_diagnostic_with_reason(node: Any, plane: Any) -> None:
    requested(plane)

    node.settle()

    assert uploads(plane) == [("c1", "diagnostic")]
    form = plane.sent("POST", "/artifacts")[0].form
    problem = "no pipeline is running, so there is nothing to capture"
    assert json.loads(form["metadata"]) == {"reason": "p99 is high", "problem": problem}
    assert json.loads(form["file"])["problem"] == problem
    assert plane.captures == []


def test_too_large_damaged_and_rejected_captures_are_replaced_by_diagnostics(
    node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer("d1")
    node.settle()

    requested(plane, "rejected")
    plane.fail("POST", "/artifacts", plane.reply(409, {"detail": "the quota is used up"}))
    node.settle()
    requested(plane, "large")
    with monkeypatch.context() as patch:
        patch.setattr(requested_captures, "MAX_UPLOAD", 10)
        node.settle()
    requested(plane, "damaged", last_n=1)
    (journal,) = node.folder.glob("captures/*/journal/*.bin")
    journal.write_bytes(b"no journal")
    node.agent()  # not started, because a start would write the journal again
    node.captures[-1].start()
    node.captures[-1].finish()

    assert uploads(plane) == [
        ("rejected", "incident_bundle"), ("rejected", "diagnostic"), ("large", "diagnostic"), ("damaged", "diagnostic"),
    ]  # fmt: skip
    problems = [json.loads(r.form["metadata"]).get("problem", "") for r in plane.sent("POST", "/artifacts")]
    assert problems[1] == "409: the quota is used up"
    assert "request one with fewer records" in problems[2]
    assert problems[3]


def test_heartbeats_continue_during_upload_and_repeated_command_starts_no_second_upload(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    requested(plane)
    plane.takes_uploads.clear()

    node.agent(beats=4).run()
    plane.takes_uploads.set()
    node.captures[-1].finish()
    node.agent(beats=2).run()

    assert uploads(plane) == [("c1", "incident_bundle")]
    assert len(plane.beats) == 2 + 4 + 2


def test_interrupted_upload_is_repeated_after_restart_unless_it_was_stored(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    requested(plane, "not stored")
    plane.fail("POST", "/artifacts", plane.reply(201, {"id": "x"}, cut=0))
    node.settle()
    node.settle()
    assert uploads(plane) == [("not stored", "incident_bundle")] * 2

    requested(plane, "stored")
    plane.fail("POST", "/artifacts", plane.reply(201, {"id": "x"}, cut=0))
    node.settle()
    plane.captures.clear()
    plane.commands = ["capture"]
    node.settle()

    assert uploads(plane)[2:] == [("stored", "incident_bundle")]


def test_upload_retry_in_same_process_sends_same_bytes(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    requested(plane)
    plane.fail("POST", "/artifacts", plane.reply(503))
    node.agent()
    captures = node.captures[-1]

    for at in (0, 60):
        node.clock[0] = at
        captures.start()
        captures.finish()

    first, second = (request.form for request in plane.sent("POST", "/artifacts"))
    assert first == second
    assert captures._unsent is None


def test_failed_upload_is_retried_after_pause_and_requests_are_served_one_at_a_time(node: Any, plane: Any) -> None:
    requested(plane, "c1")
    requested(plane, "c2")
    plane.fail("POST", "/artifacts", plane.reply(503, {}, {"Retry-After": "100"}), plane.reply(400))
    agent, captures = node.agent(beats=99), node.captures[-1]

    def attempt(at: float) -> int:
        node.clock[0] = at
        agent._exchange_heartbeat()
        captures.finish()
        return len(plane.sent("POST", "/artifacts"))

    assert [attempt(at) for at in (0, 100, 125)] == [1, 1, 2]
    # The diagnostic itself was rejected, so the next attempt waits for ten minutes.
    assert [attempt(at) for at in (126, 724, 725, 726, 727)] == [2, 2, 3, 4, 4]
    assert plane.captures == []


@pytest.mark.parametrize("body", [{}, {"capture": {"id": "c1"}}, {"capture": {"id": "c1", "reason": "", "last_n": 0}}])
def test_unreadable_capture_request_and_rejected_key_do_not_stop_heartbeats(node: Any, plane: Any, body: Any) -> None:
    requested(plane)
    plane.fail("GET", "/capture", plane.reply(200, body), plane.reply(401))

    node.agent(beats=2).run()
    node.captures[-1].finish()
    node.clock[0] = 60.0
    node.agent(beats=2).run()
    node.captures[-1].finish()

    assert len(plane.beats) == 4
