"""Tests of commands such as ``bootstrap`` and ``sign_in_link``, of the public URL, and of errors that stop commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from apps.tenancy.models import AuditEvent, Membership, Organization, SigningKey, SignInLink, User, UserToken
from apps.tenancy.permissions import Role
from byteor_cloud import urls  # importing it registers the console's tables
from byteor_cloud.server import addresses
from tests.patience import PATIENCE_S
from tests.system.conftest import ROOT, Installation
from tests.worlds import Api, World


def run(*argv: str) -> str:
    out = StringIO()
    call_command(*argv, stdout=out)
    return out.getvalue()


def counts() -> list[int]:
    models = (Organization, User, Membership, UserToken, SignInLink, SigningKey, AuditEvent)
    return [model._base_manager.count() for model in models]


@pytest.mark.django_db
def test_bootstrap_creates_organization_and_admin_who_can_sign_in() -> None:
    message = run("bootstrap", "--org", "Acme", "--email", "ada@acme.example", "--json")

    made = json.loads(message)
    assert message == json.dumps(made) + "\n"
    organization, user = Organization.objects.get(), User.objects.get()
    assert made["org_id"] == str(organization.pk)
    assert made["user_id"] == str(user.pk)
    assert (organization.name, user.email) == ("Acme", "ada@acme.example")
    assert [(m.user, m.role, m.project) for m in Membership.objects.all()] == [(user, Role.ORG_ADMIN, None)]
    me = Api(made["token"]).get("/api/v1/me").json()
    assert me["user"]["email"] == "ada@acme.example"
    base, _, path = made["login_url"].partition("/auth/")
    assert base == "http://127.0.0.1:8080"
    client = Client()
    assert client.get(f"/auth/{path}").status_code == 200
    assert client.post(f"/auth/{path}").status_code == 302
    assert client.session["_auth_user_id"] == str(user.pk)
    # The secrets are in the output, but not in the audit events.
    events = " ".join(str(vars(event)) for event in AuditEvent.objects.all())
    assert made["token"] not in events
    assert path not in events


@pytest.mark.django_db
def test_bootstrap_prints_text_by_default() -> None:
    lines = run("bootstrap", "--org", "Acme", "--email", "ada@acme.example").splitlines()

    assert [line.split()[0] for line in lines] == ["org_id", "user_id", "token", "login_url"]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["Acme", "acme", "ACME!"])
def test_bootstrap_with_same_or_similar_organization_name_changes_nothing(name: str) -> None:
    run("bootstrap", "--org", "Acme", "--email", "ada@acme.example")
    before = counts()

    with pytest.raises(
        CommandError, match=f"^an organization with the name '{name}' or a similar name already exists$"
    ):
        run("bootstrap", "--org", name, "--email", "eve@acme.example")

    assert counts() == before


@pytest.mark.django_db
def test_bootstrap_reuses_account_for_second_organization() -> None:
    first = json.loads(run("bootstrap", "--org", "Acme", "--email", "ada@acme.example", "--json"))
    second = json.loads(run("bootstrap", "--org", "Umbrella", "--email", "ADA@acme.example", "--json"))

    assert first["user_id"] == second["user_id"]
    assert first["org_id"] != second["org_id"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("org", "email", "message"),
    [
        ("Acme", "no address", "'no address' is not an e-mail address"),
        ("Acme", "", "'' is not an e-mail address"),
        ("Acme", f"{'a' * 250}@acme.example", "not an e-mail address"),
        ("", "ada@acme.example", "--org must be 1 to 200 printable characters"),
        ("  ", "ada@acme.example", "--org must be"),
        ("A\x00cme", "ada@acme.example", "--org must be"),
        ("x" * 201, "ada@acme.example", "--org must be"),
    ],
)
def test_bootstrap_rejects_invalid_input(org: str, email: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("bootstrap", "--org", org, "--email", email)

    assert counts() == [0] * 7


@pytest.mark.django_db
def test_sign_in_link_and_invitation_create_no_token(world: World) -> None:
    invited = {"email": "new@acme.example", "role": "viewer"}
    before = counts()

    response = world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}/members", invited)
    made = json.loads(run("sign_in_link", "--email", "New@acme.example", "--json"))
    printed = run("sign_in_link", "--email", "new@acme.example")

    user = User.objects.get(email="new@acme.example")
    assert made == {"user_id": str(user.pk), "login_url": made["login_url"]}
    assert [line.split()[0] for line in printed.splitlines()] == ["user_id", "login_url"]
    after = counts()
    # A person, a membership, no token, three links (one for the inviter), and four events.
    assert [new - old for old, new in zip(before, after, strict=True)] == [0, 1, 1, 0, 3, 0, 4]
    assert "bor_usr_" not in response.text + printed + json.dumps(made)
    secret = made["login_url"].partition("/auth/link/")[2]
    assert Api(secret).get("/api/v1/me").status_code == 401  # a link is not a token
    statuses = [Client().post(f"/auth/link/{secret}").status_code for _ in range(2)]
    assert statuses == [302, 401]


@pytest.mark.django_db
@pytest.mark.parametrize("case", ["unknown", "inactive"])
def test_sign_in_link_rejects_unknown_and_inactive_accounts(world: World, case: str) -> None:
    email = "viewer@acme.example" if case == "inactive" else "eve@acme.example"
    User.objects.filter(email="viewer@acme.example").update(is_active=False)
    before = counts()

    with pytest.raises(CommandError, match=email):
        run("sign_in_link", "--email", email)

    assert counts() == before


@pytest.mark.parametrize(
    ("address", "public", "expected"),
    [
        (("127.0.0.1", 9000), None, "http://127.0.0.1:9000"),
        (("0.0.0.0", 8080), None, "http://127.0.0.1:8080"),
        (("::", 8080), None, "http://[::1]:8080"),
        (("::1", 8080), None, "http://[::1]:8080"),
        (("10.0.0.7", 80), "https://byteor.example", "https://byteor.example"),
    ],
)
def test_public_url_is_setting_or_bound_address_with_wildcard_replaced_by_loopback(
    settings: Any, tmp_path: Any, address: Any, public: str | None, expected: str
) -> None:
    config = replace(settings.CONFIG, api_bind_addr=address, public_base_url=public, data_dir=tmp_path)

    assert addresses.public_url(config) == expected


# Commands, most of them in separate processes


@pytest.fixture(scope="module")
def cold() -> Iterator[Installation]:
    """Create an installation without a running server, and remove it after the tests."""
    made = Installation()
    yield made
    made.remove()


def test_bootstrap_runs_without_server(cold: Installation) -> None:
    """Standard output is one line of JSON, which a script can parse, even if the command also logs."""
    done = cold.manage("bootstrap", "--org", "Acme", "--email", "ada@acme.example", "--json", LOG_FORMAT="json")

    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert set(json.loads(done.stdout)) == {"org_id", "user_id", "token", "login_url"}
    assert not (cold.data_dir / "postgres" / "data" / "postmaster.pid").exists()

    again = cold.manage("bootstrap", "--org", "Acme", "--email", "ada@acme.example", "--json")

    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "CommandError: an organization with the name 'Acme' or a similar name already exists\n"


def test_concurrent_bootstraps_on_new_data_folder_succeed(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = Installation(is_prepared=False)
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "bootstrap", "--org", name, "--email", "a@b.example", "--json"],
            env=made.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("Acme", "Umbrella")
    ]  # fmt: skip

    results = [process.communicate(timeout=PATIENCE_S) for process in processes]
    made.remove()

    assert [process.returncode for process in processes] == [0, 0], results
    first, second = (json.loads(out) for out, _ in results)
    assert first["user_id"] == second["user_id"]
    assert first["org_id"] != second["org_id"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"NONSENSE": "1"}, "unknown setting BYTEOR_CLOUD_NONSENSE"),
        ({"API_BIND_ADDR": "8080"}, "BYTEOR_CLOUD_API_BIND_ADDR must be HOST:PORT"),
        ({"DATABASE_URL": "postgresql://db/x"}, "BYTEOR_CLOUD_MASTER_KEY is required when"),
        ({"OIDC_ISSUER": "https://id.example"}, "BYTEOR_CLOUD_OIDC_ISSUER requires BYTEOR_CLOUD_OIDC_CLIENT_ID"),
        ({"DATA_DIR": "/dev/null/x"}, "BYTEOR_CLOUD_DATA_DIR /dev/null/x cannot be used: Not a directory"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_command_reports_invalid_setting(
    cold: Installation, settings: dict[str, str], message: str, command: str
) -> None:
    done = cold.manage(command, **settings)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"byteor-cloud: {message}")
    assert done.stderr.count("\n") == 1


def test_bootstrap_and_migrate_report_unreachable_database(cold: Installation) -> None:
    def connect(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return cold.manage(
            *argv,
            DATABASE_URL="postgresql://byteor:hunter2@127.0.0.1:1/byteor",
            MASTER_KEY="dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
            SECRET_KEY="test" * 10,
            API_BIND_ADDR=f"127.0.0.1:{cold.port}",
        )

    commands = [["bootstrap", "--org", "A", "--email", "a@b.example"], ["migrate"]]
    with ThreadPoolExecutor() as threads:
        for done in threads.map(connect, commands):
            assert (done.returncode, done.stdout) == (1, "")
            # The error may not be the last line, since the thread of the connection pool may still log its attempts.
            message = [line for line in done.stderr.splitlines() if line.startswith("byteor-cloud: ")]
            assert len(message) == 1
            assert message[0].startswith("byteor-cloud: the database cannot be used: ")
            assert "Connection refused" in done.stderr
            assert "Traceback" not in done.stderr
            assert "hunter2" not in done.stderr


def test_django_system_checks_report_nothing() -> None:
    """Most of our commands skip Django's checks. The command ``check`` runs them, including those of the console."""
    call_command("check", "--fail-level", "INFO", stdout=StringIO())
    assert urls.urlpatterns


def test_help_is_printed_without_starting_database(cold: Installation) -> None:
    empty = cold.data_dir / "empty"
    done = cold.manage("help", DATA_DIR=str(empty))

    assert done.returncode == 0
    assert "bootstrap" in done.stdout
    assert sorted(os.listdir(empty)) == ["secrets"]


def test_command_on_database_without_tables_fails_with_one_line() -> None:
    installation = Installation(is_prepared=False)
    try:
        done = installation.manage("verify_ledger")
    finally:
        installation.remove()

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CommandError: the database lacks migrations of this release: start the service first\n"


@pytest.mark.django_db
def test_organization_whose_slug_looks_like_id_is_found_by_slug(world: World) -> None:
    Organization.objects.filter(pk=world.organization.pk).update(slug="0" * 32)

    assert run("quota", "--org", "0" * 32, "--json").startswith("{")
