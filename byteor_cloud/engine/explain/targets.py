"""Why an agent is one of a deployment's, or is not."""

from __future__ import annotations

from byteor_cloud.engine.explain.facts import Deployment, Facts, Offer, Wave
from byteor_cloud.engine.explain.findings import Because as B
from byteor_cloud.engine.explain.findings import Finding, Told
from byteor_cloud.engine.explain.wording import joined
from byteor_cloud.engine.machines import DeploymentStatus, OfferAction
from byteor_cloud.engine.rollout import AgentView


def chosen(facts: Facts, owner: Deployment, offer: Offer) -> Told:
    """Why the deployment that made the offer reached it, and how it counts there."""
    to = f"The deployment of {owner.label}"
    selector = owner.target.selector
    if owner.target.names_it is not None:
        yield Finding(B.TARGET_AGENTS, f"{to} names it.", owner.id)
    elif selector is None:
        yield Finding(B.TARGET_ALL, f"{to} goes to all agents of the environment.", owner.id)
    elif selector.items() <= facts.agent.labels.items():
        yield Finding(B.TARGET_SELECTOR, f"{to} goes to agents with {joined(selector)}, as it has.", owner.id)
    else:
        yield Finding(
            B.LEFT_TARGET,
            f"{to} goes to agents with {joined(selector)}; it was one when it was offered it, and keeps it.",
            owner.id,
        )
    if owner.part is not None and offer.action is OfferAction.ACTIVATE:
        yield from _place(owner, owner.part.view)


def _place(owner: Deployment, view: AgentView) -> Told:
    waves = len(owner.strategy.percents)
    if view.counted and waves > 1:
        yield Finding(B.WAVE, f"It is in wave {view.wave + 1} of {waves}{under_way(owner)}.", owner.id)
    elif not view.counted and owner.activated_at and view.offered_at and view.offered_at >= owner.activated_at:
        yield Finding(
            B.LATE_JOINER,
            f"It came when {owner.label} was active already: it does not count for waves, thresholds and time-outs.",
            owner.id,
        )
    elif not view.counted:
        yield Finding(
            B.NOT_COUNTED,
            f"It was offline when {owner.label} began: it does not count for waves, thresholds and time-outs.",
            owner.id,
        )


def under_way(owner: Deployment) -> str:
    """How far the present wave is, at the end of a sentence."""
    if owner.status is not DeploymentStatus.DEPLOYING:
        return ""
    wave = owner.waves.get(owner.wave, Wave())
    now = "is done" if owner.wave_done_at else "is under way"
    return f"; wave {owner.wave + 1} {now}, {wave.done} of {wave.total} agents finished"


def mismatch(facts: Facts, deployment: Deployment) -> Finding | None:
    """Why the deployment does not reach the agent; None when it does."""
    agent, to = facts.agent, f"The deployment of {deployment.label}"
    count, selector = deployment.target.count, deployment.target.selector
    if deployment.target.names_it is False:
        others = f"{count} other agent{'' if count == 1 else 's'}"
        return Finding(B.OTHER_AGENTS, f"{to} names {others}.", deployment.id)
    if selector is not None and not selector.items() <= agent.labels.items():
        wrong = [key for key in sorted(selector) if agent.labels.get(key) != selector[key]]
        has = ", ".join(f"{key}={agent.labels[key]}" if key in agent.labels else f"no {key}" for key in wrong)
        return Finding(
            B.SELECTOR_MISMATCH, f"{to} goes to agents with {joined(selector)}; it has {has}.", deployment.id
        )
    source = facts.find(agent.offer.source) if agent.offer else None
    if source is not None and source.pipeline != deployment.pipeline and not deployment.take_over:
        return Finding(
            B.ANOTHER_PIPELINE,
            f"{to} does not take over agents of another pipeline, and this one is to run {source.pipeline}.",
            deployment.id,
        )
    return None
