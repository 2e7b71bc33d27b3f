"""What schemathesis loads: the credential of each security scheme, and ids of rows that are there.

BYTEOR_FUZZ_WORLD names the file that ``tests.fuzz.world`` wrote.
"""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core import NotSet
from schemathesis.core.failures import AcceptedNegativeData

WORLD = json.loads(Path(os.environ["BYTEOR_FUZZ_WORLD"]).read_text())
_ID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# A case is about what happens to a row that exists more often than not.
SHARE_OF_REAL_IDS = 0.9
# Ids in bodies and queries, by name.
_SEGMENTS = {
    "version_id": "versions",
    "from_version_id": "versions",
    "against": "versions",
    "config_bundle_id": "config-bundles",
    "deployment_id": "deployments",
    "replay_id": "replays",
    "artifact_id": "artifacts",
    "agent_id": "agents",
    "project_id": "project_id",
    "environment_id": "env_id",
}


@schemathesis.auth()
class Credential:
    """The credential that the operation's security scheme asks for."""

    def get(self, case: Any, context: Any) -> str | None:
        """The token of the scheme; None for an operation without one."""
        security = case.operation.definition.raw.get("security") or [{}]
        scheme = next(iter(security[0]), None)
        return None if scheme is None else str(WORLD["credentials"][scheme])

    def set(self, case: Any, data: str | None, context: Any) -> None:
        """Send the token."""
        if data is not None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


def _path_ids(method: str, path: str, given: dict[str, Any]) -> dict[str, Any]:
    """The ids of real rows for the path's parameters."""
    ends = method == "DELETE" or path.endswith(("/rotate-key", "/rotate-secret"))
    ids = WORLD["doomed" if ends else "ids"]
    segments = dict(re.findall(r"([a-z-]+)/\{([a-z_]+)\}", path))
    names = {name: segment for segment, name in segments.items()}
    return {name: ids.get(name) or ids.get(names.get(name, ""), value) for name, value in given.items()}


def _known(values: Any) -> Any:
    """``values`` with real ids in place of those that were made up."""
    if not isinstance(values, dict):
        return values
    return {
        name: WORLD["ids"][_SEGMENTS[name]]
        if name in _SEGMENTS and isinstance(value, str) and _ID.fullmatch(value)
        else value
        for name, value in values.items()
    }


@schemathesis.hook  # type: ignore[untyped-decorator]  # not installed where mypy runs
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Drop what schemathesis calls wrong though nothing in it is: a case without any mutation, whose body, which the
    document calls optional, is not sent.
    """
    is_whole = not getattr(case.meta.phase.data, "mutations", True)
    return not (isinstance(failure, AcceptedNegativeData) and is_whole and isinstance(case.body, NotSet))


@schemathesis.hook  # type: ignore[untyped-decorator]  # not installed where mypy runs
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Point most cases at real rows. What was made wrong on purpose stays wrong: only whole ids are replaced."""
    given = dict(case.path_parameters or {})
    whole = all(isinstance(value, str) and (name == "kid" or _ID.fullmatch(value)) for name, value in given.items())
    if random.random() < SHARE_OF_REAL_IDS:
        if given and whole:
            case.path_parameters = _path_ids(case.method, case.operation.path, given)
        if (case.headers or {}).get("Idempotency-Key", "").isalnum():
            # A key of its own: a repeated one would be refused before the body is read.
            case.headers["Idempotency-Key"] += f"-{random.getrandbits(64)}"
        case.query = _known(case.query)
        case.body = _known(case.body)
