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
            "same kind, spec hash and deployment returns the existing artifact (200).",
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
    },
)
