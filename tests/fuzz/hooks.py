"""Hooks for schemathesis: they insert credentials and the ids of existing rows, and ignore false reports.

The environment variable BYTEOR_FUZZ_WORLD contains the path of the file that ``tests.fuzz.world`` wrote.
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
# Most cases should concern existing rows, because a missing row is always just a 404.
SHARE_OF_REAL_IDS = 0.9
# The kinds of rows whose ids occur in bodies and queries under these names.
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
    """The credential for an operation's security scheme."""

    def get(self, case: Any, context: Any) -> str | None:
        """Return the token for the operation's security scheme, or None if the operation has none."""
        security = case.operation.definition.raw.get("security") or [{}]
        scheme = next(iter(security[0]), None)
        return None if scheme is None else str(WORLD["credentials"][scheme])

    def set(self, case: Any, data: str | None, context: Any) -> None:
        """Add the token to the request's headers."""
        if data is not None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


def _path_ids(method: str, path: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the path parameters, with each value replaced by the id of an existing row if one is known.

    Destructive calls get the ids of expendable rows.
    """
    is_destructive = method == "DELETE" or path.endswith(("/rotate-key", "/rotate-secret"))
    ids = WORLD["expendable_ids" if is_destructive else "ids"]
    segments = dict(re.findall(r"([a-z-]+)/\{([a-z_]+)\}", path))
    names = {name: segment for segment, name in segments.items()}
    return {name: ids.get(name) or ids.get(names.get(name, ""), value) for name, value in given.items()}


def _with_real_ids(values: Any) -> Any:
    """Return the parameters or the body with ids of existing rows for the names in ``_SEGMENTS``, at the top level."""
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
    """Ignore false reports: schemathesis counts a case without an optional body as invalid, although it is valid."""
    is_unchanged = not getattr(case.meta.phase.data, "mutations", True)
    return not (isinstance(failure, AcceptedNegativeData) and is_unchanged and isinstance(case.body, NotSet))


@schemathesis.hook  # type: ignore[untyped-decorator]  # not installed where mypy runs
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Insert the ids of existing rows into most cases, and make their idempotency keys unique.

    Only valid ids are replaced; invalid ones are intentional.
    """
    parameters = dict(case.path_parameters or {})
    is_valid = all(
        isinstance(value, str) and (name == "kid" or _ID.fullmatch(value)) for name, value in parameters.items()
    )
    if random.random() < SHARE_OF_REAL_IDS:
        if parameters and is_valid:
            case.path_parameters = _path_ids(case.method, case.operation.path, parameters)
        if (case.headers or {}).get("Idempotency-Key", "").isalnum():
            # Make the key unique, because a request with a used key is refused before its body is validated.
            case.headers["Idempotency-Key"] += f"-{random.getrandbits(64)}"
        case.query = _with_real_ids(case.query)
        case.body = _with_real_ids(case.body)
