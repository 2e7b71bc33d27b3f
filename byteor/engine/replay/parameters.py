"""Which parameters the stages of a replay take, and which stages are left without any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from byteor.engine.compiler import PipelineSpec, split_op
from byteor.engine.replay import dataguard
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import BadInput

NO_PARAMETERS: Final = "no_parameters"
"""The code of the note and of the warning that name a stage without parameters."""
_MEANT_TO_HAVE_SOME = dataguard.OPS | {"filter", "json_map", "json_select", "sample"}


def stages_without_parameters(
    stages: Iterable[tuple[str, str]], stage_config: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """Return id and op of the stages that let every record pass because their op has no parameters, in their order."""
    given = stage_config or {}
    return [(id, op) for id, op in stages if split_op(op)[0] in _MEANT_TO_HAVE_SOME and not given.get(id)]


def unchecked_stages(result: Mapping[str, Any] | None) -> list[str]:
    """Return the ids of the stages that had no parameters in a replay with this result."""
    return [note["name"] for note in (result or {}).get("notes", []) if note["code"] == NO_PARAMETERS]


def choose_parameters(
    captured: PipelineSpec,
    recorded: Mapping[str, Any] | None,
    spec: PipelineSpec,
    fallback: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the parameters of each stage of ``spec`` that takes some.

    A stage takes the ``recorded`` parameters if a stage of equal id and op had some in the captured pipeline, else
    those of ``fallback``. An empty object means no parameters.
    """
    then = dict(captured.stages)
    chosen = {}
    for id, op in spec.stages:
        own = (recorded or {}).get(id) if then.get(id) == op else None
        params = own or (fallback or {}).get(id) or own
        if params is not None:
            chosen[id] = params
    return chosen


def transfer_parameters(
    captured: PipelineSpec, recorded: Mapping[str, Any] | None, spec: PipelineSpec
) -> dict[str, Any] | None:
    """Return the recorded parameters for the stages of another version that have the same id and op.

    Returns None if they do not fit, so that the version is untestable: a stage that has parameters has another op.
    """
    then, now = dict(captured.stages), dict(spec.stages)
    if any(params and id in now and then.get(id) != now[id] for id, params in (recorded or {}).items()):
        return None
    return choose_parameters(captured, recorded, spec)


def parameters_of_replay(
    bundle: IncidentBundle,
    spec: PipelineSpec,
    *,
    stage_config: Mapping[str, Any] | None = None,
    overrides: bool = False,
    only_fitting: bool = False,
    fallback: Mapping[str, Any] | None = None,
) -> Mapping[str, Any] | None:
    """Return the parameters with which ``spec`` replays the bundle.

    - ``stage_config`` is used alone if it ``overrides``. Otherwise it replaces the bundle's own if there are none.
    - ``only_fitting``: the recorded parameters must fit the version (see ``transfer_parameters``), else BadInput.
    - ``fallback`` is for stages without recorded parameters.
    """
    if overrides:
        return stage_config
    recorded = stage_config if bundle.stage_config is None else bundle.stage_config
    if not only_fitting:
        return choose_parameters(bundle.spec, recorded, spec, fallback)
    fitting = transfer_parameters(bundle.spec, recorded, spec)
    if fitting is None:
        raise BadInput("the captured parameters do not fit this version")
    return fitting
