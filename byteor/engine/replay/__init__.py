"""Incident bundles and their journals, deterministic replays, traces and bisects, and the ops that replays run.

Nothing here depends on a clock, randomness or the environment. The only I/O is on temporary files, and on files and
folders that the caller passes.
"""

from byteor.engine.replay.bisect import (
    BisectOutcome,
    BisectPlan,
    Predicate,
    Verdict,
    judge,
    max_replays,
    plan_bisect,
)
from byteor.engine.replay.compare import compare
from byteor.engine.replay.dataguard import ParamError, check_params
from byteor.engine.replay.incident import (
    ArchiveLimits,
    IncidentBundle,
    RejectedBundle,
    RejectionReason,
    build_incident,
    extract_incident,
    file_digests,
    validate_incident,
)
from byteor.engine.replay.inputs import BadInput
from byteor.engine.replay.journal import (
    BadJournal,
    Frame,
    JournalReader,
    Record,
    encode_frame,
    encode_journal,
    frames_digest,
    read_frames,
)
from byteor.engine.replay.journal_index import JournalIndex, JournalScan, StaleIndex, ensure_index, index_file
from byteor.engine.replay.journal_pages import journal_page
from byteor.engine.replay.parameters import (
    NO_PARAMETERS,
    choose_parameters,
    parameters_of_replay,
    stages_without_parameters,
    transfer_parameters,
    unchecked_stages,
)
from byteor.engine.replay.replay import (
    Cancelled,
    ErrorCode,
    OutcomeStatus,
    Progress,
    ReplayLimits,
    ReplayMode,
    ReplayOutcome,
    replay,
)
from byteor.engine.replay.runner import PipelineRunner, RunResult, run_pipeline
from byteor.engine.replay.side_effects import SideEffectPolicy
from byteor.engine.replay.stages import (
    Decision,
    DryRun,
    EffectFailed,
    Effects,
    StageError,
    StageFunction,
    Unsupported,
)
from byteor.engine.replay.trace import trace
from byteor.engine.replay.work import LimitCode

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
    "SideEffectPolicy",
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
