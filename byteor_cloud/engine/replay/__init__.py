"""Deterministic replay of incident bundles, and the ops that it runs.

Nothing here depends on a clock, randomness or the environment. The only I/O is on files and folders that the caller
passes.
"""

from byteor_cloud.engine.replay.bisect import (
    BisectOutcome,
    BisectPlan,
    Predicate,
    Verdict,
    judge,
    max_replays,
    plan_bisect,
)
from byteor_cloud.engine.replay.compare import compare
from byteor_cloud.engine.replay.dataguard import ParamError, check_params
from byteor_cloud.engine.replay.gate import Gate
from byteor_cloud.engine.replay.incident import (
    ArchiveLimits,
    IncidentBundle,
    RejectedBundle,
    RejectionReason,
    build_incident,
    extract_incident,
    file_digests,
    validate_incident,
)
from byteor_cloud.engine.replay.inputs import BadInput
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
from byteor_cloud.engine.replay.journal_index import JournalIndex, JournalScan, StaleIndex, ensure_index, index_file
from byteor_cloud.engine.replay.pages import journal_page
from byteor_cloud.engine.replay.parameters import (
    NO_PARAMETERS,
    choose_parameters,
    parameters_of_replay,
    stages_without_parameters,
    transfer_parameters,
    unchecked_stages,
)
from byteor_cloud.engine.replay.replay import (
    Cancelled,
    ErrorCode,
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
from byteor_cloud.engine.replay.trace import trace
from byteor_cloud.engine.replay.work import LimitCode

__all__ = [
    "NO_PARAMETERS",
    "ArchiveLimits",
    "BadInput",
    "BadJournal",
    "BisectOutcome",
    "BisectPlan",
    "Cancelled",
    "Decision",
    "DryRun",
    "EffectFailed",
    "Effects",
    "ErrorCode",
    "Frame",
    "Gate",
    "IncidentBundle",
    "JournalIndex",
    "JournalReader",
    "JournalScan",
    "LimitCode",
    "OutcomeStatus",
    "ParamError",
    "PipelineRunner",
    "Predicate",
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
    "StaleIndex",
    "Unsupported",
    "Verdict",
    "build_incident",
    "check_params",
    "choose_parameters",
    "compare",
    "encode_frame",
    "encode_journal",
    "ensure_index",
    "extract_incident",
    "file_digests",
    "frames_digest",
    "index_file",
    "journal_page",
    "judge",
    "max_replays",
    "parameters_of_replay",
    "plan_bisect",
    "read_frames",
    "replay",
    "run_pipeline",
    "stages_without_parameters",
    "trace",
    "transfer_parameters",
    "unchecked_stages",
    "validate_incident",
]
