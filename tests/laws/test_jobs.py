"""Every job is declared once, in the ``jobs.py`` of an app, and exactly one function runs it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, get_args, get_type_hints

import pytest

from apps.console.pages.job_titles import TITLES
from apps.releases.jobs import BuildBundle
from byteor_cloud.ids import uuid7
from byteor_cloud.worker.jobs import KINDS, Claim, GivenUp, Job, JobLane, Periodic, runs

ROOT = Path(__file__).parents[2]
DECLARING = sorted((ROOT / "apps").glob("*/jobs.py"))
PRODUCT = sorted(
    path
    for top in ("byteor", "byteor_cloud", "apps")
    for path in (ROOT / top).rglob("*.py")
    if path.parent.name != "migrations"
)
APPS = [path for path in PRODUCT if path.is_relative_to(ROOT / "apps")]
USERS = [path for path in APPS if "jobs import " in (text := path.read_text()) or "import jobs" in text]
# Jobs with these names and arguments may wait in the queue of an installation during an upgrade.
STORED = {
    "artifacts.bisect": ["bisect_id"],
    "artifacts.check_current": ["environment_id", "pipeline"],
    "artifacts.ingest": ["artifact_id"],
    "artifacts.regression": ["regression_id"],
    "artifacts.replay": ["replay_id"],
    "artifacts.replay_decided": ["approval_id"],
    "notifications.handle_events": ["organization_id"],
    "notifications.send_chat": ["chat_webhook_id"],
    "notifications.send_mails": ["organization_id"],
    "releases.agent_left": ["agent_id"],
    "releases.build": ["deployment_id"],
    "releases.offer_after_hold": ["environment_id"],
    "releases.step": ["deployment_id"],
    "releases.undo_break_glass": ["deployment_id"],
    "releases.welcome": ["agent_id"],
    "releases.welcome_several": ["agent_ids"],
    "tenancy.deliver_webhooks": ["webhook_id"],
    "tenancy.purge_environment": ["id"],
    "tenancy.purge_project": ["id"],
}
STORED_PERIODIC = {
    "artifacts.check_what_runs",
    "artifacts.expire_captures",
    "artifacts.retention",
    "fleet.forget_credentials",
    "fleet.forget_history",
    "fleet.settle",
    "fleet.write_series",
    "notifications.delete_old",
    "notifications.sweep",
    "notifications.wake",
    "releases.forget_particulars",
    "releases.renew_tests",
    "releases.sum_progress",
    "releases.sweep",
    "tenancy.close_minute",
    "tenancy.count_use",
    "tenancy.forget_credentials",
    "tenancy.forget_deliveries",
    "tenancy.forget_hosts",
    "tenancy.forget_jobs",
    "tenancy.forget_sign_ins",
    "tenancy.note_keys",
    "tenancy.seal_audit",
    "tenancy.seal_rest",
    "tenancy.wake_webhooks",
}
# The queue of a waiting job is named ``lane:organization``, or ``lane:installation``.
STORED_LANES = {
    "release", "housekeeping", "cleanup", "ingest", "replay", "longrun", "regress", "webhook", "message", "mail",
    "chat",
}  # fmt: skip


def module_of(path: Path) -> ModuleType:
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def declared() -> list[type[Job] | Periodic]:
    """Return the jobs and periodic jobs that all apps declare."""
    return [
        kind
        for path in DECLARING
        for kind in vars(module_of(path)).values()
        if isinstance(kind, Periodic) or (isinstance(kind, type) and issubclass(kind, Job) and kind is not Job)
    ]


JOBS = {kind.name: kind for kind in declared() if not isinstance(kind, Periodic)}
every_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)


def calls(path: Path) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    """Yield each call in the functions of a module, with the function."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            yield from ((function, node) for node in ast.walk(function) if isinstance(node, ast.Call))


def enqueued(path: Path) -> Iterator[tuple[int, object]]:
    """Yield the line and the job class of each call of ``enqueue``.

    If the job is a parameter of the function, yields each class in the parameter's annotation. Of any other expression,
    yields the source text.
    """
    module = module_of(path)
    for function, call in calls(path):
        match call.func:
            case ast.Name("enqueue") | ast.Attribute(attr="enqueue"):
                match call.args[0]:
                    case ast.Call(func=ast.Name(name)):
                        yield call.lineno, getattr(module, name)
                    case ast.Name(name):
                        hint = get_type_hints(getattr(module, function.name)).get(name)
                        yield from ((call.lineno, kind) for kind in _members(hint))
                    case other:
                        yield call.lineno, ast.unparse(other)


def _members(hint: Any) -> tuple[object, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def test_every_job_name_is_declared_once_and_registered() -> None:
    names = [kind.name for kind in declared()]

    assert sorted(names) == sorted(set(names))
    assert set(names) == {name for name in KINDS if not name.startswith("test.")}


def test_job_names_appear_only_in_declarations() -> None:
    """No other code of the product may contain the name of a job as a string."""
    names = {kind.name for kind in declared()}
    written = [
        (str(path.relative_to(ROOT)), node.value)
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    ]

    assert {path for path, _ in written} <= {str(path.relative_to(ROOT)) for path in DECLARING}
    assert sorted(name for _, name in written) == sorted(kind.name for kind in declared())
    assert [job for job in Job.__subclasses__() if job not in JOBS.values() and not job.name.startswith("test.")] == []


def test_code_enqueues_every_declared_job_and_no_other() -> None:
    found = {(f"{path.relative_to(ROOT)}:{line}", kind) for path in USERS for line, kind in enqueued(path)}

    assert [(place, kind) for place, kind in found if kind not in JOBS.values()] == []
    assert {kind for _, kind in found} == set(JOBS.values())


def test_jobs_are_created_with_their_declared_arguments() -> None:
    made: list[tuple[str, type[Job], set[str | None]]] = []
    for path in USERS:
        for _, call in calls(path):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            job = getattr(module_of(path), name, None)
            if isinstance(job, type) and issubclass(job, Job):
                given = {keyword.arg for keyword in call.keywords}
                made.append((f"{path.relative_to(ROOT)}:{call.lineno}", job, given))

    assert [each for each in made if each[2] != set(signature(each[1]).parameters)] == []
    assert {job for _, job, _ in made} == set(JOBS.values())


def test_names_arguments_and_lanes_of_stored_jobs_do_not_change() -> None:
    assert {name: [*signature(job).parameters] for name, job in JOBS.items()} == STORED
    assert {kind.name for kind in declared() if isinstance(kind, Periodic)} == STORED_PERIODIC
    assert {str(lane) for lane in JobLane} == STORED_LANES


@every_job
@pytest.mark.django_db
def test_registered_function_accepts_declared_arguments(job: type[Job]) -> None:
    kind = KINDS[job.name]
    for_missing_row = dict.fromkeys(signature(job).parameters, str(uuid7()))
    assert kind.gave_up is not None

    kind.run(Claim(), **for_missing_row)
    kind.gave_up(GivenUp(killed=True, error="no"), **for_missing_row)

    for wrong in ({}, {**for_missing_row, "another": "x"}):
        with pytest.raises(TypeError, match="argument"):
            kind.run(Claim(), **wrong)


def test_second_function_for_job_is_refused() -> None:
    before = dict(KINDS)

    with pytest.raises(ValueError, match=r"^A function for the job releases\.build is registered already\.$"):
        runs(BuildBundle)(lambda job: None)

    assert before == KINDS


def test_every_job_has_unique_title_in_console() -> None:
    assert TITLES.keys() == {kind.name for kind in declared()}
    assert len({*TITLES.values()}) == len(TITLES)
