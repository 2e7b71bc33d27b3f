"""Tests that each e-mail arrives if the worker is killed with ``kill -9`` at any step of sending it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.crash.conftest import Workspace
from tests.crash.doomed_mailer import AFTER_SENDER, BEFORE_COMMIT, BEFORE_CONNECT, BEFORE_RESPONSE
from tests.crash.workers import Worker
from tests.patience import wait_until
from tests.smtp_server import SmtpServer, smtp_server
from tests.system.conftest import ROOT
from tests.worlds import ALL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

COUNT_MAILED = "SELECT count(*) FROM notifications_notification WHERE mailed_at IS NOT NULL"
REVIEWER = "reviewer@acme.example"
# Adds another org_admin, because the requester gets no e-mail. The API cannot mark this person as signed in.
ADD_REVIEWER = f"""
from django.utils import timezone
from apps.tenancy.actors import system_actor
from apps.tenancy.models import MessageEvent, Organization, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members
members.add(organization=Organization.objects.get(), project=None, email="{REVIEWER}", role=Role.ORG_ADMIN,
            granter=GRANTS[Role.ORG_ADMIN], actor=system_actor("test"))
User.objects.filter(email="{REVIEWER}").update(last_login=timezone.now())
MessageEvent.objects.all().delete()  # the invitation
"""


@pytest.fixture(scope="module")
def server() -> Iterator[SmtpServer]:
    with smtp_server() as made:
        yield made


class Mailing:
    """A workspace with a reviewer, one agent in a prod environment, and a worker that dies while it sends e-mails."""

    def __init__(self, server: SmtpServer) -> None:
        settings = {
            "SMTP_URL": server.url, "MAIL_FROM": "byteor@cloud.example", "PUBLIC_BASE_URL": "https://cloud.example",
        }  # fmt: skip
        self.workspace = Workspace(DEPLOYMENT_MODE="api", **settings)
        self.worker = Worker(self.workspace.installation, "doomed_mailer", **settings)

    def prepare(self) -> None:
        workspace = self.workspace
        added = subprocess.run(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", ADD_REVIEWER],
            cwd=ROOT, env=workspace.installation.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert added.returncode == 0, added.stderr
        project = workspace.environment.partition("/environments/")[0]
        prod = workspace.post(f"{project}/environments", {"name": "prod", "posture": "prod"})
        workspace.environment = f"{project}/environments/{prod['id']}"
        token = workspace.enrollment_token()
        enrolled = workspace.request("POST", f"{workspace.environment}/agents", token, json={"name": "agent"})
        assert enrolled.status_code == 201, enrolled.text
        self.bundle = workspace.config_bundle()["id"]

    def ask(self) -> tuple[str, str]:
        """Request a deployment that the reviewer must approve. Returns its path and the id of its approval."""
        path = f"{self.workspace.environment}/deployments"
        deployment = self.workspace.post(path, {"config_bundle_id": self.bundle, "target": ALL})
        return f"{path}/{deployment['id']}", deployment["approval_id"]

    def count_mailed(self) -> int:
        """Return the number of notifications whose e-mail the worker has recorded as sent."""
        database = EmbeddedPostgres(self.workspace.installation.data_dir)
        try:
            with psycopg.connect(database.acquire()) as session:
                (count,) = session.execute(COUNT_MAILED).fetchone() or (0,)
        finally:
            database.release()
        return int(count)

    def close(self) -> None:
        self.worker.stop()
        self.workspace.installation.remove()


@pytest.fixture(scope="module")
def mailing(server: SmtpServer) -> Iterator[Mailing]:
    made = Mailing(server)
    try:
        made.prepare()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("moment", "copies"),
    [(BEFORE_CONNECT, 1), (AFTER_SENDER, 1), (BEFORE_RESPONSE, 2), (BEFORE_COMMIT, 2)],
)
def test_mail_arrives_after_worker_was_killed(mailing: Mailing, server: SmtpServer, moment: str, copies: int) -> None:
    """The e-mail arrives twice if the worker dies after the server accepted it and before the worker recorded that."""
    mailed, begin = mailing.count_mailed(), len(mailing.worker.printed_lines())
    mailing.worker.restart_and_die_at([moment])

    path, approval = mailing.ask()

    wait_until(lambda: f"died {moment}" in mailing.worker.printed_lines()[begin:])
    wait_until(lambda: mailing.count_mailed() == mailed + 1)
    mailing.worker.restart_and_die_at([])  # would send the e-mail again if the notification was still due
    mailing.workspace.post(f"{path}/abort", {})
    wait_until(lambda: mailing.workspace.get(path)["status"] == "failed")

    mails = [each for each in server.messages if approval in each.part("plain")]
    assert [each.recipient for each in mails] == [REVIEWER] * copies
    assert len({each.message["Message-ID"] for each in mails}) == 1
    assert mailing.count_mailed() == mailed + 1
    assert 'byteor_jobs{status="failed"} 0.0' in mailing.workspace.installation.get("/metrics").text
