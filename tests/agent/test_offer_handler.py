"""Tests of the handling of offers: what the agent runs and reports, and when it handles an offer again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agent.keys import OTHER_KEY


def test_agent_downloads_and_runs_offered_bundle_and_reports_progress(node: Any, plane: Any) -> None:
    built = plane.offer("d1", built=plane.build("d1", is_approved=True))

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert plane.sent("POST", "/deployment")[-1].json == {
        "deployment_id": "d1",
        "status": "active",
        "bundle_hash": built.bundle_hash,
        "boot_id": plane.beats[0]["boot_id"],
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


def test_running_offer_is_not_handled_again_after_restart(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    requests_before = len(plane.requests)

    node.settle()

    assert [request.method for request in plane.requests[requests_before:]] == ["POST"]
    assert plane.beats[-1]["active"]["deployment_id"] == "d1"


def test_agent_without_offer_sends_heartbeats_but_no_reports(node: Any, plane: Any) -> None:
    node.agent(beats=2).run()

    assert [beat["status"] for beat in plane.beats] == ["starting", "healthy"]
    assert plane.reports == []
    assert node.first_wait == 5.0  # the fixture's jitter is 1.0
    assert node.waits == [29.5, 29.5]


def test_rollback_runs_and_reports_earlier_bundle(node: Any, plane: Any) -> None:
    first = plane.offer("d1")
    node.settle()
    plane.offer("d2")
    node.settle()
    plane.offer("d2", action="rollback", built=first)

    node.settle()

    assert plane.reports[-3:] == [("d2", "downloading"), ("d2", "activating"), ("d2", "rolled_back")]
    assert plane.beats[-1]["active"]["deployment_id"] == "d1"
    assert plane.beats[-1]["active"]["bundle_hash"] == first.bundle_hash
    assert len(plane.sent("GET", "/deployment/bundle")) == 2  # the earlier bundle was still stored


def test_failed_offer_is_not_retried_after_restart(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    node.settle()
    requests_before = len(plane.requests)

    node.settle()
    node.agent(beats=3).run()

    assert len(plane.requests) == requests_before + 4
    assert {beat["status"] for beat in plane.beats[-3:]} == {"failed", "starting"}


def test_failed_bundle_is_retried_when_offered_again(node: Any, plane: Any) -> None:
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


def test_current_offer_is_handled_if_offer_changed_since_heartbeat(node: Any, plane: Any) -> None:
    plane.offer("d1")
    earlier_offer = plane.desired
    plane.offer("d2")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": earlier_offer, "signing_key_etag": None}),
    )

    node.settle()

    assert {deployment for deployment, _ in plane.reports} == {"d2"}


def test_withdrawn_offer_is_fetched_only_once(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.delivered = None

    node.settle()

    assert len(plane.sent("GET", "/deployment")) == 1
    assert plane.reports == []


def test_missing_secret_fails_activation(node: Any, plane: Any) -> None:
    config = plane.config | {"env": {"PASSWORD": {"secret_ref": "DB_PASSWORD"}}}
    plane.offer("d1", built=plane.build("d1", config=config))
    node.settle()
    assert node.failure == "environment variable PASSWORD: this host has no secret named DB_PASSWORD"
    assert plane.reports[-2:] == [("d1", "activating"), ("d1", "failed")]

    node.environment["DB_PASSWORD"] = "swordfish"
    plane.offer("d2", built=plane.build("d2", config=config))
    node.settle()

    assert plane.reports[-1] == ("d2", "active")


def test_deployment_cannot_read_agent_key(node: Any, plane: Any) -> None:
    node.environment["BYTEOR_AGENT_API_KEY"] = "mine"
    config = plane.config | {"env": {"X": {"secret_ref": "BYTEOR_AGENT_API_KEY"}}}
    plane.offer("d1", built=plane.build("d1", config=config))

    node.settle()

    assert "no secret" in node.failure


def test_stage_error_fails_activation(node: Any, plane: Any) -> None:
    stage_config = {"check": plane.config["stage_config"]["check"] | {"on_reject": "stop"}}
    plane.offer("d1", built=plane.build("d1", config=plane.config | {"stage_config": stage_config}))

    node.settle()

    assert node.failure.startswith("stage 'check' failed on record 2")


def test_unknown_spec_version_fails_activation(node: Any, plane: Any) -> None:
    plane.offer("d1", built=plane.build("d1", spec=b"spec.v=2\n"))

    node.settle()

    assert node.failure.startswith("line 1:")


def test_unexpected_pipeline_exception_is_reported_as_failure(
    node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="byteor.agent")  # xdist cannot serialize the logged traceback

    def raise_unprintable(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("oops \ud800\0\n" + "x" * 3_000)

    monkeypatch.setattr("byteor.agent.pipeline.PipelineRunner", raise_unprintable)
    plane.offer("d1")

    node.settle()

    assert node.failure == "ZeroDivisionError: oops ???" + "x" * 1_973


def test_full_disk_fails_activation(node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_full(*_args: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("byteor.agent.state_folder.StateFolder.save_capture", raise_full)
    plane.offer("d1")

    node.settle()

    assert node.failure == "this host cannot run the pipeline: [Errno 28] No space left on device"


def test_heartbeat_has_status_failed_when_running_bundle_cannot_be_restarted(node: Any, plane: Any) -> None:
    config = plane.config | {"env": {"X": {"secret_ref": "X"}}}
    node.environment["X"] = "1"
    plane.offer("d1", built=plane.build("d1", config=config))
    node.settle()
    del node.environment["X"]

    node.settle()

    assert (plane.beats[-1]["status"], plane.beats[-1]["active"]) == ("failed", None)
    assert node.state.progress().running is None
