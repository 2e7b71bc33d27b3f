"""``manage.py simulate_fleet``: simulate a fleet of agents against a running server."""

from __future__ import annotations

import json as jsonlib
import os
import resource
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from apps.operations.management.operator_command import OperatorCommand
from byteor.agent.enrollment import environment_path
from byteor.agent.identity import TOKEN_VARIABLE, BaseUrl, IdentityError, SecretValue
from byteor_cloud.simulator import poll
from byteor_cloud.simulator.fleet import Fleet, Server, SimulationError, documents_boot_id, enroll
from byteor_cloud.simulator.measured import Measured, Summary, combine
from byteor_cloud.simulator.planner import Planner
from byteor_cloud.simulator.pool import MAX_CONNECTIONS, Pool
from byteor_cloud.simulator.run import Run, RunProgress
from byteor_cloud.simulator.scenarios import DESCRIPTIONS, Scenario, Setup

MAX_AGENTS = 100_000
_OTHER_CONNECTIONS = 16  # connections in addition to those of waiting agents
_OTHER_FILES = 64  # open files other than connections
_SECONDS_PER_LINE = 10
USER_TOKEN_VARIABLE = "BYTEOR_USER_TOKEN"  # noqa: S105  the name of a variable


class Command(OperatorCommand):
    help = (
        "Simulate a fleet of agents against a running server. Exits with 0 if every agent is healthy at the end. In "
        "the scenario rollout, at least one agent must also have received an offer. The scenario poll instead exits "
        "with 0 if every agent received the deployment. "
        "Scenarios: " + "; ".join(f"{scenario}: {text}" for scenario, text in DESCRIPTIONS.items())
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options for the server, the fleet, the scenario and the output."""
        parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server's address")
        parser.add_argument(
            "--environment", metavar="ORG/PROJECT/ENV", help="ids of the environment in which to enroll the agents"
        )
        parser.add_argument("--token", help=f"enrollment token with enough uses; default: ${TOKEN_VARIABLE}")
        parser.add_argument(
            "--keys",
            type=Path,
            metavar="FILE",
            help="store the agents' keys here, or use the keys that an earlier run stored",
        )
        parser.add_argument(
            "--agents", type=_number(1, MAX_AGENTS), default=100, help="number of agents, from 1 to 100000"
        )
        parser.add_argument(
            "--scenario", choices=list(Scenario), default=Scenario.STEADY, type=Scenario, help="see the list above"
        )
        parser.add_argument(
            "--seed", type=_number(0, 2**63), default=1, help="runs with equal seeds make equal decisions"
        )
        parser.add_argument(
            "--seconds",
            type=_number(1, 7 * 86_400),
            default=60,
            help="duration of the run; in the scenario poll, the longest wait before the deployment is requested",
        )
        parser.add_argument(
            "--patience",
            type=_number(0, 86_400),
            default=180,
            help="maximum number of seconds to wait after --seconds until all agents are healthy or, in the scenario "
            "poll, have received the deployment",
        )
        parser.add_argument(
            "--interval-scale",
            type=_factor,
            default=1.0,
            help="factor for all heartbeat intervals; below 1 for short runs",
        )
        parser.add_argument(
            "--failing-percent",
            type=_number(0, 100),
            default=5,
            help="percentage of agents whose first attempt to run a bundle fails, in the scenario rollout",
        )
        parser.add_argument(
            "--connections",
            type=_number(1, MAX_CONNECTIONS),
            default=MAX_CONNECTIONS,
            help="maximum number of connections to the server; in the scenario poll, waiting agents use additional "
            "connections",
        )
        parser.add_argument(
            "--deploy",
            metavar="CONFIG_BUNDLE_ID",
            help="id of the config bundle that the scenario poll deploys to all agents of --environment "
            f"(token: ${USER_TOKEN_VARIABLE})",
        )
        parser.add_argument("--json", action="store_true", help="print the results as one line of JSON")

    def handle(self, *args: Any, json: bool, **options: Any) -> None:
        """Enroll or load the agents, run the scenario, and print the measurements. Raises CommandError on failure."""
        try:
            summary = self._simulate(**options)
        except (SimulationError, IdentityError) as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"{error.filename or options['url']}: {error.strerror}") from None
        self.stdout.write(jsonlib.dumps(summary.document()) if json else "\n".join(summary.lines()))
        self._check(summary)

    def _simulate(
        self,
        *,
        url: str,
        environment: str | None,
        token: str | None,
        keys: Path | None,
        agents: int,
        scenario: Scenario,
        seed: int,
        seconds: float,
        patience: float,
        interval_scale: float,
        failing_percent: float,
        connections: int,
        deploy: str | None,
        **_: Any,
    ) -> Summary:
        server = Server.parse(url)
        deployment = None
        if scenario is Scenario.POLL:
            deployment = _deployment(url, environment, deploy)
            _permit_connections(min(agents, poll.AGENTS_PER_PROCESS) + _OTHER_CONNECTIONS)
        _permit_connections(connections)
        pool = Pool(server.address, connections)
        try:
            sends_boot_id = documents_boot_id(pool, server)
            if keys is not None and keys.exists():
                fleet = Fleet.load(keys, agents)
            else:
                fleet = self._enroll(pool, server, url, environment, token, agents)
                if keys is not None:
                    fleet.save(keys)
            setup = Setup(scenario, seed, agents, seconds, fleet.interval_s, interval_scale, failing_percent)
            if scenario is Scenario.CLONED and not sends_boot_id:
                self._note(
                    "heartbeats to this server contain no boot_id, so a clone differs from its original only in what "
                    "it reports"
                )
            if deployment is not None:

                def simulate(part: Fleet, audience: poll.Audience) -> Summary:
                    size = len(part.agents)
                    planner = Planner(replace(setup, agents=size), sends_boot_id=sends_boot_id)
                    own_pool = Pool(server.address, size + _OTHER_CONNECTIONS, private=True)
                    return Run(planner, part, server, own_pool, self._live_line(), patience, audience).until_healthy()

                summaries, told = poll.run(fleet, server, deployment, simulate, within_s=seconds)
                return combine(summaries, told)
            run = Run(Planner(setup, sends_boot_id=sends_boot_id), fleet, server, pool, self._live_line(), patience)
            try:
                return run.until_healthy()
            except KeyboardInterrupt:
                self._note("interrupted")
                return run.summary()
        finally:
            pool.close()

    def _enroll(
        self, pool: Pool, server: Server, url: str, environment: str | None, token: str | None, agents: int
    ) -> Fleet:
        token = token or os.environ.get(TOKEN_VARIABLE)
        if not token or not environment:
            raise SimulationError(
                f"use --environment and an enrollment token (--token or ${TOKEN_VARIABLE}),"
                " or --keys with the file of an earlier run"
            )
        path = environment_path(environment, BaseUrl.parse(url))
        began = last = time.monotonic()

        def show(done: int) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= 1 or done == agents:
                last = now
                self._live(f"enrolled {done}/{agents}, {done / (now - began):.0f} a second")

        measured = Measured()
        secret = SecretValue(token).reveal()  # rejects characters that would end the header line
        fleet = enroll(pool, server, path, secret, agents, measured=measured, progress=show)
        elapsed_s, latency = time.monotonic() - began, measured.latency.milliseconds()
        self._note(
            f"enrolled {_count(agents)} in {elapsed_s:.1f} s,"
            f" {agents / elapsed_s:.0f} a second,"
            f" p50 {latency['p50']:g} ms, p99 {latency['p99']:g} ms"
        )
        return fleet

    def _live_line(self) -> Callable[[RunProgress], None]:
        """Return a function that shows the progress: in place on a terminal, otherwise as a line every ten seconds."""
        lines = 0

        def show(progress: RunProgress) -> None:
            nonlocal lines
            if self.stderr.isatty() or lines % _SECONDS_PER_LINE == 0:
                self._live(progress.line())
            lines += 1

        return show

    def _live(self, text: str) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r\x1b[K{text}", ending="")
            self.stderr.flush()
        else:
            self._note(text)

    def _note(self, text: str) -> None:
        is_terminal = self.stderr.isatty()
        self.stderr.write(f"\r\x1b[K{text}" if is_terminal else text)

    def _check(self, summary: Summary) -> None:
        """Raise CommandError if an agent is not healthy.

        In the scenario ``rollout``, also raise it if no agent received an offer. In the scenario ``poll``, raise it
        only if an agent did not receive the deployment.
        """
        if summary.told is not None:
            if missing := summary.told.document()["not_told"]:
                raise CommandError(f"{missing} of {_count(summary.agents)} did not receive the deployment")
            return
        if summary.healthy < summary.agents:
            unhealthy = summary.agents - summary.healthy
            verb = "is" if unhealthy == 1 else "are"
            raise CommandError(f"{unhealthy} of {_count(summary.agents)} {verb} not healthy")
        if summary.scenario == Scenario.ROLLOUT and not any(summary.rollout.values()):
            raise CommandError("no agent received an offer: create a deployment for this environment during the run")


def _count(agents: int) -> str:
    return f"{agents} agent" if agents == 1 else f"{agents} agents"


def _deployment(url: str, environment: str | None, config_bundle_id: str | None) -> poll.Deployment:
    token = os.environ.get(USER_TOKEN_VARIABLE)
    if not environment or not config_bundle_id or not token:
        raise SimulationError(
            f"the scenario poll needs --environment, --deploy and a user's token in ${USER_TOKEN_VARIABLE}"
        )
    path = f"{environment_path(environment, BaseUrl.parse(url))}/deployments"
    return poll.Deployment(path, config_bundle_id, SecretValue(token).reveal())


def _permit_connections(count: int) -> None:
    """Increase the process's limit of open files if necessary. Raises SimulationError if the hard limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SimulationError(
            f"only {hard} open files are permitted, but {needed} are needed: raise the limit, or use fewer"
            " --connections or, in the scenario poll, fewer --agents"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        with suppress(ValueError):
            if least <= (value := int(text)) <= most:
                return value
        raise ArgumentTypeError(f"must be a whole number from {least} to {most}")

    return number


def _factor(text: str) -> float:
    with suppress(ValueError):
        if 0.001 <= (value := float(text)) <= 1000:
            return value
    raise ArgumentTypeError("must be a number from 0.001 to 1000")
