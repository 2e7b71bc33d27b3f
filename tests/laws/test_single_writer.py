"""Only one module writes assignments and deployment agents, except that enrollment creates empty assignments.

Only one other module moves deployments through their state machine.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWNER = "apps/releases/services/assignments.py"
# The fleet app must not import releases, so it creates an empty assignment with each agent itself.
ENROLLMENT = "apps/fleet/services/enrollment.py"
MODELS = {"Assignment", "DeploymentAgent"}
RELATED = {"agents", "assignment"}  # attributes of deployments and agents that refer to these rows
WRITES = {
    "save", "delete", "update", "create", "get_or_create", "update_or_create", "bulk_create", "bulk_update",
    "asave", "adelete", "aupdate", "acreate", "aget_or_create", "aupdate_or_create", "abulk_create", "abulk_update",
}  # fmt: skip
PASSES_ON = {"list", "tuple", "sorted", "next", "iter", "lock_row"}  # functions that return the rows of their arguments
DELETES = {"delete_in_batches"}
SQL = re.compile(
    r'(INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE)\s+"?(fleet_assignment|releases_deploymentagent)\b', re.I
)
type Bound = tuple[ast.expr, ast.expr]


def _bindings(tree: ast.AST) -> Iterator[Bound]:
    """Yield assignment targets, loop targets and annotated parameters, each with its value, iterable or annotation."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((target, value) for target in targets)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                yield target, annotation
                if value is not None:
                    yield target, value
            case ast.NamedExpr(target=target, value=value):
                yield target, value
            case ast.For(target=target, iter=rows) | ast.comprehension(target=target, iter=rows):
                yield target, rows
            case ast.arg(arg=name, annotation=ast.expr() as annotation):
                yield ast.Name(name), annotation


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _is_of(node: ast.expr, known: set[str]) -> bool:
    """Return whether the expression is one of the models or derived from one: a manager, a queryset, a row."""
    match node:
        case ast.Name(id=name):
            return name in known
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in PASSES_ON:
            return _is_of(first, known)
        case ast.Attribute(attr=name) if name in RELATED | MODELS:
            return True
        case ast.Attribute(value=inner) | ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _is_of(inner, known)
    return False


def _known(tree: ast.AST) -> set[str]:
    """Return the names in the module that refer to the models or their rows."""
    known = set(MODELS)
    while True:
        found = {
            name
            for target, value in _bindings(tree)
            if _is_of(value, known) or (isinstance(value, ast.Subscript) and _names(value) & MODELS)
            for name in _names(target)
        }
        if found <= known:
            return known
        known |= found


def written(source: str) -> list[int]:
    """Return the lines of a module that write one of the two tables."""
    tree = ast.parse(source)
    known = _known(tree)
    lines = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=method, value=rows)) if method in WRITES and _is_of(rows, known):
                lines.add(node.lineno)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in MODELS:
                lines.add(node.lineno)
            case ast.Call(func=ast.Name(id=name), args=[rows, *_]) if name in DELETES and _is_of(rows, known):
                lines.add(node.lineno)
            case ast.Constant(value=str() as text) if SQL.search(text):
                lines.add(node.lineno)
    return sorted(lines)


def test_only_one_module_and_enrollment_write_assignments_and_deployment_agents() -> None:
    modules = [path for path in (ROOT / "apps").rglob("*.py") if path.parent.name != "migrations"]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in modules}

    found = {path: lines for path, source in sources.items() if (lines := written(source))}

    assert set(found) == {OWNER, ENROLLMENT}
    assert [sources[ENROLLMENT].splitlines()[line - 1].strip() for line in found[ENROLLMENT]] == [
        "Assignment.objects.bulk_create(Assignment(agent=agent) for agent in agents)"
    ]


def test_only_timeline_module_moves_deployments_through_state_machine() -> None:
    folder = ROOT / "apps/releases"
    modules = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}

    moved = {(name, *call) for name, source in modules.items() for call in status_changes(source)}

    assert moved == {
        ("services/approvals.py", "advance", "approval"),
        ("services/wave_holds.py", "advance", "approval"),
        ("services/timeline.py", "transition", "deployment"),
        # These rows are regressions.
        ("services/regressions.py", "advance", "locked"),
        ("services/regression_queue.py", "advance", "row"),
    }
    assert status_changes("state.advance(deployment, event)") == [("advance", "deployment")]


def status_changes(source: str) -> list[tuple[str, str]]:
    """Return the function and the row of each call that changes a status."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = [(getattr(call.func, "id", None) or getattr(call.func, "attr", ""), call) for call in calls]
    return [(name, ast.unparse(call.args[0])) for name, call in found if name in {"advance", "transition"}]


@pytest.mark.parametrize(
    "source",
    [
        "Assignment.objects.filter(agent=agent).update(progress='active')",
        "DeploymentAgent.objects.bulk_create(rows)",
        "row = DeploymentAgent(agent=agent)",
        "models.Assignment(agent=agent)",
        "deployment.agents.update(progress='failed')",
        "deployment.agents.filter(agent_id__in=unnest_ids(ids)).update(progress='failed')",
        "row = Assignment.objects.get(agent=agent)\nrow.progress = 'active'\nrow.save(update_fields=['progress'])",
        "agent.assignment.save()",
        "wanted = agent.assignment\nwanted.save()",
        "def note(wanted: Assignment) -> None:\n    wanted.save()",
        "def note(rows: QuerySet[DeploymentAgent]) -> None:\n    mine = rows.filter(agent=agent)\n    mine.delete()",
        "for part in deployment.agents.filter(wave=0):\n    part.save()",
        "[part.delete() for part in list(deployment.agents.all())]",
        "locked = lock_row(agent.assignment)\nlocked.save()",
        "delete_in_batches(DeploymentAgent.objects.filter(left))",
        "cursor.execute('UPDATE fleet_assignment SET progress = %s')",
        "SQL = f'''\nINSERT INTO releases_deploymentagent (agent_id) SELECT id FROM {agents}'''",
    ],
)
def test_write_of_assignment_or_deployment_agent_is_detected(source: str) -> None:
    assert written(source)


@pytest.mark.parametrize(
    "source",
    [
        "Assignment.objects.select_for_update().get(agent=agent)",
        "deployment.agents.filter(progress='failed').count()",
        "Deployment.objects.filter(agents__agent=agent).update(wave=1)",
        "AgentReport.objects.create(agent=agent)",
        "deployment.save()",
        "Agent.objects.exclude(pk__in=deployment.agents.values('agent_id')).update(name='x')",
        "cursor.execute('SELECT progress FROM fleet_assignment')",
    ],
)
def test_reads_and_other_writes_are_not_reported(source: str) -> None:
    assert not written(source)
