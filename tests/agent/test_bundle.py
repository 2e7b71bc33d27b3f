"""Tests of the agent's bundles: verification, failed downloads, damaged files, and which bundles are kept."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from byteor.agent.progress import OfferStatus
from byteor.engine.signing.bundle import MAX_BUNDLE_BYTES
from tests.agent.keys import OTHER_KEY


def test_altered_bundle_fails_offer_and_earlier_bundle_keeps_running(node: Any, plane: Any) -> None:
    running = plane.offer("d1")
    node.settle()
    built = plane.build("d2")
    flipped = bytearray(built.tar)
    flipped[700] ^= 1
    plane.offer("d2", built=built, tar=bytes(flipped))

    node.settle()

    assert node.failure == "bundle.hash: the downloaded bytes do not have the hash of the offered bundle"
    assert plane.reports[-2:] == [("d2", "downloading"), ("d2", "failed")]
    assert plane.beats[-1]["status"] == "degraded"
    assert plane.beats[-1]["active"]["bundle_hash"] == running.bundle_hash
    assert node.state.progress().running.offer.bundle_hash == running.bundle_hash


@pytest.mark.parametrize(
    ("offer", "code"),
    [
        ({"key": OTHER_KEY}, "envelope.unknown_key"),
        ({"envelope": None}, "envelope.malformed"),
        ({"bundle_size": MAX_BUNDLE_BYTES + 1}, "bundle.too_large"),
        ({"bundle_size": 1}, "the bundle cannot be downloaded: 200: the response has more than 1 bytes"),
    ],
    ids=str,
)
def test_invalid_offer_fails(node: Any, plane: Any, offer: Any, code: str) -> None:
    plane.offer("d1", **offer)

    node.settle()

    assert node.failure.startswith(code)
    assert plane.reports[-1] == ("d1", "failed")


def test_wrong_signature_fails_offer(node: Any, plane: Any) -> None:
    plane.offer("d1")
    signature = plane.delivered["envelope"]["signatures"][0]
    signature["sig"] = base64.b64encode(bytes(64)).decode()

    node.settle()

    assert node.failure.startswith("envelope.bad_signature")


def test_envelope_of_another_bundle_fails_offer(node: Any, plane: Any) -> None:
    plane.offer("d1")
    signed = plane.delivered["envelope"]
    plane.offer("d1", built=plane.build("d1", is_approved=True), envelope=signed)

    node.settle()

    assert node.failure.startswith("envelope.subject")


def test_bundle_for_another_environment_fails_offer(node: Any, plane: Any) -> None:
    plane.offer("d1", built=plane.build("d1", environment_id="0192-other"))

    node.settle()

    assert node.failure.startswith("bundle.environment")


def test_offer_to_activate_bundle_of_another_deployment_fails(node: Any, plane: Any) -> None:
    plane.offer("d2", built=plane.build("d1"))

    node.settle()

    assert node.failure == "the bundle does not belong to the offered deployment"


@pytest.mark.parametrize(
    "url",
    ["{elsewhere}/bundle", "//{host}/bundle", "/\\{host}/bundle", "bundle", "@{host}/bundle", "/a\nb", "/é"],
)
def test_bundle_url_must_be_valid_path_on_control_plane_origin(node: Any, plane: Any, elsewhere: Any, url: str) -> None:
    host = elsewhere.url.removeprefix("http://")
    plane.offer("d1", bundle_url=url.format(elsewhere=elsewhere.url, host=host))

    node.settle()

    assert "is not a path on the control plane's own origin" in node.failure
    assert plane.sent("GET", "/deployment/bundle") == []


def test_redirected_download_fails_offer(node: Any, plane: Any, elsewhere: Any) -> None:
    plane.offer("d1")
    plane.fail("GET", "/deployment/bundle", plane.reply(302, headers={"Location": elsewhere.url + "/bundle"}))

    node.settle()

    assert "redirect" in node.failure


def test_missing_bundle_fails_offer(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.fail("GET", "/deployment/bundle", plane.reply(404, {"detail": "gone"}))

    node.settle()

    assert node.failure == "the bundle cannot be downloaded: 404: gone"


def test_offer_is_dropped_when_download_returns_409(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.tars.clear()

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().last_failed is None
    assert len(plane.beats) == 2


def test_interrupted_download_is_retried(node: Any, plane: Any) -> None:
    plane.offer("d1")
    plane.fail("GET", "/deployment/bundle", plane.reply(200, b"x" * 20_000, cut=5_000))

    node.agent(beats=3).run()

    assert node.waits == [1.0, 0, 29.5]
    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert [path.name[0] for path in (node.folder / "bundles").iterdir()] != ["."]


def test_interrupted_download_is_retried_after_restart(node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def raise_killed(_chunks: Any, _bundle_hash: str) -> Any:
        yield b"half"
        raise Killed

    plane.offer("d1")
    monkeypatch.setattr("byteor.agent.offer_handler._check_hash", raise_killed)
    with pytest.raises(Killed):
        node.settle()
    monkeypatch.undo()
    assert node.state.progress().attempted.status is OfferStatus.DOWNLOADING

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]


def test_bundle_damaged_on_disk_after_download_fails_offer(
    node: Any, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byteor.agent.state_folder.StateFolder.bundle", lambda *_: None)
    plane.offer("d1")

    node.settle()

    assert node.failure == "the downloaded bundle was damaged on this host's disk"


def test_damaged_running_bundle_is_downloaded_again_after_restart(node: Any, plane: Any) -> None:
    built = plane.offer("d1")
    node.settle()
    path = node.folder / "bundles" / f"{built.bundle_hash.removeprefix('sha256:')}.tar"
    path.write_bytes(path.read_bytes()[:-1])

    node.settle()

    assert plane.beats[-2]["active"] is None
    assert plane.beats[-1]["active"]["bundle_hash"] == built.bundle_hash
    assert path.read_bytes() == built.tar
    # The agent reported these statuses before the damage, so it does not report them again.
    assert [status for _, status in plane.reports] == ["downloading", "activating", "active"]


def test_only_running_and_previous_bundles_are_kept(node: Any, plane: Any) -> None:
    built = []
    for name in ("d1", "d2", "d3"):
        built.append(plane.offer(name))
        node.settle()

    assert [node.state.bundle(b.bundle_hash) is not None for b in built] == [False, True, True]
    assert [bool(node.state.capture(b.bundle_hash)) for b in built] == [False, True, True]
