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
from byteor.engine.replay.inputs import BadInput, Progress
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
from byteor.engine.replay.journal_index import JournalIndex, JournalScan, StaleIndex, index_file
from byteor.engine.replay.journal_pages import journal_page
from byteor.engine.replay.op_reference import OpReference, find_reference, reference_of
from byteor.engine.replay.parameters import (
    NO_PARAMETERS,
    choose_parameters,
    parameters_of_replay,
    stages_without_parameters,
    transfer_parameters,
    unchecked_stages,
)
from byteor.engine.replay.reduction import reduce_incident
from byteor.engine.replay.replay import (
    Cancelled,
    ErrorCode,
    OutcomeStatus,
    ReplayLimits,
    ReplayMode,
    ReplayOutcome,
    replay,
)
from byteor.engine.replay.runner import PipelineRunner, RunResult, run_pipeline
from byteor.engine.replay.side_effects import SideEffectPolicy
from byteor.engine.replay.side_run import Side
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
from byteor.engine.replay.verdicts import FixtureOutcome, Golden, Judgment, Result, Selected, judge_fixture, run_fixture
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
    "FixtureOutcome",
    "Frame",
    "Golden",
    "IncidentBundle",
    "JournalIndex",
    "JournalReader",
    "JournalScan",
    "Judgment",
    "LimitCode",
    "OpReference",
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
    "Result",
    "RunResult",
    "Selected",
    "Side",
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
    "extract_incident",
    "file_digests",
    "find_reference",
    "frames_digest",
    "index_file",
    "journal_page",
    "judge",
    "judge_fixture",
    "max_replays",
    "parameters_of_replay",
    "plan_bisect",
    "read_frames",
    "reduce_incident",
    "reference_of",
    "replay",
    "run_fixture",
    "run_pipeline",
    "stages_without_parameters",
    "trace",
    "transfer_parameters",
    "unchecked_stages",
    "validate_incident",
]
