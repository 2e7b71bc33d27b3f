"""Names and descriptions of the artifact and replay operations in the OpenAPI document."""

from __future__ import annotations

from byteor_cloud.api.operations import Operation, Operations, Tag

UPLOAD = Operations(
    Tag.AGENTS,
    {
        "create": Operation(
            "uploadArtifact",
            "Upload an artifact",
            "Called by an agent to upload an incident capture or telemetry. Uploading the same content again with the "
            "same kind, spec hash and deployment returns the existing artifact (200). If its check failed without a "
            "result (`check_failed` in `reasons`), it is checked again. A new artifact that would exceed a quota of "
            "the organization is not stored, and refused with `quota.stored_bytes` or, if it is an incident bundle, "
            "`quota.captures_per_day`.",
            example={"kind": "telemetry", "captured_at": "2026-11-24T12:00:00Z", "file": "…"},
        ),
    },
)
ARTIFACT = Operations(
    Tag.ARTIFACTS,
    {
        "list": Operation(
            "listArtifacts",
            "List artifacts",
            "Returns the artifacts that the environment's agents uploaded, newest first.",
        ),
        "retrieve": Operation(
            "getArtifact",
            "Get an artifact",
            "Returns one artifact with the result of its check.",
        ),
        "content": Operation(
            "downloadArtifact",
            "Download an artifact",
            "Returns the bytes as they were uploaded.",
        ),
        "replay": Operation(
            "replayArtifact",
            "Replay an artifact",
            "Runs a verified incident bundle through a version again. By default this is a dry run. `execute` also "
            "performs the side effects that the environment's policy, an approval and the server's allowlists permit. "
            "Refused with 422 if no version has the artifact's spec hash.",
            example={"mode": "dry_run"},
        ),
        "bisect": Operation(
            "bisectArtifact",
            "Bisect an artifact",
            "Searches the versions of a pipeline for the first that a verified incident bundle shows as bad. By "
            "default only the two ends and some versions between them are replayed; `exhaustive` replays all.",
            example={"predicate": "fails"},
        ),
    },
)
CAPTURE = Operations(
    Tag.ARTIFACTS,
    {
        "files": Operation(
            "listArtifactFiles",
            "List or download the files of an artifact",
            "Returns path, size and SHA-256 of each file of a verified incident bundle. With `path` it returns the "
            "bytes of one file as an attachment. A list of more than 4 MiB is cut; `after` continues it.",
        ),
        "journal": Operation(
            "readArtifactJournal",
            "Read a journal of an artifact",
            "Returns a page of the records of a lane, in sequence order. It begins after the position `after`, or at "
            "the first record with at least this `sequence`, or at this `time` or later. A page of more than 4 MiB "
            "ends early.",
        ),
    },
)
BISECT = Operations(
    Tag.ARTIFACTS,
    {
        "list": Operation("listBisects", "List bisects", "Returns the environment's bisects, newest first."),
        "retrieve": Operation(
            "getBisect",
            "Get a bisect",
            "Returns the bisect with the verdicts so far, and its outcome once it has ended.",
        ),
    },
)
REPLAY = Operations(
    Tag.ARTIFACTS,
    {
        "list": Operation(
            "listReplays",
            "List replays",
            "Returns the environment's replays, newest first.",
        ),
        "retrieve": Operation(
            "getReplay",
            "Get a replay",
            "Returns the replay with its result, once it has ended.",
        ),
        "cancel": Operation(
            "cancelReplay",
            "Cancel a replay",
            "Ends a queued or running dry run as `failed` with the error code `cancelled`.",
            example={"reason": "The wrong version was chosen."},
        ),
        "compare": Operation(
            "compareReplays",
            "Compare two replays",
            "Says where the results of two replays of the same records differ. In each pair the replay of the URL is "
            "first and the one in `with` second. A response of more than 4 MiB leaves out parts that are equal.",
        ),
        "trace": Operation(
            "traceRecord",
            "Trace a record of a replay",
            "Says what a record became at each stage and lane, why it was dropped, and which side effects it reached. "
            "Returns at most 4 MiB; `after` continues the trace. The trace is recomputed for each request, and 503 is "
            "returned if that takes longer than 10 s.",
        ),
    },
)
