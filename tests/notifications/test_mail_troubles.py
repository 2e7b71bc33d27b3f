"""Trouble with mail servers: refused and delayed e-mails, hanging and closed connections, certificates, passwords."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from django.utils import timezone

from apps.notifications.jobs import HandleEvents
from apps.notifications.models import Notification
from apps.notifications.services import handling
from apps.notifications.services.mail import sending, smtp
from apps.releases.models import ConfigBundle
from apps.tenancy.models import User
from apps.tenancy.services.webhooks import outgoing
from tests.notifications.stories import ask, claim_all, handle, send, use_mail_server
from tests.patience import PATIENCE_S, wait_until
from tests.smtp_server import PASSWORD, SmtpServer, Step, Trouble, smtp_server
from tests.system.jobs.queue_steps import Note, Running, enqueue, ran
from tests.tenancy.receiver import certificate
from tests.worlds import World


@pytest.fixture
def server(settings: Any) -> Iterator[SmtpServer]:
    with smtp_server() as made:
        use_mail_server(settings, made)
        yield made


def recipients(server: SmtpServer) -> list[str]:
    return sorted(each.recipient for each in server.messages)


def everybody(world: World) -> list[str]:
    """Return the addresses of the people who can decide about the operator's request."""
    return sorted(each.user.email for each in (world.admin, world.project_admin, world.reviewer))


def make_due() -> None:
    Notification.objects.exclude(mail_due_at=None).update(mail_due_at=timezone.now())


def columns(name: str) -> set[Any]:
    """Return the values of a column of all notifications."""
    return set(Notification.objects.values_list(name, flat=True))


@pytest.mark.django_db
@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("step", Step)
def test_all_mails_arrive_after_trouble_at_any_step(
    server: SmtpServer,
    world: World,
    bundle: ConfigBundle,
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
    trouble: Trouble,
) -> None:
    ask(world, bundle)
    handle(world)
    server.behave(step, trouble)

    with monkeypatch.context() as impatient:
        if trouble is not Trouble.DROP:
            impatient.setattr(smtp, "STEP_S", 0.1)
            impatient.setattr(smtp, "ATTEMPT_S", 0.2)
        send(world)

    accepted = recipients(server)
    assert len(accepted) == (2 if (step, trouble) == (Step.MESSAGE, Trouble.DROP) else 0)
    assert columns("mailed_at") == {None}
    assert None not in columns("mail_due_at")
    assert columns("mail_error") == {"The connection to the mail server was closed or timed out."}
    server.recover()
    make_due()
    send(world)

    assert recipients(server) == sorted([*accepted, *everybody(world)])
    assert columns("mail_due_at") == {None}


@pytest.mark.django_db
def test_unavailable_server_gets_one_attempt_for_all_due_mails(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    ask(world, bundle)
    handle(world)
    server.behave(Step.CONNECT, "554 no service")

    send(world)

    assert server.count(Step.CONNECT) == 1
    assert columns("mail_tries") == {1}
    (due,) = columns("mail_due_at")
    assert due > timezone.now()
    send(world)
    assert server.count(Step.CONNECT) == 1


@pytest.mark.django_db
def test_refused_connection_counts_as_attempt_for_all_mails(settings: Any, world: World, bundle: ConfigBundle) -> None:
    with smtp_server() as server:
        use_mail_server(settings, server)
    ask(world, bundle)
    handle(world)

    send(world)

    assert columns("mail_tries") == {1}
    assert columns("mail_error") == {"The mail server cannot be used: [Errno 111] Connection refused"}


def fail_eight_times(world: World) -> list[set[timedelta]]:
    """Try eight times to send the due e-mails. Return their waits after each of the first seven attempts."""
    waits = []
    for _ in range(7):
        before = timezone.now()
        send(world)
        waits.append({due - before for due in columns("mail_due_at")})
        make_due()
    send(world)
    return waits


@pytest.mark.django_db
def test_attempts_while_server_is_down_are_at_most_15_minutes_apart_and_end_after_three_days(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    ask(world, bundle)
    handle(world)
    server.behave(Step.CONNECT, "421 later")

    waits = fail_eight_times(world)

    for (wait,), least in zip(waits, (15, 60, 240, 900, 900, 900, 900), strict=True):
        most = min(900, least * 1.2) + PATIENCE_S
        assert timedelta(seconds=least) <= wait <= timedelta(seconds=most)
    assert (columns("mailed_at"), columns("mail_error")) == ({None}, {"421 later"})

    make_due()
    Notification.objects.update(created_at=timezone.now() - timedelta(days=3, minutes=1))
    server.recover()
    send(world)
    assert (columns("mail_due_at"), columns("mailed_at")) == ({None}, {None})


@pytest.mark.django_db
def test_waits_between_attempts_of_deferred_mail_grow_and_mail_is_given_up_after_eight_attempts(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    ask(world, bundle)
    handle(world)
    server.behave(Step.RCPT, "451 later")

    waits = fail_eight_times(world)

    expected = [timedelta(seconds=s) for s in (15, 60, 240, 960, 3840, 15360, 61440)]
    for found, least in zip(waits, expected, strict=True):
        assert all(least <= wait <= least * 1.2 + timedelta(seconds=PATIENCE_S) for wait in found)
    assert (columns("mail_due_at"), columns("mailed_at"), columns("mail_tries")) == ({None}, {None}, {8})
    assert columns("mail_error") == {"451 later"}


@pytest.mark.django_db
@pytest.mark.parametrize("step", [Step.RCPT, Step.MESSAGE])
def test_refused_mail_is_not_sent_again_and_delays_no_other_mail(
    server: SmtpServer, world: World, bundle: ConfigBundle, step: Step
) -> None:
    refused = world.reviewer.user.email
    server.behave(step, lambda address: "550 5.1.1 No\x07 such user" if address == refused else None)
    ask(world, bundle)
    handle(world)

    send(world)

    assert recipients(server) == [each for each in everybody(world) if each != refused]
    row = Notification.objects.get(user=world.reviewer.user)
    assert (row.mail_due_at, row.mailed_at, row.mail_error) == (None, None, "550 5.1.1 No such user")
    server.recover()
    send(world)
    assert refused not in recipients(server)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address", ["büro@acme.example", "a b@@acme.example", "a@acme.example\r\nBcc: eve@example.com", "@"]
)
def test_mail_to_invalid_address_is_given_up_and_delays_no_other_mail(
    server: SmtpServer, world: World, bundle: ConfigBundle, address: str
) -> None:
    User.objects.filter(pk=world.reviewer.user.pk).update(email=address)
    ask(world, bundle)
    handle(world)

    send(world)

    assert recipients(server) == sorted([world.admin.user.email, world.project_admin.user.email])
    row = Notification.objects.get(user=world.reviewer.user)
    assert (row.mail_due_at, row.mailed_at) == (None, None)
    assert row.mail_error


@pytest.mark.django_db
@pytest.mark.parametrize("step", [Step.RCPT, Step.MESSAGE])
def test_deferred_mail_arrives_later_and_delays_no_other_mail(
    server: SmtpServer, world: World, bundle: ConfigBundle, step: Step
) -> None:
    deferred = world.reviewer.user.email
    server.behave(step, lambda address: "451 4.7.1 Greylisted" if address == deferred else None)
    ask(world, bundle)
    handle(world)

    send(world)

    assert recipients(server) == [each for each in everybody(world) if each != deferred]
    row = Notification.objects.get(user=world.reviewer.user)
    assert row.mail_due_at is not None
    assert (row.mail_tries, row.mail_error) == (1, "451 4.7.1 Greylisted")
    server.recover()
    make_due()
    send(world)
    assert recipients(server) == everybody(world)
    assert (columns("mail_due_at"), columns("mail_error")) == ({None}, {""})


@pytest.mark.django_db
def test_mail_that_makes_server_close_connection_does_not_delay_other_mails(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    poison = everybody(world)[0]
    server.behave(Step.DATA, lambda address: Trouble.DROP if address == poison else None)
    ask(world, bundle)
    handle(world)

    send(world)

    assert recipients(server) == everybody(world)[1:]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("step", "response"), [(Step.AUTH, "535 wrong"), (Step.MAIL, "550 unknown sender"), (Step.MAIL, "421 restarting")]
)
def test_all_mails_wait_if_mail_server_refuses_sign_in_or_sender(
    server: SmtpServer, world: World, bundle: ConfigBundle, step: Step, response: str
) -> None:
    ask(world, bundle)
    handle(world)
    server.behave(step, response)

    send(world)

    assert (server.messages, columns("mailed_at"), None in columns("mail_due_at")) == ([], {None}, False)


@pytest.mark.django_db
def test_password_is_neither_logged_nor_stored(
    settings: Any, world: World, bundle: ConfigBundle, caplog: pytest.LogCaptureFixture
) -> None:
    with smtp_server() as server:
        use_mail_server(settings, server)
        server.behave(Step.AUTH, lambda given: f"535 {given} is wrong, {PASSWORD}")  # includes the password in base64
        ask(world, bundle)
        handle(world)
        send(world)

    assert columns("mail_error") == {"The mail server refused the sign-in (535)."}
    assert "The mail server refused the sign-in (535)." in caplog.text
    (given,) = {argument for step, argument in server.steps if step is Step.AUTH}
    for secret in (PASSWORD, given.removeprefix("PLAIN ")):
        assert secret not in caplog.text
    assert PASSWORD not in repr(settings.CONFIG)


# -- TLS


def serve_tls(folder: Path, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(host, folder))
    return context


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Trust the certificate in ``tmp_path``, and resolve every host name to this host."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    monkeypatch.setattr(outgoing, "resolve", lambda host, port, *, within: ["127.0.0.1"])
    outgoing.tls_context.cache_clear()
    yield
    outgoing.tls_context.cache_clear()


@pytest.mark.django_db
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mails_are_sent_to_tls_server_with_trusted_certificate(
    settings: Any, world: World, bundle: ConfigBundle, tmp_path: Path, trust: None, security: Literal["starttls", "tls"]
) -> None:
    with smtp_server(tls=serve_tls(tmp_path, "mail.test"), security=security) as server:
        server.host = "mail.test"
        use_mail_server(settings, server)
        ask(world, bundle)
        handle(world)
        send(world)

        assert recipients(server) == everybody(world)


@pytest.mark.django_db
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_neither_mail_nor_password_is_sent_to_server_with_certificate_of_other_host(
    settings: Any, world: World, bundle: ConfigBundle, tmp_path: Path, trust: None, security: Literal["starttls", "tls"]
) -> None:
    with smtp_server(tls=serve_tls(tmp_path, "other.test"), security=security) as server:
        server.host = "mail.test"
        use_mail_server(settings, server)
        ask(world, bundle)
        handle(world)
        send(world)

    assert (server.messages, server.count(Step.AUTH)) == ([], 0)
    (reason,) = columns("mail_error")
    assert re.search("cannot be used.*CERTIFICATE_VERIFY_FAILED", reason)


@pytest.mark.django_db
def test_password_is_not_sent_without_required_encryption(settings: Any, world: World, bundle: ConfigBundle) -> None:
    with smtp_server() as server:
        server.security = "starttls"  # for the settings only; the server does not offer it
        use_mail_server(settings, server)
        server.security = "off"
        ask(world, bundle)
        handle(world)
        send(world)

    assert (server.messages, server.count(Step.AUTH)) == ([], 0)
    assert columns("mail_error") == {"STARTTLS extension not supported by server."}


# -- other work meanwhile


def test_hanging_mails_of_one_organization_delay_no_other_work(
    settings: Any, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    monkeypatch.setattr(smtp, "STEP_S", PATIENCE_S)
    monkeypatch.setattr(smtp, "ATTEMPT_S", PATIENCE_S)
    ran.clear()
    hanging, other = World("hanging"), World("other")
    for world in (hanging, other):
        world.agent(world.prod)
        ask(world, world.bundle(world.prod))
    claim_all()
    with smtp_server() as server:
        use_mail_server(settings, server)
        server.behave(Step.RCPT, lambda address: Trouble.HANG if address.endswith("@hanging.example") else None)
        handle(hanging)
        with Running():
            wait_until(lambda: server.count(Step.RCPT) == 1)
            handling.enqueue_pending()
            wait_until(lambda: recipients(server) == everybody(other))
            enqueue(HandleEvents(organization_id=str(hanging.organization.pk)), hanging.organization.pk)
            enqueue(Note(word="release"))
            wait_until(lambda: "release" in ran)
            sending.enqueue_due()
            # One connection for each organization. The mail jobs of the same organization run one after another.
            assert server.count(Step.CONNECT) == 2
            server.recover()
            server.released.set()
            wait_until(lambda: len(server.messages) >= 5)
        assert Notification.objects.filter(mailed_at=None, event__organization=hanging.organization).count() <= 1
