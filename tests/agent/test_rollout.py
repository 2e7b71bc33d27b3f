"""What is offered is run and reported once; what cannot be run fails, and what ran before still runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agent.keys import OTHER_KEY


def test_an_offer_is_fetched_verified_run_and_reported(node: Any, plane: Any) -> None:
    built = plane.offer("d1", built=plane.build("d1", is_approved=True))

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert plane.sent("POST", "/deployment")[-1].json == {
        "deployment_id": "d1",
        "status": "active",
        "bundle_hash": built.bundle_hash,
        "tuning": {"profile": "low-latency", "applied": {"wait": "spin"}, "degraded": [], "failed": []},
    }
    first, second = plane.beats
    assert (first["status"], first["active"]) == ("starting", None)
    assert second["status"] == "healthy"
    assert second["active"] == {
        "deployment_id": "d1",
        "bundle_hash": built.bundle_hash,
        "spec_hash": built.manifest.spec_hash,
    }
    assert second["pipeline"] == {"records_in": 3, "records_out": 2, "drops": 1, "errors": 0}
    assert second["tuning"]["profile"] == "low-latency"
    assert second["resources"].keys() == {"cpu_percent", "memory_bytes", "disk_free_bytes"}
    assert node.state.bundle(built.bundle_hash) == built.tar


def test_what_runs_already_is_left_alone_also_after_a_restart(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    before = len(plane.requests)

    node.settle()

    assert [request.method for request in plane.requests[before:]] == ["POST"]
    assert plane.beats[-1]["active"]["deployment_id"] == "d1"


def test_nothing_was_ever_offered(node: Any, plane: Any) -> None:
    node.agent(beats=2).run()

    assert [beat["status"] for beat in plane.beats] == ["starting", "healthy"]
    assert plane.reports == []
    assert node.first_wait == 5.0  # times the jitter, which is 1 here
    assert node.waits == [29.5, 29.5]


def test_a_rollback_runs_the_earlier_bundle_and_says_so(node: Any, plane: Any) -> None:
    first = plane.offer("d1")
    node.settle()
    plane.offer("d2")
    node.settle()
    plane.offer("d2", action="rollback", built=first)

    node.settle()

    assert plane.reports[-3:] == [("d2", "downloading"), ("d2", "activating"), ("d2", "rolled_back")]
    assert plane.beats[-1]["active"]["deployment_id"] == "d1"
    assert plane.beats[-1]["active"]["bundle_hash"] == first.bundle_hash
    assert len(plane.sent("GET", "/deployment/bundle")) == 2  # the earlier one was still here


def test_a_bundle_that_failed_is_not_tried_again_also_after_a_restart(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    node.settle()
    before = len(plane.requests)

    node.settle()
    node.agent(beats=3).run()

    assert len(plane.requests) == before + 4
    assert {beat["status"] for beat in plane.beats[-3:]} == {"failed", "starting"}


def test_a_retry_that_people_ask_for_is_a_new_offer(node: Any, plane: Any) -> None:
    built = plane.build("d1")
    plane.offer("d1", built=built, tar=b"broken" * 2_000, offered_at="2026-10-20T08:00:00Z")
    node.settle()

    plane.offer("d1", built=built, offered_at="2026-10-20T09:00:00Z")
    node.settle()

    assert [status for _, status in plane.reports] == [
        *("downloading", "failed"),
        *("downloading", "activating", "active"),
    ]
    assert plane.beats[-1]["status"] == "healthy"
    assert node.state.progress().last_failed is not None


def test_an_offer_that_changed_since_the_heartbeat_is_taken_as_it_is_now(node: Any, plane: Any) -> None:
    plane.offer("d1")
    stale = plane.desired
    plane.offer("d2")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": stale, "signing_key_etag": None}),
    )

    node.settle()

    assert {deployment for deployment, _ in plane.reports} == {"d2"}


def test_an_offer_that_is_gone_is_not_asked_for_again_and_again(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.delivered = None

    node.settle()

    assert len(plane.sent("GET", "/deployment")) == 1
    assert plane.reports == []


def test_a_missing_secret_fails_the_activation(node: Any, plane: Any) -> None:
    config = plane.config | {"env": {"PASSWORD": {"secret_ref": "DB_PASSWORD"}}}
    plane.offer("d1", built=plane.build("d1", config=config))
    node.settle()
    assert node.failure == "env PASSWORD: this node has no secret secret_ref:DB_PASSWORD"
    assert plane.reports[-2:] == [("d1", "activating"), ("d1", "failed")]

    node.environment["DB_PASSWORD"] = "swordfish"
    plane.offer("d2", built=plane.build("d2", config=config))
    node.settle()

    assert plane.reports[-1] == ("d2", "active")


def test_a_deployment_cannot_read_the_agents_own_key(node: Any, plane: Any) -> None:
    node.environment["BYTEOR_AGENT_API_KEY"] = "mine"
    config = plane.config | {"env": {"X": {"secret_ref": "BYTEOR_AGENT_API_KEY"}}}
    plane.offer("d1", built=plane.build("d1", config=config))

    node.settle()

    assert "no secret" in node.failure


def test_a_stage_error_fails_the_activation(node: Any, plane: Any) -> None:
    stage_config = {"check": plane.config["stage_config"]["check"] | {"on_reject": "stop"}}
    plane.offer("d1", built=plane.build("d1", config=plane.config | {"stage_config": stage_config}))

    node.settle()

    assert node.failure.startswith("stage 'check' failed on record 2")


def test_a_spec_that_this_agent_does_not_understand_fails_the_activation(node: Any, plane: Any) -> None:
    plane.offer("d1", built=plane.build("d1", spec=b"spec.v=2\n"))

    node.settle()

    assert node.failure.startswith("line 1:")


def test_whatever_a_stage_raises_is_reported(
    node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="byteor.agent")  # xdist can't carry the half character that a traceback holds

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("oops \ud800\0\n" + "x" * 3_000)

    monkeypatch.setattr("byteor_cloud.agent.pipeline.PipelineRunner", broken)
    plane.offer("d1")

    node.settle()

    assert node.failure == "ZeroDivisionError: oops ???" + "x" * 1_973


def test_a_full_disk_is_a_failure_of_the_node(node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("byteor_cloud.agent.state.State.save_capture", full)
    plane.offer("d1")

    node.settle()

    assert node.failure == "this node can't hold the pipeline: [Errno 28] No space left on device"


def test_a_running_bundle_that_can_no_longer_start_shows_in_the_heartbeat(node: Any, plane: Any) -> None:
    config = plane.config | {"env": {"X": {"secret_ref": "X"}}}
    node.environment["X"] = "1"
    plane.offer("d1", built=plane.build("d1", config=config))
    node.settle()
    del node.environment["X"]

    node.settle()

    assert (plane.beats[-1]["status"], plane.beats[-1]["active"]) == ("failed", None)
    assert node.state.progress().running is None
