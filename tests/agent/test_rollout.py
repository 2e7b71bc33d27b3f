from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from byteor_cloud.agent.progress import Status
from byteor_cloud.engine.delivery.bundle import MAX_BUNDLE_BYTES
from byteor_cloud.engine.delivery.encoding import sha256

OTHER_KEY = bytes(range(1, 33))
THIRD_KEY = bytes(range(2, 34))


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


def test_the_interval_can_be_overridden(node: Any) -> None:
    node.agent(beats=2, interval_s=0.25).run()

    assert (node.first_wait, node.waits) == (0.25, [0.25, 0.25])


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


def test_a_flipped_byte_is_refused_and_what_ran_before_still_runs(node: Any, plane: Any) -> None:
    good = plane.offer("d1")
    node.settle()
    built = plane.build("d2")
    flipped = bytearray(built.tar)
    flipped[700] ^= 1
    plane.offer("d2", built=built, tar=bytes(flipped))

    node.settle()

    assert node.failure == "bundle.hash: the download is not the bundle that was offered"
    assert plane.reports[-2:] == [("d2", "downloading"), ("d2", "failed")]
    assert plane.beats[-1]["status"] == "degraded"
    assert plane.beats[-1]["active"]["bundle_hash"] == good.bundle_hash
    assert node.state.progress().running.offer.bundle_hash == good.bundle_hash


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


@pytest.mark.parametrize(
    ("offer", "code"),
    [
        ({"key": OTHER_KEY}, "envelope.unknown_key"),
        ({"envelope": None}, "envelope.malformed"),
        ({"bundle_size": MAX_BUNDLE_BYTES + 1}, "bundle.too_large"),
        ({"bundle_size": 1}, "the bundle can't be downloaded: 200: the answer has more than 1 bytes"),
    ],
    ids=str,
)
def test_a_bad_offer_is_refused(node: Any, plane: Any, offer: Any, code: str) -> None:
    plane.offer("d1", **offer)

    node.settle()

    assert node.failure.startswith(code)
    assert plane.reports[-1] == ("d1", "failed")


def test_a_wrong_signature_is_refused(node: Any, plane: Any) -> None:
    plane.offer("d1")
    signature = plane.delivered["envelope"]["signatures"][0]
    signature["sig"] = base64.b64encode(bytes(64)).decode()

    node.settle()

    assert node.failure.startswith("envelope.bad_signature")


def test_another_tar_than_the_signed_one_is_refused(node: Any, plane: Any) -> None:
    plane.offer("d1")
    signed = plane.delivered["envelope"]
    plane.offer("d1", built=plane.build("d1", is_approved=True), envelope=signed)

    node.settle()

    assert node.failure.startswith("envelope.subject")


def test_another_environments_bundle_is_refused(node: Any, plane: Any) -> None:
    plane.offer("d1", built=plane.build("d1", environment_id="0192-other"))

    node.settle()

    assert node.failure.startswith("bundle.environment")


def test_an_older_bundle_comes_back_only_as_a_rollback(node: Any, plane: Any) -> None:
    plane.offer("d2", built=plane.build("d1"))

    node.settle()

    assert node.failure == "the bundle belongs to another deployment than the one that offers it"


@pytest.mark.parametrize(
    "url",
    ["{elsewhere}/bundle", "//{host}/bundle", "/\\{host}/bundle", "bundle", "@{host}/bundle", "/a\nb", "/é"],
)
def test_a_bundle_at_another_origin_is_refused(node: Any, plane: Any, elsewhere: Any, url: str) -> None:
    host = elsewhere.url.removeprefix("http://")
    plane.offer("d1", bundle_url=url.format(elsewhere=elsewhere.url, host=host))

    node.settle()

    assert "is not a path on the control plane's own origin" in node.failure
    assert plane.sent("GET", "/deployment/bundle") == []


def test_a_redirect_is_not_followed(node: Any, plane: Any, elsewhere: Any) -> None:
    plane.offer("d1")
    plane.fail("GET", "/deployment/bundle", plane.reply(302, headers={"Location": elsewhere.url + "/bundle"}))

    node.settle()

    assert "redirect" in node.failure


def test_a_bundle_that_is_not_there_fails_the_offer(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.fail("GET", "/deployment/bundle", plane.reply(404, {"detail": "gone"}))

    node.settle()

    assert node.failure == "the bundle can't be downloaded: 404: gone"


def test_a_bundle_that_is_no_longer_wanted_is_dropped(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.tars.clear()

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().last_failed is None
    assert len(plane.beats) == 2


def test_a_key_made_after_the_last_fetch_is_fetched_once(node: Any, plane: Any) -> None:
    node.settle()
    stale = plane.etag
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": stale}),
    )

    node.settle()

    assert plane.reports[-1] == ("d1", "active")
    assert len(plane.sent("GET", "/signing-key")) == 2


def test_a_changed_etag_refreshes_the_key_set_and_an_unchanged_one_does_not(node: Any, plane: Any) -> None:
    node.agent(beats=3).run()
    assert len(plane.sent("GET", "/signing-key")) == 1

    plane.rotate(OTHER_KEY)
    node.settle()

    assert len(plane.sent("GET", "/signing-key")) == 2
    assert node.state.keys().keyset == plane.keyset
    assert node.state.keys().etag == plane.etag


def test_an_unchanged_key_set_is_not_sent_again(node: Any, plane: Any) -> None:
    node.settle()
    plane.offer("d1", key=OTHER_KEY)

    node.settle()

    assert plane.sent("GET", "/signing-key")[-1].headers["If-None-Match"] == f'"{plane.etag}"'
    assert node.failure.startswith("envelope.unknown_key")


def test_a_retired_key_is_refused(node: Any, plane: Any) -> None:
    old = plane.private
    plane.rotate(OTHER_KEY, retire=True)
    plane.offer("d1", key=old)

    node.settle()

    assert node.failure.startswith("envelope.unknown_key")


def test_a_key_is_known_before_it_signs(node: Any, plane: Any) -> None:
    node.settle()
    plane.publish(OTHER_KEY)
    node.settle()
    assert len(plane.sent("GET", "/signing-key")) == 2

    # It signs now, and this agent has not heard of it yet.
    unheard = plane.etag
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": unheard}),
    )
    node.settle()

    assert plane.reports[-1] == ("d1", "active")
    assert len(plane.sent("GET", "/deployment")) == 1  # nothing had to be asked for again


def test_a_signature_that_became_too_old_on_its_way_is_asked_for_again(node: Any, plane: Any) -> None:
    node.settle()
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    late = plane.reply(200, {"desired": plane.delivered})
    known = plane.reply(
        200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": node.state.keys().etag}
    )
    plane.rotate(THIRD_KEY, retire=True)
    plane.sign_again()
    plane.fail("GET", "/deployment", late)
    plane.fail("POST", "/heartbeat", known)

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert len(plane.sent("GET", "/deployment")) == 2
    assert len(plane.sent("GET", "/deployment/bundle")) == 1


def test_an_offer_that_is_gone_when_its_signature_is_asked_for_again_is_dropped(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    plane.fail("GET", "/deployment", plane.reply(200, {"desired": plane.delivered}))
    plane.delivered = None

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().last_failed is None


def test_a_download_that_is_cut_off_starts_again(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.fail("GET", "/deployment/bundle", plane.reply(200, b"x" * 20_000, cut=5_000))

    node.agent(beats=3).run()

    assert node.waits == [1.0, 0, 29.5]
    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert [path.name[0] for path in (node.folder / "bundles").iterdir()] != ["."]


def test_a_restart_in_the_middle_of_a_download_goes_on(node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(_chunks: Any, _wanted: str) -> Any:
        yield b"half"
        raise Killed

    plane.offer("d1")
    monkeypatch.setattr("byteor_cloud.agent.rollout._checked", killed)
    with pytest.raises(Killed):
        node.settle()
    monkeypatch.undo()
    assert node.state.progress().attempted.status is Status.DOWNLOADING

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_report_is_repeated_until_it_is_acknowledged(node: Any, plane: Any, status: int) -> None:
    plane.offer("d1")
    node.agent().settle()
    plane.offer("d2")
    ok = plane.reply(200)
    plane.fail("POST", "/deployment", ok, ok, plane.reply(status, headers={"Retry-After": "7"}))

    agent = node.agent(beats=1)
    agent.run()
    assert node.waits == [7.0 + 1.75]
    assert [report.status for report in node.state.progress().pending] == [Status.ACTIVE]

    node.settle()  # after a restart
    assert plane.reports[-2:] == [("d2", "active"), ("d2", "active")]
    assert node.state.progress().pending == ()


def test_a_failure_is_reported_also_after_a_restart(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    plane.fail("POST", "/deployment", plane.reply(200), plane.reply(503))
    node.agent().run()

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "failed"), ("d1", "failed")]
    assert len(plane.sent("GET", "/deployment/bundle")) == 1


@pytest.mark.parametrize("status", [400, 404, 409])
def test_a_report_that_is_refused_is_dropped_and_the_agent_asks_again(node: Any, plane: Any, status: int) -> None:
    plane.offer("d1")
    plane.fail("POST", "/deployment", plane.reply(status, {"detail": "no longer desired"}))

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().pending == ()
    assert len(plane.beats) == 2
    plane.offer("d2")
    node.settle()
    assert plane.reports[-1] == ("d2", "active")


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

    monkeypatch.setattr("byteor_cloud.agent.pipeline.Machine", broken)
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


def test_a_bundle_that_the_disk_damages_fails_the_offer(node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byteor_cloud.agent.state.State.bundle", lambda *_: None)
    plane.offer("d1")

    node.settle()

    assert node.failure == "the downloaded bundle was damaged on this node's disk"


def test_a_running_bundle_that_was_damaged_on_disk_is_fetched_again(node: Any, plane: Any) -> None:
    built = plane.offer("d1")
    node.settle()
    path = node.folder / "bundles" / f"{built.bundle_hash.removeprefix('sha256:')}.tar"
    path.write_bytes(path.read_bytes()[:-1])

    node.settle()

    assert plane.beats[-2]["active"] is None
    assert plane.beats[-1]["active"]["bundle_hash"] == built.bundle_hash
    assert path.read_bytes() == built.tar
    # It was reported before; nothing is said twice.
    assert [status for _, status in plane.reports] == ["downloading", "activating", "active"]


def test_a_running_bundle_that_can_no_longer_start_shows_in_the_heartbeat(node: Any, plane: Any) -> None:
    config = plane.config | {"env": {"X": {"secret_ref": "X"}}}
    node.environment["X"] = "1"
    plane.offer("d1", built=plane.build("d1", config=config))
    node.settle()
    del node.environment["X"]

    node.settle()

    assert (plane.beats[-1]["status"], plane.beats[-1]["active"]) == ("failed", None)
    assert node.state.progress().running is None


def test_only_the_last_two_bundles_are_kept(node: Any, plane: Any) -> None:
    built = []
    for name in ("d1", "d2", "d3"):
        built.append(plane.offer(name))
        node.settle()

    assert [node.state.bundle(b.bundle_hash) is not None for b in built] == [False, True, True]
    assert [bool(node.state.capture(b.bundle_hash)) for b in built] == [False, True, True]


def test_network_failures_back_off_and_never_end_the_agent(node: Any, plane: Any) -> None:
    plane.fail("POST", "/heartbeat", *[plane.reply(500)] * 8, plane.reply(200, b"no json"), plane.reply(404))

    node.agent(beats=11).run()

    assert node.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 29.5]


def test_an_unreachable_control_plane_is_only_waited_for(node: Any, plane: Any) -> None:
    agent = node.agent(beats=2)
    plane.close()

    agent.run()

    assert node.waits == [1.0, 2.0]


@pytest.mark.parametrize("answer", [{}, {"next_heartbeat_s": True}, {"next_heartbeat_s": -1}, {"next_heartbeat_s": 1}])
def test_an_unreadable_heartbeat_answer_is_tried_again(node: Any, plane: Any, answer: Any) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(200, answer))

    node.agent(beats=2).run()

    assert node.waits == [1.0, 29.5]


def test_unknown_commands_and_members_are_ignored(node: Any, plane: Any) -> None:
    plane.commands = [{"kind": "dance"}]
    plane.offer("d1", surprise=1)

    node.settle()

    assert plane.reports[-1] == ("d1", "active")


def test_progress_survives_its_own_spelling(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    plane.offer("d2", key=OTHER_KEY, offered_at="x")
    plane.fail("POST", "/deployment", plane.reply(200), plane.reply(503))
    node.agent().run()

    progress = node.state.progress()

    assert type(progress).from_document(json.loads(json.dumps(progress.document()))) == progress
    assert progress.running.spec_hash == sha256(plane.spec)
    assert progress.pending[0].detail == progress.last_failed.detail
