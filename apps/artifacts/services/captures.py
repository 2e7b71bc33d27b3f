"""Read captures: their files, pages of their journals, and the trace of a record. Compare replays."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, BinaryIO

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children, derived, folders
from apps.artifacts.services.replay_runs import child_request
from byteor.engine.machines import ArtifactStatus, ReplayStatus
from byteor.engine.replay import RejectedBundle, StaleIndex
from byteor.engine.replay.trace import MAX_BYTES as MAX_TRACE_BYTES
from byteor_cloud.captures.files import indexes_of, listed_files, size_of
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.concurrency.offload import run_in_disk_thread
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import Conflict, NotFound, Unavailable
from byteor_cloud.storage import blobs, data_folders

TRACE_S = 10.0  # timeout of a trace, in seconds
MAX_BYTES = 3 * 1024 * 1024  # size limit of the JSON of a page of files
BUILD_S = 60.0  # timeout for unpacking a capture, in seconds


def check_readable(artifact: Artifact) -> None:
    """Raise Conflict unless the artifact is a verified incident bundle."""
    if artifact.kind != Artifact.Kind.INCIDENT_BUNDLE or artifact.status != ArtifactStatus.VERIFIED:
        raise Conflict(
            f"Only verified incident bundles have files and journals. "
            f"This artifact has the kind {artifact.kind} and the status {artifact.status}.",
            code="not_readable",
        )


def _open_folder(artifact: Artifact) -> Path:
    """Return the folder derived from the artifact; build it if it is missing.

    Raises Conflict, NotFound, Unavailable or OSError. After an Unavailable error, later calls with the same object
    raise the error again without another attempt.
    """
    check_readable(artifact)
    if artifact.unreadable is not None:
        raise artifact.unreadable
    if (folder := folders.find(artifact.environment.project.organization_id, artifact.pk)) is not None:
        return folder
    try:
        return _build(artifact)
    except Unavailable as error:
        artifact.unreadable = error
        raise


def _read[T](artifact: Artifact, read: Callable[[Path], T]) -> T:
    """Call ``read`` with the folder derived from the artifact. If files in it are missing, rebuild the folder once."""
    try:
        return read(_open_folder(artifact))
    except FileNotFoundError:  # another process deleted the folder, or somebody deleted a file in it
        derived.delete(artifact)
    try:
        return read(_open_folder(artifact))
    except FileNotFoundError as error:  # deleted again, probably to make room for other folders
        raise Unavailable("The unpacked capture was deleted during the request. Try again.", retry_after=2) from error


_builds = threading.Lock()


def _build(artifact: Artifact) -> Path:
    """Build the folder in a child process.

    Raises Conflict, NotFound, OSError, or Unavailable (also during another build).
    """
    if not _builds.acquire(blocking=False):
        raise Unavailable("A capture is already being unpacked. Try again soon.", retry_after=2)
    release_connection()
    try:
        with data_folders.scratch_folder() as scratch:
            archive, capture = scratch / "archive", scratch / "capture"
            capture.mkdir()
            blobs.copy_to(artifact.content_hash, archive)
            request = {"kind": "build", "archive": str(archive), "folder": str(capture)}
            children.run_in_child(request, scratch=scratch, silence_s=BUILD_S)
            kept = derived.keep(artifact, capture, run_in_disk_thread(size_of, capture))
    except FileNotFoundError as error:
        detail = "The server's temporary files were deleted during the request. Try again."
        raise Unavailable(detail, retry_after=1) from error
    except (children.Refused, RejectedBundle) as rejected:
        raise Conflict(f"The capture can no longer be read: {rejected}.", code="not_readable") from None
    except (children.ChildDied, children.TookTooLong) as error:
        raise Unavailable("The capture could not be unpacked. Try again later.", retry_after=10) from error
    finally:
        _builds.release()
    if kept is None:
        raise Unavailable("The server's space for unpacked captures is in use. Try again later.", retry_after=60)
    return kept


def list_files(artifact: Artifact) -> list[dict[str, Any]]:
    """Return the path, size and SHA-256 of each file in the capture, in path order.

    Raises Conflict, NotFound, Unavailable or OSError.
    """
    return _read(artifact, lambda capture: run_in_disk_thread(listed_files, capture))


def page_of_files(artifact: Artifact, after: str) -> dict[str, Any]:
    """Return one page of the files that follow the path ``after``."""
    listed = list_files(artifact)
    first = bisect_right(listed, after.split("/"), key=lambda each: each["path"].split("/")) if after else 0
    sizes = accumulate(len(json.dumps(each)) for each in listed[first:])
    page = [each for each, size in zip(listed[first:], takewhile(MAX_BYTES.__gt__, sizes), strict=False)]
    is_cut = first + len(page) < len(listed)
    return {"results": page, "truncated": is_cut, "next_after": page[-1]["path"] if is_cut else None}


def has_expected(artifact: Artifact) -> bool:
    """Return whether the capture has expected output to compare a replay with."""
    return any(each["path"].startswith("expected/") for each in list_files(artifact))


def open_file(artifact: Artifact, path: str) -> BinaryIO:
    """Open a file of the capture.

    Raises NotFound (also if the path is not listed), Conflict, Unavailable or OSError.
    """
    if not any(each["path"] == path for each in list_files(artifact)):
        raise NotFound("The capture has no file with this path.")
    return _read(artifact, lambda capture: (capture / "files" / path).open("rb"))


def read_journal[R](
    artifact: Artifact,
    lane: str,
    read: Callable[..., R],
    *,
    time: datetime | None = None,
    compute: Compute = here,
    **options: Any,
) -> R:
    """Return a page of a journal, in the form that ``read`` (``read_page`` or ``page_body``) returns.

    Raises NotFound if there is no such journal, Conflict if it is broken or the capture is not readable, and
    NotStored, Unavailable or OSError if the capture or its index is not available now.
    """
    names = {each["path"] for each in list_files(artifact)}
    if f"journal/{lane}.bin" not in names:
        raise NotFound("The capture has no journal of this lane.")
    unix_ns = None if time is None else max(0, round(time.timestamp() * 1_000_000) * 1_000)

    def read_in(capture: Path) -> R:
        if (index := indexes_of(capture).get(lane)) is None:
            detail = "The journal is broken, so its records cannot be listed. Download the journal's file instead."
            raise Conflict(detail, code="journal.broken")
        journal = capture / "files/journal" / f"{lane}.bin"
        return compute(read, str(journal), str(index), lane, unix_ns=unix_ns, **options)

    try:
        return _read(artifact, read_in)
    except StaleIndex:
        derived.delete(artifact)
        raise Unavailable("The index of this journal must be rebuilt. Try again soon.", retry_after=1) from None


def trace_record(
    replay: Replay,
    sequence: int,
    ingress: str | None = None,
    *,
    after: int | None = None,
    max_bytes: int = MAX_TRACE_BYTES,
    slot: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> bytes:
    """Return a response body with the steps of the records that have this sequence number in the replay.

    ``after`` and ``max_bytes`` select a page, as in ``byteor.engine.replay.trace``. The trace is
    computed inside ``slot()``, which waits until this process may compute. Raises NotFound, Conflict, Unavailable
    or OSError.
    """
    request = child_request(replay)
    capture, indexes = _read(replay.artifact, lambda capture: (capture, indexes_of(capture)))
    request |= {
        "kind": "trace",
        "folder": str(capture / "files"),
        "indexes": {lane: str(path) for lane, path in indexes.items()},
        "sequence": sequence,
        "ingress": ingress or replay.journal_lane,
        "after": after,
        "max_bytes": max_bytes,
    }
    release_connection()
    with slot(), data_folders.scratch_folder() as scratch:
        try:
            found: bytes = children.run_in_child(request, scratch=scratch, readable=[capture], silence_s=TRACE_S)
        except children.Refused as refused:
            raise Conflict(f"The record cannot be traced: {refused}.", code="trace.refused") from None
        except children.ChildDied as died:
            raise Unavailable("The trace stopped unexpectedly. Try again.", retry_after=5) from died
        except children.TookTooLong:
            raise Unavailable(f"The trace took longer than {TRACE_S:g} s. Try again.", retry_after=5) from None
    if not found:
        raise NotFound("No record with this sequence number is in the journals that were searched.")
    return found


def compare_replays[R](one: Replay, other: Replay, compare: Callable[..., R], *, compute: Compute = here) -> R:
    """Return the differences between the results of two replays of the same records.

    The differences have the form that ``compare`` (``compare_with_members`` or ``compare_body``) returns. Raises
    Conflict if the replays cannot be compared.
    """
    for row in (one, other):
        if row.status not in {ReplayStatus.SUCCEEDED, ReplayStatus.DIVERGED, ReplayStatus.FAILED} or row.result is None:
            raise Conflict("Only replays that have a result can be compared.", code="compare.not_ended")
    if (one.artifact_id, one.journal_lane, one.last_n) != (other.artifact_id, other.journal_lane, other.last_n):
        detail = "The replays are of different records. Choose two with the same artifact, `journal_lane` and `last_n`."
        raise Conflict(detail, code="compare.different_input")
    sides = {"a": one, "b": other}
    options = {f"actions_{side}": (row.audit or {}).get("actions", []) for side, row in sides.items()}
    options |= {f"frames_{side}": row.stored_frames() for side, row in sides.items()}
    return compute(compare, one.result, other.result, **options)
