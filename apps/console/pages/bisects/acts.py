"""The act that searches a pipeline's versions for the first bad one, for an artifact and for its replays."""

from __future__ import annotations

from dataclasses import replace

from apps.artifacts.api import commands
from apps.artifacts.services import bisects
from apps.console.frame import Act
from apps.console.frame.acts import permitted_by
from apps.console.frame.forms import ActForm

BISECT = Act.of(
    commands.bisect,
    label="Bisect",
    done="{} requested",
    explain="Find the first bad version of this pipeline. If the capture has expected output, a version is bad in two "
    "cases: its output differs, or a stage fails and the recording does not contain this failure. Without expected "
    "output, a version is bad if a stage fails.",
    run=lambda row, context: bisects.request_default(row, actor=context.actor),
    form=ActForm,
    icon="search_insights",
    applies=permitted_by(bisects.check_default),
)
BISECT_ARTIFACT = replace(
    BISECT,
    run=lambda row, context: bisects.request_default(row.artifact, actor=context.actor),
    applies=permitted_by(lambda row: bisects.check_default(row.artifact)),
)
