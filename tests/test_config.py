"""Tests of valid, invalid, missing and unknown settings, of their one-line errors, and of generated key files."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.allowlist import Url
from byteor_cloud.config import ConfigError, SmtpServer, load, read_key, replace_key

KEY = base64.b64encode(b"k" * 32).decode()
SECRET = "s" * 32
URL = "postgresql://app@db/byteor"
PRODUCTION = {"DATABASE_URL": URL, "MASTER_KEY": KEY, "SECRET_KEY": SECRET}


def loaded(tmp_path: Path, **values: str) -> Any:
    """Load the settings from these values, with the data folder ``tmp_path``."""
    return load({"PATH": "/bin", **{f"BYTEOR_CLOUD_{k}": v for k, v in {"DATA_DIR": str(tmp_path), **values}.items()}})


def test_defaults_select_embedded_database_and_loopback_address(tmp_path: Path) -> None:
    config = loaded(tmp_path)

    assert (config.database_url, config.api_bind_addr, config.worker_bind_addr) == (None, ("127.0.0.1", 8080), None)
    assert (config.deployment_mode, config.log_format) == ("combined", "console")
    assert (config.rate_limit, config.run_demo_agents, config.trusted_proxies) == (True, False, 0)
    assert (config.max_body_bytes, config.max_upload_bytes) == (4 << 20, 64 << 20)
    assert (config.public_base_url, config.s3_bucket, config.oidc_issuer) == (None, None, None)
    assert (config.replay_http_allowlist, config.replay_exec_allowlist) == ((), ())


def test_production_defaults_select_all_interfaces(tmp_path: Path) -> None:
    config = loaded(tmp_path, **PRODUCTION)

    assert (config.database_url, config.api_bind_addr) == (URL, ("0.0.0.0", 8080))
    assert (config.master_key, config.secret_key) == (b"k" * 32, SECRET)
    assert list(tmp_path.iterdir()) == []


# Other settings that a setting requires.
MAIL = {"MAIL_FROM": "byteor@example.com", "PUBLIC_BASE_URL": "https://cloud.example"}
REQUIRED = {"SMTP_URL": MAIL}
URL_FORM = "must be a valid URL, with special characters in it percent-encoded"
SMTP_FORM = (
    "must be like smtp://user:password@host:587 or smtps://user:password@host:465, with special characters in the user "
    "and the password percent-encoded; add ?tls=off to smtp:// for a server without TLS"
)
MAIL_FROM_FORM = 'must be one e-mail address, or like "ByteOr Cloud <byteor@example.com>"'


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DEPLOYMENT_MODE", "worker", "worker"),
        ("API_BIND_ADDR", "0.0.0.0:80", ("0.0.0.0", 80)),
        ("API_BIND_ADDR", "[::1]:8080", ("::1", 8080)),
        ("WORKER_BIND_ADDR", "127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("PUBLIC_BASE_URL", "https://cloud.example.com/", "https://cloud.example.com"),
        ("RUN_DEMO_AGENTS", "true", True),
        ("RATE_LIMIT", "OFF", False),
        ("API_PROCESSES", "4", 4),
        ("API_THREADS", "64", 64),
        ("TRUSTED_PROXIES", "1", 1),
        ("MAX_BODY_BYTES", "1024", 1024),
        ("MAX_UPLOAD_BYTES", "2048", 2048),
        ("LOG_FORMAT", "json", "json"),
        ("WEBHOOK_ALLOW_PRIVATE", "off", ()),
        ("WEBHOOK_ALLOW_PRIVATE", "on", (ip_network("0.0.0.0/0"), ip_network("::/0"))),
        ("WEBHOOK_ALLOW_PRIVATE", "10.0.0.0/8, fd00::/8", (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
        ("S3_BUCKET", "artifacts", "artifacts"),
        ("S3_ENDPOINT_URL", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("S3_REGION", "eu-central-1", "eu-central-1"),
        ("MASTER_KEY", KEY, b"k" * 32),
        ("MASTER_KEY_PREVIOUS", KEY, b"k" * 32),
        ("SECRET_KEY", SECRET, SECRET),
        (
            "REPLAY_HTTP_ALLOWLIST",
            "https://hooks.example/replay, http://[::1]:9000",
            (Url("https", "hooks.example", 443, "/replay", ""), Url("http", "::1", 9000, "", "")),
        ),
        ("REPLAY_EXEC_ALLOWLIST", "/usr/bin/tr,/opt/a b", ("/usr/bin/tr", "/opt/a b")),
        ("SMTP_URL", "smtp://mail.example", SmtpServer("mail.example", 587, "starttls")),
        ("SMTP_URL", "smtps://u%40x:p%2F%3A@mail.example/", SmtpServer("mail.example", 465, "tls", "u@x", "p/:")),
        ("SMTP_URL", "smtp://127.0.0.1?tls=off", SmtpServer("127.0.0.1", 25, "off")),
        ("SMTP_URL", "smtp://u:p@[::1]:2525/?tls=off", SmtpServer("::1", 2525, "off", "u", "p")),
        ("MAIL_FROM", "byteor@example.com", "byteor@example.com"),
        ("MAIL_FROM", '"Büro, Nord" <byteor@mail.example>', '"Büro, Nord" <byteor@mail.example>'),
    ],
)
def test_valid_value_is_parsed(tmp_path: Path, name: str, text: str, value: Any) -> None:
    assert getattr(loaded(tmp_path, **{name: text}, **REQUIRED.get(name, {})), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("DEPLOYMENT_MODE", "both", "must be one of combined, api, worker"),
        ("DATABASE_URL", "sqlite:///db", "must be a URL that starts with postgresql:// or postgres://"),
        ("DATABASE_URL", "postgresql://user:hunter[2@host/db", URL_FORM),
        ("DATABASE_URL", "postgresql://user:hun/ter2@host/db", URL_FORM),
        ("DATABASE_URL", "postgresql://user:hun?ter2@host/db", URL_FORM),
        ("DATABASE_DIRECT_URL", "postgresql://user:hun#ter2@host/db", URL_FORM),
        ("PUBLIC_BASE_URL", "https://host:99999", URL_FORM),
        ("DATABASE_URL", "postgresql://user:hunter\N{CARE OF}2@host/db", URL_FORM),
        ("API_BIND_ADDR", "8080", "must be HOST:PORT"),
        ("API_BIND_ADDR", ":8080", "must be HOST:PORT"),
        ("API_BIND_ADDR", "localhost:²", "must be HOST:PORT"),
        ("API_BIND_ADDR", "localhost:65536", "must be HOST:PORT"),
        ("WORKER_BIND_ADDR", "localhost:", "must be HOST:PORT"),
        ("PUBLIC_BASE_URL", "cloud.example.com", "must be a URL that starts with http:// or https://"),
        ("PUBLIC_BASE_URL", "https://", "must be a URL that starts with http:// or https://"),
        ("PUBLIC_BASE_URL", "https://cloud.example.com/base", "must be a URL without a path, query or fragment"),
        ("MASTER_KEY", "short", "must be 32 random bytes in base64 (openssl rand -base64 32)"),
        ("MASTER_KEY_PREVIOUS", KEY[4:], "must be 32 random bytes in base64 (openssl rand -base64 32)"),
        ("MASTER_KEY", KEY + "!", "must be 32 random bytes in base64 (openssl rand -base64 32)"),
        ("SECRET_KEY", "s" * 31, "must have at least 32 characters"),
        ("RUN_DEMO_AGENTS", "maybe", "must be on or off"),
        ("RATE_LIMIT", "2", "must be on or off"),
        ("API_PROCESSES", "0", "must be a whole number from 1 to 64"),
        ("API_THREADS", "65", "must be a whole number from 1 to 64"),
        ("TRUSTED_PROXIES", "-1", "must be a whole number from 0 to 10"),
        ("MAX_BODY_BYTES", "4 MiB", "must be a whole number from 1024 to 1073741824"),
        ("MAX_UPLOAD_BYTES", "1e6", "must be a whole number from 1024 to 1099511627776"),
        ("LOG_FORMAT", "xml", "must be one of console, json"),
        ("S3_ENDPOINT_URL", "s3://bucket", "must be a URL that starts with http:// or https://"),
        (
            "REPLAY_HTTP_ALLOWLIST",
            "https://hooks.example,ftp://b",
            "contains an invalid entry: "
            "'ftp://b' must start with http:// or https://, and have a host, no user and no port 0",
        ),
        (
            "REPLAY_EXEC_ALLOWLIST",
            "tr",
            "contains an invalid entry: 'tr' must be the absolute path of a program in printable characters, "
            "without the segments . and .. and without unneeded slashes",
        ),
        (
            "WEBHOOK_ALLOW_PRIVATE",
            "10.0.0.1/8",
            "must be on, off, or networks like 10.0.0.0/8, separated by commas",
        ),
        ("OIDC_ISSUER", "issuer", "must be a URL that starts with http:// or https://"),
        ("SMTP_URL", "mail.example:25", SMTP_FORM),
        ("SMTP_URL", "http://mail.example", SMTP_FORM),
        ("SMTP_URL", "smtp://user@mail.example", SMTP_FORM),
        ("SMTP_URL", "smtp://user:hunter/2@mail.example", SMTP_FORM),
        ("SMTP_URL", "smtp://user:hunter@2@mail.example", SMTP_FORM),
        ("SMTP_URL", "smtp://mail.example?tls=on", SMTP_FORM),
        ("SMTP_URL", "smtp://mail.example\n", SMTP_FORM),
        ("SMTP_URL", "smtps://mail.example?tls=off", "must not contain tls=off, because smtps:// means TLS"),
        ("SMTP_URL", "smtp://u:hunter@mail.example:99999", "must have a port from 1 to 65535"),
        ("SMTP_URL", "smtp://u:h%0A@mail.example", "must have a user and a password of printable ASCII characters"),
        ("SMTP_URL", "smtp://u:h%C3%BC@mail.example", "must have a user and a password of printable ASCII characters"),
        ("MAIL_FROM", "ByteOr", MAIL_FROM_FORM),
        ("MAIL_FROM", "a@example.com, b@example.com", MAIL_FROM_FORM),
        ("MAIL_FROM", "ByteOr <a@example.com>\nBcc: <eve@example.com>", MAIL_FROM_FORM),
        ("MAIL_FROM", "ByteOr\r\n <a@example.com>", MAIL_FROM_FORM),
        ("MAIL_FROM", "büro@example.com", MAIL_FROM_FORM),
    ],
)
def test_invalid_value_is_explained_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **{name: text})

    assert str(caught.value) == f"BYTEOR_CLOUD_{name} {message}"


def test_unknown_settings_are_named_in_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown settings BYTEOR_CLOUD_A, BYTEOR_CLOUD_RATE_LIMITS$"):
        loaded(tmp_path, RATE_LIMITS="on", A="1")


def test_empty_value_counts_as_unset(tmp_path: Path) -> None:
    assert loaded(tmp_path, API_THREADS="", DATABASE_URL="").api_threads == 8


@pytest.mark.parametrize("missing", ["MASTER_KEY", "SECRET_KEY"])
def test_missing_secret_is_refused_in_production(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **{k: v for k, v in PRODUCTION.items() if k != missing})

    assert str(caught.value) == f"BYTEOR_CLOUD_{missing} is required when BYTEOR_CLOUD_DATABASE_URL is set"


@pytest.mark.parametrize("missing", ["OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"])
def test_oidc_issuer_requires_client_id_and_secret(tmp_path: Path, missing: str) -> None:
    oidc = {"OIDC_ISSUER": "https://id.example.com", "OIDC_CLIENT_ID": "c", "OIDC_CLIENT_SECRET": "s"}
    assert loaded(tmp_path, **oidc).oidc_issuer == "https://id.example.com"

    with pytest.raises(ConfigError, match=r"^BYTEOR_CLOUD_OIDC_ISSUER requires"):
        loaded(tmp_path, **{k: v for k, v in oidc.items() if k != missing})


@pytest.mark.parametrize("missing", MAIL)
def test_mail_server_requires_sender_and_public_url(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"^BYTEOR_CLOUD_SMTP_URL requires BYTEOR_CLOUD_{missing}\b"):
        loaded(tmp_path, SMTP_URL="smtp://mail.example", **{name: MAIL[name] for name in MAIL if name != missing})


def test_repr_of_config_omits_mail_server_password(tmp_path: Path) -> None:
    config = loaded(tmp_path, SMTP_URL="smtp://user:hunter2@mail.example", **MAIL)

    assert config.smtp_url.password == "hunter2"
    assert "hunter2" not in repr(config)


def test_keys_are_generated_once_in_private_files_with_embedded_database(tmp_path: Path) -> None:
    first = loaded(tmp_path)
    second = loaded(tmp_path)

    assert (read_key(first.master_key), first.secret_key) == (read_key(second.master_key), second.secret_key)
    assert read_key(first.master_key) != base64.b64decode(first.secret_key)
    assert read_key(first.master_key_previous) is None
    files = sorted((tmp_path / "secrets").iterdir())
    assert [f.name for f in files] == ["master_key", "secret_key"]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["master_key", "master_key_previous"])
def test_damaged_master_key_file_is_named_in_error(tmp_path: Path, name: str) -> None:
    loaded(tmp_path)
    (tmp_path / "secrets" / name).write_text("x")

    with pytest.raises(ConfigError, match=rf"/secrets/{name} must be 32 random bytes in base64"):
        loaded(tmp_path)


def test_unreadable_previous_key_file_is_named_in_error(tmp_path: Path) -> None:
    loaded(tmp_path)
    (tmp_path / "secrets/master_key_previous").mkdir()

    with pytest.raises(ConfigError, match=r"/secrets/master_key_previous cannot be read: Is a directory"):
        loaded(tmp_path)


def test_replace_key_stores_new_and_previous_key_once(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    present, previous = config.master_key, config.master_key_previous
    old = read_key(present)

    assert replace_key(present, previous) is True

    assert read_key(previous) == old != read_key(present)
    assert stat.S_IMODE(present.stat().st_mode) == 0o600
    new = read_key(present)
    assert replace_key(present, previous) is False
    assert (read_key(present), read_key(previous)) == (new, old)
    assert sorted(f.name for f in (tmp_path / "secrets").iterdir()) == [
        "master_key", "master_key_previous", "secret_key",
    ]  # fmt: skip


def test_interrupted_replace_key_loses_no_key_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loaded(tmp_path)
    old = read_key(config.master_key)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            replace_key(config.master_key, config.master_key_previous)
    assert (read_key(config.master_key), read_key(config.master_key_previous)) == (old, old)

    assert replace_key(config.master_key, config.master_key_previous) is True

    assert read_key(config.master_key_previous) == old != read_key(config.master_key)


def test_key_files_are_ignored_when_operator_sets_key(tmp_path: Path) -> None:
    generated = loaded(tmp_path)
    replace_key(generated.master_key, generated.master_key_previous)

    config = loaded(tmp_path, MASTER_KEY=KEY)

    assert (config.master_key, config.master_key_previous) == (b"k" * 32, None)


def test_unusable_data_folder_is_named_in_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(ConfigError, match=rf"^BYTEOR_CLOUD_DATA_DIR {file} cannot be used: Not a directory$"):
        loaded(file)


def test_concurrent_processes_generate_one_master_key(tmp_path: Path) -> None:
    code = "import os, byteor_cloud.config as c; print(c.read_key(c.load(os.environ).master_key).hex())"
    environ = {"BYTEOR_CLOUD_DATA_DIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]

    printed = [process.communicate(timeout=30)[0] for process in started]

    assert [process.returncode for process in started] == [0] * 6
    assert len(set(printed)) == 1
    assert len(printed[0]) == 65
    assert sorted(f.name for f in (tmp_path / "secrets").iterdir()) == ["master_key", "secret_key"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("API_THREADS", "many", "must be a whole number from 1 to 64"),
        ("SMTP_URL", "smtp://user:hunter2/@mail.example", SMTP_FORM),
    ],
)
def test_command_with_invalid_setting_prints_one_line_and_stops(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=root,
        env={"BYTEOR_CLOUD_DATA_DIR": str(tmp_path), f"BYTEOR_CLOUD_{name}": text},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.strip().count("\n") == 0
    assert f"BYTEOR_CLOUD_{name} {message}" in ended.stderr
    assert "hunter2" not in ended.stderr
