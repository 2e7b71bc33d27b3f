"""Chooses the parameters of the stages in a replay, and finds the stages without any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from byteor.engine.compiler import PipelineSpec, split_op
from byteor.engine.replay import dataguard
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import BadInput

NO_PARAMETERS: Final = "no_parameters"
"""The code of the note and of the warning about a stage without parameters."""
_OPS_WITH_PARAMETERS = dataguard.OPS | {"filter", "json_map", "json_select", "sample"}


def stages_without_parameters(
    stages: Iterable[tuple[str, str]], stage_config: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """Return the id and op of each stage that passes every record because its op lacks parameters."""
    given = stage_config or {}
    return [(id, op) for id, op in stages if split_op(op)[0] in _OPS_WITH_PARAMETERS and not given.get(id)]


def unchecked_stages(result: Mapping[str, Any] | None) -> list[str]:
    """Return the ids of the stages that lacked parameters in the replay with this result."""
    return [note["name"] for note in (result or {}).get("notes", []) if note["code"] == NO_PARAMETERS]


def choose_parameters(
    captured: PipelineSpec,
    recorded: Mapping[str, Any] | None,
    spec: PipelineSpec,
    fallback: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the parameters of the stages of ``spec``, by stage id. Stages without parameters may be left out.

    A stage uses its ``recorded`` parameters if it has any and the captured pipeline has a stage with the same id and
    op, and otherwise those in ``fallback``. An empty object means no parameters.
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

    Returns None if the op of a stage with recorded parameters differs in the other version. That version then cannot be
    tested with these parameters.
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

    - With ``overrides``, ``stage_config`` is returned, and the other arguments are ignored. Without it, the recorded
      parameters are used: those of the bundle, or ``stage_config`` if the bundle has no ``runtime_config.json``.
    - With ``only_fitting``, raise BadInput unless the recorded parameters fit ``spec`` (see ``transfer_parameters``).
    - Without ``overrides`` and ``only_fitting``, ``fallback`` provides parameters for the stages that cannot use
      recorded ones (see ``choose_parameters``).
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
