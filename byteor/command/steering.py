"""The commands that control a rollout: next-wave, pause, resume, retry, abort and rollback."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, Final

import click

from byteor.command import rollout_news as news
from byteor.command.agents import AGENT, find_agent_id
from byteor.command.deploying import DEPLOYMENT, find_deployment, watch
from byteor.command.exits import DONE, PENDING, USAGE, Refusal
from byteor.command.output import confirm, json_option, note, show
from byteor.command.replaying import ARTIFACT, find_artifact
from byteor.command.session import Session, is_id, with_session

if TYPE_CHECKING:
    from byteor.client import models as m

type Command = Callable[..., Any]
_MOST: Final = 100  # the most deployments of a list that are searched
_POLL_S: Final = 2.0  # between requests for a rollback whose proof has not finished, if the server names no time


def _steering(*, waits: bool = True, reason_required: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds ID, ``--reason``, ``--json`` and, if ``waits``, ``--wait`` and ``--timeout``."""

    def decorate(command: Command) -> Command:
        found = json_option("Deployment")(with_session(command))
        if waits:
            found = click.option(
                "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                help="Stop waiting after this time, with exit code 8.",
            )(found)  # fmt: skip
            found = click.option(
                "--wait", is_flag=True, help="Follow the rollout until it ends, like `byteor deploy`."
            )(found)
        found = click.option("--reason", required=reason_required, help="The reason, for the audit trail.")(found)
        return click.argument("id", required=False, type=DEPLOYMENT)(found)

    return decorate


@click.command("next-wave")
@_steering()
def next_wave(
    session: Session, id: str | None, reason: str | None, wait: bool, timeout: float | None, as_json: str | None
) -> int:
    """Start the next wave of a rollout now.

    Ends a manual hold or the pause between two waves. Refused unless all waves that have started have finished, the
    current one within the failure threshold, and there is a next wave. Also refused while the next wave waits for
    approval, while the rollout is paused, if the configuration is known bad, and in a freeze window that the deployment
    does not override. Default: the deployment in progress.

    \b
    Examples:
      byteor next-wave
      byteor next-wave 4f2a91bc --wait
    """
    found = _under_way(session, id)
    changed = session.environment.start_next_wave(found.id, reason=reason)
    waves = changed.strategy.percents
    of = f" of {len(waves)}" if waves else ""
    done = f"Started wave {changed.wave + 1}{of} of {_title(session, changed)}"
    return _finish(session, changed, done, wait=wait, timeout=timeout, as_json=as_json)


@click.command()
@_steering(waits=False)
def pause(session: Session, id: str | None, reason: str | None, as_json: str | None) -> None:
    """Pause a rollout, so that no further agents are offered the bundle.

    Agents that already have the offer continue. Default: the deployment in progress.

    \b
    Examples:
      byteor pause --reason "Latency rises"
      byteor pause 4f2a91bc
    """
    found = _under_way(session, id)
    changed = session.environment.pause_deployment(found.id, reason=reason)
    show(changed, as_json, f"Paused {_title(session, changed)}")


@click.command()
@_steering()
def resume(
    session: Session, id: str | None, reason: str | None, wait: bool, timeout: float | None, as_json: str | None
) -> int:
    """Resume a paused rollout.

    Its offers that have been held since a restore are resumed as well. Default: the deployment in progress.

    \b
    Examples:
      byteor resume
      byteor resume 4f2a91bc --wait --timeout 600
    """
    found = _under_way(session, id)
    changed = session.environment.resume_deployment(found.id, reason=reason)
    done = f"Resumed {_title(session, changed)}"
    return _finish(session, changed, done, wait=wait, timeout=timeout, as_json=as_json)


@click.command()
@click.option(
    "--agent", "agents", multiple=True, type=AGENT, help="Only this failed agent, by name or id. Can be repeated."
)
@_steering()
def retry(
    session: Session,
    id: str | None,
    reason: str | None,
    agents: Sequence[str],
    wait: bool,
    timeout: float | None,
    as_json: str | None,
) -> int:
    """Retry the failed agents of a deployment.

    A failed deployment continues, and an active one stays active. Default: the only deployment that has active or
    failed agents, and that is deploying or current, or is the newest of its pipeline and has failed. The agents of an
    active deployment have no rollout, so --wait does not wait for them: `byteor deployments agents` shows their
    progress.

    \b
    Examples:
      byteor retry
      byteor retry 4f2a91bc --agent edge-1 --agent edge-2 --wait
    """
    found = _started(session, id, "There is no deployment to retry.")
    ids = [find_agent_id(session, each) for each in agents]
    changed = session.environment.retry_deployment(found.id, reason=reason, agents=ids or None)
    count = found.progress.failed - changed.progress.failed
    failed = f"{news.agents_of(count)} of " if count else ""  # an aborted deployment may have no failed agents
    done = f"Retrying {failed}{_title(session, changed)}"
    return _finish(session, changed, done, wait=wait, timeout=timeout, as_json=as_json)


@click.command()
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@_steering(waits=False)
def abort(session: Session, id: str | None, reason: str | None, yes: bool, as_json: str | None) -> None:
    """Abort a rollout. Agents that already run the new bundle keep running it.

    To restore the previous bundle, use `byteor rollback`. Default: the deployment in progress.

    \b
    Examples:
      byteor abort
      byteor abort 4f2a91bc --reason "Wrong bundle" --yes
    """
    found = _under_way(session, id)
    title, active = _title(session, found), found.progress.active
    kept = (
        f" {news.agents_of(active)} already run{'s' if active == 1 else ''} the new bundle and will keep running it."
        if active
        else ""
    )
    confirm(f"Abort {title}?{kept}", yes=yes)
    changed = session.environment.abort_deployment(found.id, reason=reason)
    show(changed, as_json, f"Aborted {title}.{kept}")


@click.command()
@click.option(
    "--artifact",
    type=ARTIFACT,
    metavar="ID",
    help="Roll back only after a replay of this capture has succeeded on each configuration to be restored.",
)
@click.option("--proceed", is_flag=True, help="With --artifact, skip the replays and roll back immediately.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@_steering(reason_required=True)
def rollback(
    session: Session,
    id: str | None,
    reason: str,
    artifact: str | None,
    proceed: bool,
    yes: bool,
    wait: bool,
    timeout: float | None,
    as_json: str | None,
) -> int:
    """Roll back a deployment: its agents return to what they ran before.

    If an agent cannot return to its earlier bundle, it gets the bundle of the restored deployment. The configuration
    becomes known bad in the environment. Default: the only deployment that has active or failed agents, and that is
    deploying or current, or is the newest of its pipeline and has failed. With --wait, the exit code is 0 if the
    rollback finished, and 3 if it failed. With --artifact, the command first waits for the replays, at most for
    --timeout seconds. With --proceed, it does not.

    \b
    Examples:
      byteor rollback --reason "Prices are missing" --wait
      byteor rollback 4f2a91bc --reason latency --yes
      byteor rollback --reason crash --artifact 77ab01cd --timeout 300
    """
    found = _started(session, id, "There is no deployment to roll back.")
    artifact_id = None if artifact is None else find_artifact(session, artifact).id
    title = _title(session, found)
    confirm(
        f"Roll back {title}? Its agents return to the bundles that they ran before. An agent for which that is "
        "impossible gets the bundle of the restored deployment. The configuration that is rolled back becomes known "
        "bad.",
        yes=yes,
    )  # fmt: skip
    changed = _roll_back(session, found.id, reason, artifact_id, proceed=proceed, timeout=timeout)
    done = f"Rolling back {title} to {_restored(session, changed)}"
    code = _finish(session, changed, done, wait=wait, timeout=timeout, as_json=as_json)
    if wait and code not in {DONE, PENDING}:  # for ``watch``, a rollout that was rolled back has failed
        return DONE if session.environment.get_deployment(found.id).status == "rolled_back" else code
    return code


def _roll_back(
    session: Session, id: str, reason: str, artifact_id: str | None, *, proceed: bool, timeout: float | None
) -> m.Deployment:
    """Start a rollback. If it needs a proof, first wait until the replays have succeeded.

    Raises Refusal if they take too long, and Conflict and other errors of the client if the server refuses.
    """
    from byteor.client.errors import Conflict  # noqa: PLC0415  imported when used, so that --help is fast

    deadline, is_waiting = inf if timeout is None else time.monotonic() + timeout, False
    while True:
        try:
            return session.environment.roll_back_deployment(
                id, reason=reason, artifact_id=artifact_id, proceed=proceed or None
            )
        except Conflict as error:
            if error.code != "rollback.proof_pending":
                raise
            pause_s = error.retry_after or _POLL_S
            if not is_waiting:
                note(f"Waiting for replay {error.problem.get('replay_id')}, which must succeed before the rollback.")
            is_waiting = True
        if (left := deadline - time.monotonic()) <= 0:
            raise Refusal(f"The replays have not finished after {timeout:g} s. Nothing was rolled back.", PENDING)
        time.sleep(min(pause_s, left))


def _restored(session: Session, deployment: m.Deployment) -> str:
    if deployment.restores is None:
        return "what its agents ran before"
    return _title(session, session.environment.get_deployment(deployment.restores))


def _under_way(session: Session, text: str | None) -> m.Deployment:
    """Return the unfinished deployment with this id or of this pipeline; None selects the only one in the environment.

    A deployment that waits for approval is unfinished. Raises Refusal if there is none, or if the choice is ambiguous.
    """
    found = find_deployment(session, text)
    if found.status in news.ENDED:
        title, status = _title(session, found), news.status_of(found)
        if text is None:
            raise Refusal(f"No rollout is in progress. The newest deployment, {title}, has the status {status}.")
        raise Refusal(f"The rollout of {title} is not in progress. Its status is: {status}.")
    return found


def _started(session: Session, text: str | None, none: str) -> m.Deployment:
    """Return the only deployment that has active or failed agents, and that can be retried or rolled back.

    Such a deployment is deploying or current, or it is the newest of its pipeline and has failed. ``text`` names a
    pipeline; None means all pipelines. An id, or a text without such a deployment, selects what ``find_deployment``
    returns. Raises Refusal if more than one deployment matches. Without ``text``, raises Refusal with the message
    ``none`` if none matches.
    """
    if text is not None and is_id(text):
        return find_deployment(session, text)
    listed = session.environment.list_deployments
    rows = [
        *islice(listed(pipeline=text, status="deploying"), _MOST),
        *islice(listed(pipeline=text, is_current=True), _MOST),
    ]
    newest: dict[str, m.ListedDeployment] = {}
    for each in islice(listed(pipeline=text), _MOST):
        newest.setdefault(each.pipeline, each)
    rows += [each for each in newest.values() if each.status == "failed"]
    found = {each.id: each for each in rows if each.progress.active or each.progress.failed}
    if not found and text is not None:
        return find_deployment(session, text)
    if not found:
        raise Refusal(none)
    if len(found) > 1:
        several = ", ".join(f"{each.pipeline} ({each.id}, {news.status_of(each)})" for each in found.values())
        raise Refusal(f"More than one deployment matches: {several}. Use an id.", USAGE)
    return session.environment.get_deployment(next(iter(found)))


def _title(session: Session, deployment: m.Deployment) -> str:
    version = session.environment.get_version(deployment.version_id)
    return f"{version.name}:{version.number} ({deployment.id})"


def _finish(
    session: Session, changed: m.Deployment, done: str, *, wait: bool, timeout: float | None, as_json: str | None
) -> int:
    """Print what happened. With ``wait``, then follow the rollout, and return its exit code."""
    if not wait:
        show(changed, as_json, done)
        return DONE
    note(done)
    return watch(session, changed.id, timeout=timeout, as_json=as_json)
