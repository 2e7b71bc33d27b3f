"""Deterministic replay of incident bundles, and the ops that it runs.

Nothing here depends on a clock, randomness or the environment. The only I/O is on files and folders that the caller
passes.
"""

from byteor_cloud.engine.replay.dataguard import ParamError, check_params
from byteor_cloud.engine.replay.gate import Gate
from byteor_cloud.engine.replay.incident import (
    IncidentBundle,
    RejectedBundle,
    RejectionReason,
    build_incident,
    extract_incident,
    validate_incident,
)
from byteor_cloud.engine.replay.journal import (
    BadJournal,
    Frame,
    JournalReader,
    Record,
    encode_frame,
    encode_journal,
    frames_digest,
    read_frames,
)
from byteor_cloud.engine.replay.replay import (
    Cancelled,
    OutcomeStatus,
    Progress,
    ReplayLimits,
    ReplayMode,
    ReplayOutcome,
    replay,
)
from byteor_cloud.engine.replay.runner import PipelineRunner, RunResult, run_pipeline
from byteor_cloud.engine.replay.stages import (
    Decision,
    DryRun,
    EffectFailed,
    Effects,
    StageError,
    StageFunction,
    Unsupported,
)

__all__ = [
    "BadJournal",
    "Cancelled",
    "Decision",
    "DryRun",
    "EffectFailed",
    "Effects",
    "Frame",
    "Gate",
    "IncidentBundle",
    "JournalReader",
    "OutcomeStatus",
    "ParamError",
    "PipelineRunner",
    "Progress",
    "Record",
    "RejectedBundle",
    "RejectionReason",
    "ReplayLimits",
    "ReplayMode",
    "ReplayOutcome",
    "RunResult",
    "StageError",
    "StageFunction",
    "Unsupported",
    "build_incident",
    "check_params",
    "encode_frame",
    "encode_journal",
    "extract_incident",
    "frames_digest",
    "read_frames",
    "replay",
    "run_pipeline",
    "validate_incident",
]
