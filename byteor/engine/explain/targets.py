"""Explanations of why a deployment includes or skips an agent, and of the agent's wave."""

from __future__ import annotations

from byteor.engine.explain.facts import DeploymentFacts, Facts, OfferFacts, WaveFacts
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import Finding, Statements
from byteor.engine.explain.wording import format_labels
from byteor.engine.machines import DeploymentStatus, OfferAction
from byteor.engine.rollout import RolloutAgent


def explain_target(facts: Facts, owner: DeploymentFacts, offer: OfferFacts) -> Statements:
    """Explain why the deployment that made the offer targets the agent, or that it does not.

    For an ``activate`` offer, also name the agent's wave if there are several waves, or explain why the agent is not
    counted.
    """
    to = f"The deployment of {owner.label}"
    selector = owner.target.selector
    if owner.target.names_agent:
        yield Finding(B.TARGET_AGENTS, f"{to} targets it by its id.", owner.id)
    elif owner.target.names_agent is not None:
        # A rollback can offer an agent the bundle of a deployment whose target does not contain the agent.
        yield Finding(B.LEFT_TARGET, f"{to} targets other agents by their ids.", owner.id)
    elif selector is None:
        yield Finding(B.TARGET_ALL, f"{to} goes to all agents of the environment.", owner.id)
    elif selector.items() <= facts.agent.labels.items():
        yield Finding(
            B.TARGET_SELECTOR,
            f"{to} goes to agents with {format_labels(selector)}, and this agent has these labels.",
            owner.id,
        )
    else:
        yield Finding(
            B.LEFT_TARGET,
            f"{to} goes to agents with {format_labels(selector)}, but this agent does not have all of these labels.",
            owner.id,
        )
    if owner.enlistment is not None and offer.action is OfferAction.ACTIVATE:
        yield from _wave_membership(owner, owner.enlistment.agent)


def _wave_membership(owner: DeploymentFacts, agent: RolloutAgent) -> Statements:
    waves = len(owner.strategy.percents)
    if agent.counted and waves > 1:
        yield Finding(B.WAVE, f"It is in wave {agent.wave + 1} of {waves}{wave_progress_suffix(owner)}.", owner.id)
    elif not agent.counted and owner.activated_at and agent.offered_at and agent.offered_at >= owner.activated_at:
        yield Finding(
            B.LATE_JOINER,
            f"It was offered {owner.label} after that deployment became active,"
            " so it does not count toward waves and thresholds, and cannot time out.",
            owner.id,
        )
    elif not agent.counted:
        yield Finding(
            B.NOT_COUNTED,
            f"It was offline when the deployment of {owner.label} started,"
            " so it does not count toward waves and thresholds, and cannot time out.",
            owner.id,
        )


def wave_progress_suffix(owner: DeploymentFacts) -> str:
    """Return the progress of the current wave as the end of a sentence; empty unless the status is ``deploying``."""
    if owner.status is not DeploymentStatus.DEPLOYING:
        return ""
    wave = owner.waves.get(owner.wave, WaveFacts())
    now = "is done" if owner.wave_done_at else "is under way"
    plural = "" if wave.total == 1 else "s"
    return f"; wave {owner.wave + 1} {now}, {wave.done} of {wave.total} agent{plural} finished"


def find_mismatch(facts: Facts, deployment: DeploymentFacts) -> Finding | None:
    """Return why the deployment skips the agent (the target, a drain or another pipeline), or None if it does not.

    An enlisted agent stays in the deployment even if the target no longer matches it.
    """
    agent, to = facts.agent, f"The deployment of {deployment.label}"
    count, selector = deployment.target.count, deployment.target.selector
    is_enlisted = deployment.enlistment is not None
    if deployment.target.names_agent is False and not is_enlisted:
        others = f"{count} other agent{'' if count == 1 else 's'}"
        return Finding(B.OTHER_AGENTS, f"{to} targets {others} by id.", deployment.id)
    if selector is not None and not selector.items() <= agent.labels.items() and not is_enlisted:
        wrong = [key for key in sorted(selector) if agent.labels.get(key) != selector[key]]
        has = ", ".join(f"{key}={agent.labels[key]}" if key in agent.labels else f"no {key}" for key in wrong)
        return Finding(
            B.SELECTOR_MISMATCH,
            f"{to} goes to agents with {format_labels(selector)}, but this agent has {has}.",
            deployment.id,
        )
    if agent.drained_at is not None:
        return Finding(B.DRAINED, f"{to} skips it while it is drained.", deployment.id)
    source = facts.find(agent.offer.source) if agent.offer else None
    if source is not None and source.pipeline != deployment.pipeline and not deployment.take_over:
        return Finding(
            B.ANOTHER_PIPELINE,
            f"{to} does not take over agents of another pipeline, and this agent is assigned to {source.pipeline}.",
            deployment.id,
        )
    return None
