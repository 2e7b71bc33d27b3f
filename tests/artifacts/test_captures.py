"""Reading the files and journals of captures, tracing records, comparing replays, and who sees divergences."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import captures, children, derived, folders, replays
from byteor.engine.replay import Record, encode_journal
from byteor_cloud.captures.files import indexes_of
from byteor_cloud.ids import uuid7
from byteor_cloud.storage import blobs
from tests.artifacts.incidents import PAYLOADS, frames, incident, ingested, journal, kept_folder, upload
from tests.browser.filled import row_page, signed_in
from tests.worlds import Api, World, plan, run_jobs

pytestmark = pytest.mark.django_db

IDENTITY = plan(stages=[{"id": "copy", "op": "identity"}])
CHECK = {"check": {"schema": {"type": "object", "required": ["id"]}}}


def get(world: World, artifact: Artifact, rest: str, api: Api | None = None) -> Any:
    return (api or world.operator.api).get(world.path(artifact.environment, f"/artifacts/{artifact.pk}{rest}"))


def replayed(world: World, artifact: Artifact, **options: Any) -> Replay:
    row = replays.request(artifact, environment=artifact.environment, actor=world.operator.actor, **options)
    run_jobs()
    row.refresh_from_db()
    return row


def on_replay(world: World, row: Replay, rest: str, api: Api | None = None) -> Any:
    return (api or world.operator.api).get(world.path(rest=f"/replays/{row.pk}{rest}"))


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


def test_files_are_listed_and_downloaded_as_attachments(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    listed = get(world, artifact, "/files").json()["results"]
    file = get(world, artifact, "/files?path=journal/quotes_in.bin")

    content = b"".join(file.streaming_content)
    assert content == journal()
    found = {each["path"]: (each["size"], each["sha256"]) for each in listed}
    assert found["journal/quotes_in.bin"] == (len(content), "sha256:" + hashlib.sha256(content).hexdigest())
    assert "spec.kv" in found
    assert file["Content-Type"] == "application/octet-stream"
    assert file["Content-Disposition"] == f'attachment; filename="{artifact.pk}.bin"'


@pytest.mark.parametrize("path", ["../list.json", "/etc/passwd", "journal", "journal/../spec.kv", "nothing"])
def test_unlisted_paths_are_not_found(world: World, path: str) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))

    assert code(get(world, artifact, f"/files?path={path}")) == (404, "not_found")


def test_journal_is_read_in_pages(world: World) -> None:
    records = [Record(sequence, 1_700_000_000_000_000_000 + sequence, b"%d" % sequence) for sequence in (3, 1, 2)]
    records.append(Record(4, 1_700_000_000_000_000_000, b"\xff" * 70_000))
    artifact = ingested(world, incident(world.version().spec_kv, quotes_in=encode_journal(records)))

    def page(query: str) -> Any:
        body = get(world, artifact, f"/journal/quotes_in?{query}").json()
        assert (body["lane"], body["total"]) == ("quotes_in", 4)
        return [each["sequence"] for each in body["results"]], body["next_after"]

    assert page("limit=2") == ([1, 2], 1)
    assert page("limit=2&after=1") == ([3, 4], None)
    assert page("sequence=3") == ([3, 4], None)
    assert page("time=2023-11-14T22:13:20Z&limit=1") == ([1], 0)
    assert page("after=9") == ([], None)
    first, *_, last = get(world, artifact, "/journal/quotes_in").json()["results"]
    assert first == {
        "position": 0, "sequence": 1, "time": "2023-11-14T22:13:20.000000001Z", "size": 1, "json": 1,
        "payload_base64": None, "truncated": False,
    }  # fmt: skip
    assert (last["json"], last["size"], last["truncated"]) == (None, 70_000, True)
    assert base64.b64decode(last["payload_base64"]) == b"\xff" * 65_536


def test_64_bit_sequence_numbers_are_found_in_journal_and_trace(world: World) -> None:
    last = 2**64 - 1
    records = [Record(at, 1_700_000_000_000_000_000, b"%d" % at) for at in (2**63 - 1, 2**63, last)]
    artifact = ingested(world, incident(world.version(content=IDENTITY).spec_kv, quotes_in=encode_journal(records)))
    row = replayed(world, artifact)

    page = get(world, artifact, f"/journal/quotes_in?sequence={2**63}").json()
    traced = on_replay(world, row, f"/trace?sequence={last}").json()

    assert [each["sequence"] for each in page["results"]] == [2**63, last]
    assert [each["position"] for each in traced["records"]] == [2]
    assert code(get(world, artifact, f"/journal/quotes_in?sequence={2**64}")) == (400, "invalid")


def test_journal_record_includes_base64_payload_if_json_would_change_its_digits(world: World) -> None:
    payloads = [b"0.30000000000000000001", b"1.10", b"0.5"]
    artifact = ingested(world, incident(world.version().spec_kv, quotes_in=journal(payloads)))

    page = get(world, artifact, "/journal/quotes_in").json()

    found = [each["payload_base64"] and base64.b64decode(each["payload_base64"]) for each in page["results"]]
    assert found == [*payloads[:2], None]
    shown = signed_in(world.operator.user).get(row_page(artifact)).content.decode()
    assert re.findall('<code class="payload">([^<]*)', shown)[:3] == [each.decode() for each in payloads]


def test_journal_page_of_unknown_lane_or_with_two_starting_points_is_refused(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))

    assert code(get(world, artifact, "/journal/nothing")) == (404, "not_found")
    assert code(get(world, artifact, "/journal/..%2Fspec")) == (404, "not_found")
    response = get(world, artifact, "/journal/quotes_in?after=1&sequence=1")
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "sequence")


def test_journal_with_corrupt_first_record_cannot_be_read(world: World) -> None:
    broken = bytearray(journal())
    broken[40] ^= 1
    artifact = ingested(world, incident(world.version().spec_kv, quotes_in=bytes(broken)))

    assert artifact.status == "verified"
    assert code(get(world, artifact, "/journal/quotes_in")) == (409, "journal.broken")


def test_capture_folder_with_stale_index_is_rebuilt_for_next_request(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    indexes_of(kept_folder(artifact))["quotes_in"].write_bytes(b"old")
    assert get(world, artifact, "/journal/quotes_in").status_code == 503

    response = get(world, artifact, "/journal/quotes_in")

    assert [each["json"] for each in response.json()["results"]] == [json.loads(each) for each in PAYLOADS]


def test_reading_capture_returns_503_if_unpacking_is_busy_or_times_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    derived.delete(artifact)

    with captures._builds:
        busy = get(world, artifact, "/files")
    with monkeypatch.context() as patch:
        patch.setattr(captures, "BUILD_S", 0.0)
        slow = get(world, artifact, "/files")

    assert [code(each) for each in (busy, slow)] == [(503, "unavailable")] * 2
    assert "Retry-After" in busy
    assert folders.list_folders() == []
    assert get(world, artifact, "/files").status_code == 200


def test_listing_files_returns_404_if_capture_is_missing_and_409_if_unreadable(world: World) -> None:
    spec = world.version().spec_kv
    gone = ingested(world, incident(spec))
    odd = ingested(world, incident(spec, quotes_in=journal([b"{}"])))
    for artifact in (gone, odd):
        derived.delete(artifact)
    blobs.delete(gone.content_hash)
    Path(settings.STORAGES["default"]["OPTIONS"]["location"], blobs.storage_name(odd.content_hash)).write_bytes(b"odd")

    assert code(get(world, gone, "/files")) == (404, "not_found")
    assert code(get(world, odd, "/files")) == (409, "not_readable")


def test_listing_files_of_telemetry_artifact_returns_409(world: World) -> None:
    agent, api = world.agent()
    upload(api, agent)
    run_jobs()

    assert code(get(world, Artifact.objects.get(), "/files")) == (409, "not_readable")


@pytest.mark.parametrize("rest", ["/files", "/journal/quotes_in"])
def test_viewers_cannot_list_files_or_read_journals_of_capture(world: World, rest: str) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))

    assert code(get(world, artifact, rest, world.viewer.api)) == (403, "forbidden")


# -- traces


def test_trace_shows_steps_of_kept_and_dropped_records(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv, stage_config=CHECK))
    row = replayed(world, artifact)

    (kept,) = on_replay(world, row, "/trace?sequence=1").json()["records"]
    (dropped,) = on_replay(world, row, "/trace?sequence=2&ingress=quotes_in").json()["records"]

    assert (kept["ingress"], kept["position"], kept["egress"]) == ("quotes_in", 0, ["quotes_out"])
    assert kept["steps"][0]["json"] == json.loads(PAYLOADS[0])
    assert dropped["steps"][-1]["dropped"] == "schema"
    assert code(on_replay(world, row, "/trace?sequence=9")) == (404, "not_found")
    assert code(on_replay(world, row, "/trace?sequence=1&ingress=nothing")) == (409, "trace.refused")
    assert code(on_replay(world, row, "/trace?sequence=1", world.viewer.api)) == (403, "forbidden")


def test_after_parameter_continues_trace_and_file_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    row = replayed(world, artifact)
    steps = on_replay(world, row, "/trace?sequence=1").json()["records"][0]["steps"]
    files = get(world, artifact, "/files").json()["results"]
    monkeypatch.setattr(captures, "MAX_BYTES", 300)

    rest = on_replay(world, row, "/trace?sequence=1&after=0").json()
    end = on_replay(world, row, f"/trace?sequence=1&after={len(steps)}")
    first = get(world, artifact, "/files").json()
    second = get(world, artifact, f"/files?after={first['next_after']}").json()

    assert (rest["records"][0]["steps"], rest["truncated"], rest["next_after"]) == (steps[1:], False, None)
    assert (end.status_code, end.json()["records"]) == (200, [])
    assert (first["truncated"], first["next_after"]) == (True, first["results"][-1]["path"])
    shown = len(first["results"]) + len(second["results"])
    assert first["results"] + second["results"] == files[:shown]
    assert 2 <= shown < len(files)


def test_slow_trace_returns_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    row = replayed(world, artifact)
    monkeypatch.setattr(captures, "TRACE_S", 0.0)

    response = on_replay(world, row, "/trace?sequence=1")

    assert code(response) == (503, "unavailable")
    assert "Retry-After" in response


def test_trace_returns_503_if_its_process_dies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    row = replayed(world, artifact)

    def died(*_: Any, **__: Any) -> None:
        raise children.ChildDied("killed")

    monkeypatch.setattr(children, "run_in_child", died)

    assert code(on_replay(world, row, "/trace?sequence=1")) == (503, "unavailable")


# -- comparisons


def test_comparison_reports_equal_and_different_replays(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))
    one, two = replayed(world, artifact), replayed(world, artifact)
    checked = replayed(world, artifact, config_bundle=world.bundle(version=version, stage_config=CHECK))

    equal = on_replay(world, one, f"/compare?with={two.pk}").json()
    different = on_replay(world, one, f"/compare?with={checked.pk}").json()

    assert (equal["equal"], equal["first_difference"]) == (True, None)
    assert different["equal"] is False
    assert different["egress"]["quotes_out"]["records"] == [3, 2]
    first = different["first_difference"]
    assert (first["egress"], first["sequence"], first["kind"], first["pointers"]) == ("quotes_out", 2, "missing", [])


def test_replays_of_different_records_cannot_be_compared(world: World) -> None:
    spec = world.version().spec_kv
    artifact = ingested(world, incident(spec))
    one, last = replayed(world, artifact), replayed(world, artifact, last_n=1)
    other = replayed(world, ingested(world, incident(spec, quotes_in=journal([b"{}"]))))
    queued = replays.request(artifact, environment=world.dev, actor=world.operator.actor)

    for row in (last, other):
        assert code(on_replay(world, one, f"/compare?with={row.pk}")) == (409, "compare.different_input")
    assert code(on_replay(world, one, f"/compare?with={queued.pk}")) == (409, "compare.not_ended")
    assert code(on_replay(world, one, f"/compare?with={uuid7()}")) == (404, "not_found")


def test_viewers_see_neither_bytes_nor_members_of_divergence(world: World) -> None:
    spec = world.version(content=IDENTITY).spec_kv
    row = replayed(world, ingested(world, incident(spec, expected=frames((1, b'{"id":1,"card":null}')))))

    def shown() -> list[Any]:
        apis = world.operator.api, world.viewer.api
        return [on_replay(world, row, "", api).json()["result"]["divergence"] for api in apis]

    read, hidden = shown()

    assert (read["kind"], read["pointers"]) == ("changed", ["/card"])
    assert read["diff"] is not None
    assert hidden == {**read, "diff": None, "pointers": None}
    del row.result["divergence"]["pointers"]  # as stored by earlier releases
    row.save()
    assert shown() == [{**read, "pointers": None}, hidden]
