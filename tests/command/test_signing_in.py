"""Tests of ``byteor login``, ``logout`` and ``context``, and of the file with the contexts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.utils import timezone

from apps.tenancy.models import DeviceSignIn, UserToken
from apps.tenancy.services import device_sign_ins
from byteor.client import ByteOr, ConnectionFailed
from byteor.command import contexts, signing_in
from byteor.command.exits import Refusal
from tests.browser.filled import signed_in
from tests.command.conftest import Terminal
from tests.worlds import Person, World

pytestmark = pytest.mark.django_db
DEAD = "http://127.0.0.1:9"  # no server listens on this port


def config() -> Path:
    return contexts.config_file()


def stored() -> Any:
    return json.loads(config().read_text())


def token_of(person: Person) -> str:
    """Return the person's token."""
    assert person.api.token is not None
    return person.api.token


def press(person: Client, code: str, decision: str) -> None:
    """Enter the code on the page, and press a button."""
    page = person.post("/admin/device/", {"code": code})
    [form] = re.findall(r'name="_form" value="([^"]+)"', page.text)
    assert person.post("/admin/device/", {"code": code, "decision": decision, "_form": form}).status_code == 200


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Return a function that takes steps. In each wait of ``login``, the next step is called with the code.

    The function returns a list to which each wait is added, in seconds.
    """
    codes: list[str] = []
    begun = device_sign_ins.start

    def start(**values: Any) -> Any:
        found = begun(**values)
        codes.append(found.user_code)
        return found

    monkeypatch.setattr(device_sign_ins, "start", start)

    def plan(*steps: Callable[[str], Any]) -> list[float]:
        waits: list[float] = []
        left = list(steps)

        def wait(seconds: float) -> None:
            waits.append(seconds)
            DeviceSignIn.objects.update(polled_at=timezone.now() - device_sign_ins.INTERVAL)
            left.pop(0)(codes[-1])

        monkeypatch.setattr(signing_in, "sleep", wait)
        return waits

    return plan


def nothing(code: str) -> None:
    pass


def too_early(code: str) -> None:
    DeviceSignIn.objects.update(polled_at=timezone.now())


def test_login_stores_token_of_allowed_sign_in(
    terminal: Terminal, world: World, meanwhile: Callable[..., list[float]]
) -> None:
    config().unlink()
    person = signed_in(world.operator.user)
    waits = meanwhile(nothing, too_early, nothing, lambda code: press(person, code, "allow"))

    found = terminal("login", terminal.url, "--project", world.project.name, "--env", "staging", "--json")

    assert found.code == 0, found.err
    host = urlsplit(terminal.url).netloc
    assert found.json["context"] == host
    assert (found.json["user"], found.json["organization"]) == (world.operator.user.email, "acme")
    assert waits == [5, 5, 10, 10]
    assert f"{terminal.url}/admin/device/?user_code=" in found.err
    assert config().stat().st_mode & 0o777 == 0o600
    assert config().parent.stat().st_mode & 0o777 == 0o700
    context = stored()["contexts"][host]
    assert context["environment"] == str(world.staging.pk)
    assert UserToken.objects.filter(name__startswith="byteor on ").count() == 1
    assert context["token"] not in found.out + found.err
    shown = [line.split() for line in terminal("context", "show").out.splitlines()]
    assert ["Project:", world.project.name] in shown
    assert ["Environment:", "staging"] in shown
    assert terminal("api", "GET", "/api/v1/orgs/{org}/projects/{project}/environments/{env}").json["name"] == "staging"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda world, code: press(signed_in(world.operator.user), code, "deny"),
            "The sign-in was denied, or the account is not active.",
        ),
        (lambda world, code: DeviceSignIn.objects.update(expires_at=timezone.now()), "The code has expired."),
    ],
)
def test_denied_or_expired_sign_in_keeps_contexts(
    step: Any, message: str, terminal: Terminal, world: World, meanwhile: Callable[..., list[float]]
) -> None:
    before = stored()
    meanwhile(lambda code: step(world, code))

    found = terminal("login", terminal.url, "--name", "new")

    assert (found.code, found.out) == (1, "")
    assert message in found.err
    assert stored()["contexts"].keys() == before["contexts"].keys()


def test_login_keeps_new_token_if_next_request_fails(
    terminal: Terminal, world: World, meanwhile: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: ByteOr) -> None:
        raise ConnectionFailed("cut off")

    person = signed_in(world.operator.user)
    monkeypatch.setattr(device_sign_ins, "INTERVAL", timedelta(0))
    monkeypatch.setattr(ByteOr, "get_caller", fail)
    waits = meanwhile(lambda code: press(person, code, "allow"))

    found = terminal("login", terminal.url, "--name", "new")

    assert (found.code, waits) == (1, [1])
    token = stored()["contexts"]["new"]["token"]
    monkeypatch.undo()
    with ByteOr(terminal.url, token) as client:
        user = client.get_caller().user
    assert user is not None
    assert user.email == world.operator.user.email


def test_login_reads_token_from_stdin_and_checks_it(terminal: Terminal, world: World) -> None:
    signed = terminal("login", terminal.url, "--name", "ci", "--token", stdin=f"{token_of(world.viewer)}\n")
    token = token_of(world.viewer)
    unknown = token[:-1] + ("y" if token.endswith("x") else "x")
    wrong = terminal("login", terminal.url, "--name", "other", "--token", stdin=unknown)
    empty = terminal("login", terminal.url, "--name", "other", "--token", stdin="\n")

    assert signed.code == 0, signed.err
    assert f"as {world.viewer.user.email}" in signed.out
    assert stored()["current"] == "ci"
    assert stored()["contexts"].keys() == {"test", "ci"}
    assert (wrong.code, empty.code) == (4, 2)


def test_login_with_unknown_organization_stores_token_and_exits_1(terminal: Terminal, world: World) -> None:
    found = terminal("login", terminal.url, "--name", "ci", "--org", "nobody", "--token", stdin=token_of(world.viewer))

    assert found.code == 1
    assert "Signed in, but --org, --project and --env were not applied. No organization matches nobody." in found.err
    assert stored()["contexts"]["ci"]["token"] == token_of(world.viewer)


@pytest.mark.parametrize("url", ["ftp://x", "https://", "http://u:p@x", "https://x?a=1", "https://x:0", "https://x:y"])
def test_login_refuses_invalid_server_url(url: str, terminal: Terminal) -> None:
    assert terminal("login", url).code == 2


def test_login_refuses_context_name_that_belongs_to_another_server(terminal: Terminal) -> None:
    found = terminal("login", "https://byteor.example.com", "--name", "test")

    assert found.code == 2
    assert f"Context test belongs to the server {terminal.url}." in found.err


def test_logout_revokes_token_and_removes_context(terminal: Terminal, world: World) -> None:
    found = terminal("logout", "--json")

    assert (found.code, found.json["revoked"]) == (0, True)
    assert stored() == {"current": "", "contexts": {}}
    me = Client().get("/api/v1/me", headers={"Authorization": f"Bearer {world.operator.api.token}"})
    assert me.status_code == 401
    signed_out = terminal("drafts", "list")
    assert (signed_out.code, signed_out.out) == (4, "")
    assert "`byteor login URL`" in signed_out.err


def test_logout_with_revoked_token_removes_context(terminal: Terminal, world: World) -> None:
    UserToken.objects.filter(user=world.operator.user).update(revoked_at=timezone.now())

    expired = terminal("drafts", "list")
    found = terminal("logout")

    assert (expired.code, found.code) == (4, 0)
    assert "Sign in with `byteor login URL`." in expired.err
    assert found.out == "Signed out of test; its token was already invalid\n"
    assert stored()["contexts"] == {}


def test_logout_keeps_context_whose_token_cannot_be_revoked(terminal: Terminal, world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    both = stored()
    both["contexts"]["away"] = {**both["contexts"]["test"], "url": DEAD}
    config().write_text(json.dumps(both))

    kept = terminal("logout", "--all")
    forgotten = terminal("logout", "--context", "away", "--local")

    assert kept.code == 1
    assert "Signed out of test; its token is revoked" in kept.out
    assert "The token of context away was not revoked: " in kept.err
    assert (forgotten.code, stored()["contexts"]) == (0, {})


def test_context_set_resolves_names_and_checks_them(terminal: Terminal, world: World) -> None:
    changed = terminal("context", "set", "--env", "staging")
    before = config().read_text()
    wrong = terminal("context", "set", "--env", "nowhere")
    nothing_given = terminal("context", "set")

    assert changed.out == f"Context test: acme / {world.project.name} / staging\n"
    context = stored()["contexts"]["test"]
    assert context["organization"] == str(world.organization.pk)
    assert context["project_name"] == world.project.name
    assert context["environment"] == str(world.staging.pk)
    assert wrong.code == 1
    assert "No environment matches nowhere. Available: " in wrong.err
    assert nothing_given.code == 2
    assert config().read_text() == before


def test_contexts_are_listed_chosen_and_removed(terminal: Terminal) -> None:
    both = stored()
    both["contexts"]["prod"] = {"url": "https://byteor.example.com", "token": "secret", "added_later": 1}
    config().write_text(json.dumps(both))

    listed = terminal("context", "list", "--json=name,current")
    used = terminal("context", "use", "prod")
    unknown = terminal("context", "use", "nowhere")
    asked = terminal("context", "remove", "test")
    removed = terminal("context", "remove", "prod", "--yes")

    assert listed.json == [{"name": "prod", "current": False}, {"name": "test", "current": True}]
    assert used.out.startswith("Switched to context prod: ")
    assert (unknown.code, asked.code, removed.code) == (2, 2, 0)
    assert "secret" not in terminal("context", "list", "--json").out
    assert (stored()["current"], stored()["contexts"].keys()) == ("", {"test"})


# -- the file and the variables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"current": "x", "contexts": []}', '{"current": 5, "contexts": {}}',
     '{"current": "x", "contexts": {"x": {"url": 5}}}', '{"current": "x", "contexts": {"x": null}}', "\udcff"],
)  # fmt: skip
def test_damaged_config_file_is_reported_and_kept(content: str, terminal: Terminal) -> None:
    config().write_bytes(content.encode(errors="surrogateescape"))

    found = terminal("context", "list")

    assert (found.code, found.out) == (2, "")
    assert f"{config()} cannot be read" in found.err
    assert config().read_bytes() == content.encode(errors="surrogateescape")


def test_config_file_that_other_users_can_read_becomes_private(terminal: Terminal) -> None:
    config().chmod(0o644)

    first, second = terminal("context", "list"), terminal("context", "list")

    assert f"Other users had permissions on {config()}, so its mode was changed to 0600." in first.err
    assert second.err == ""
    assert config().stat().st_mode & 0o777 == 0o600


def test_unwritable_config_file_is_reported_before_sign_in(terminal: Terminal) -> None:
    config().unlink()
    config().parent.rmdir()
    config().parent.write_text("")  # a file instead of the folder

    found = terminal("login", terminal.url)

    assert "To sign in" not in found.err
    assert found.code in {1, 2}
    assert str(config()) in found.err
    assert not DeviceSignIn.objects.exists()


def test_symbolic_link_to_config_file_is_kept(terminal: Terminal, tmp_path: Path) -> None:
    config().rename(tmp_path / "dotfile.json")
    config().symlink_to(tmp_path / "dotfile.json")

    terminal("context", "use", "test")

    assert config().is_symlink()


def test_relative_or_empty_xdg_config_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert config() == tmp_path / ".config/byteor/config.json"


@pytest.mark.parametrize("token", [None, "", "bor_usr_other"])
def test_token_and_ids_of_context_are_not_sent_to_another_server(
    token: str | None, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTEOR_URL", "https://elsewhere.example.com")
    if token is not None:
        monkeypatch.setenv("BYTEOR_TOKEN", token)

    if token:
        _, context, warnings = contexts.current()
        assert context == contexts.Context("https://elsewhere.example.com", token)
        assert len(warnings) == 2
    else:
        with pytest.raises(Refusal, match="You are not signed in"):
            contexts.current()


def test_token_variable_overrides_token_of_context_with_warning(
    terminal: Terminal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTEOR_URL", f"{terminal.url}/")
    same = terminal("drafts", "list")
    monkeypatch.setenv("BYTEOR_TOKEN", token_of(world.viewer))
    other = terminal("api", "GET", "/api/v1/me")

    assert "Note:" not in same.err
    assert other.json["user"]["email"] == world.viewer.user.email
    assert "Note: BYTEOR_TOKEN overrides the token of the context test." in other.err


def test_choosing_other_organization_deselects_project_and_environment() -> None:
    context = contexts.Context("https://x", "t", "o", "p", "e", "acme", "quotes", "dev")

    assert context.at("acme", "", "") == context
    assert context.at("other", "", "") == contexts.Context("https://x", "t", "other")
    assert context.at("", "other", "").environment == ""
    assert context.at("", "quotes", "prod") == contexts.Context("https://x", "t", "o", "p", "prod", "acme", "quotes")
