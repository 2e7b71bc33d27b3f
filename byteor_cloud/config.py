"""The operator's settings: environment variables, which are checked at start (README, "Settings")."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import getaddresses
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from byteor.engine.allowlist import Url, check_program, parse_url_prefix

PREFIX = "BYTEOR_CLOUD_"
type Mode = Literal["combined", "api", "worker"]
type BindAddress = tuple[str, int]
type Network = IPv4Network | IPv6Network
type Key = bytes | Path  # the key, or the path of its file, whose content ``rotate_master_key`` may replace


class ConfigError(Exception):
    """An unknown, missing or invalid setting. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """The mail server and the account on it. ``user`` and ``password`` are empty if the server requires no sign-in."""

    host: str
    port: int
    security: Literal["starttls", "tls", "off"]
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """The checked settings. ``database_url`` is None if the embedded database is used."""

    deployment_mode: Mode
    data_dir: Path
    database_url: str | None
    database_direct_url: str | None
    api_bind_addr: BindAddress
    worker_bind_addr: BindAddress | None
    public_base_url: str | None
    master_key: Key
    master_key_previous: Key | None
    secret_key: str
    backup_passphrase: str | None = field(repr=False)
    run_demo_agents: bool
    rate_limit: bool
    api_processes: int
    api_threads: int
    trusted_proxies: int
    max_body_bytes: int
    max_agent_body_bytes: int
    max_upload_bytes: int
    max_derived_bytes: int
    webhook_allow_private: tuple[Network, ...]
    log_format: Literal["console", "json"]
    s3_bucket: str | None
    s3_endpoint_url: str | None
    s3_region: str | None
    oidc_issuer: str | None
    oidc_client_id: str | None
    oidc_client_secret: str | None
    smtp_url: SmtpServer | None
    mail_from: str | None
    replay_http_allowlist: tuple[Url, ...]
    replay_exec_allowlist: tuple[str, ...]


def _address(text: str) -> BindAddress:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be HOST:PORT")
    return host.strip("[]"), int(port)


def _switch(text: str) -> bool:
    table = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    try:
        return table[text.lower()]
    except KeyError:
        raise ValueError("must be on or off") from None


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(map(ip_network, ("0.0.0.0/0", "::/0"))) if _switch(text) else ()
    except ValueError:
        pass
    try:
        return tuple(ip_network(part.strip()) for part in text.split(","))
    except ValueError:
        raise ValueError("must be on, off, or networks like 10.0.0.0/8, separated by commas") from None


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            _ = parts.port  # reading it checks it; a password with "/" may be taken for it
        except ValueError:  # its text may contain a password
            raise ValueError("must be a valid URL, with special characters in it percent-encoded") from None
        if parts.scheme not in schemes or not (parts.netloc or "postgresql" in schemes):
            raise ValueError(f"must be a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        return text.rstrip("/")

    return parse


def _origin(text: str) -> str:
    url = _url("http", "https")(text)
    if urlsplit(url)[2:] != ("", "", ""):
        raise ValueError("must be a URL without a path, query or fragment")
    return url


# ``urlsplit`` is not used, because it ignores line breaks and its errors may contain a part of the password.
_SMTP_URL = re.compile(
    r"(smtps?)://(?:([^\s:@/?#]+):([^\s:@/?#]+)@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?(\?tls=off)?"
)


def _smtp_server(text: str) -> SmtpServer:
    match = _SMTP_URL.fullmatch(text)
    if match is None:
        raise ValueError(
            "must be like smtp://user:password@host:587 or smtps://user:password@host:465, with special characters in "
            "the user and the password percent-encoded; add ?tls=off to smtp:// for a server without TLS"
        )
    scheme, user, password, host, port, off = match.groups(default="")
    if off and scheme == "smtps":
        raise ValueError("must not contain tls=off, because smtps:// means TLS")
    security: Literal["starttls", "tls", "off"] = "off" if off else "tls" if scheme == "smtps" else "starttls"
    number = int(port or {"starttls": 587, "tls": 465, "off": 25}[security])
    if not 1 <= number <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    user, password = unquote(user), unquote(password)
    if not (user + password).isascii() or not (user + password).isprintable():
        raise ValueError("must have a user and a password of printable ASCII characters")  # others cannot be sent
    return SmtpServer(host.strip("[]"), number, security, user, password)


_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")


def _sender(text: str) -> str:
    found = getaddresses([text]) if text.isprintable() else []
    if len(found) != 1 or not _MAILBOX.fullmatch(found[0][1]):
        raise ValueError('must be one e-mail address, or like "ByteOr Cloud <byteor@example.com>"')
    return text


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("must be 32 random bytes in base64 (openssl rand -base64 32)")
    return key


def _secret(text: str) -> str:
    if len(text) < 32:
        raise ValueError("must have at least 32 characters")
    return text


def _list[T](entry: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def parse(text: str) -> tuple[T, ...]:
        entries = []
        for part in text.split(","):
            try:
                entries.append(entry(part.strip()))
            except ValueError as error:
                raise ValueError(f"contains an invalid entry: {part.strip()[:200]!r} {error}") from None
        return tuple(entries)

    return parse


@contextlib.contextmanager
def _secret_file(path: Path, secret: bytes) -> Iterator[str]:
    """Yield the name of a temporary file with the secret, which the caller links or moves to ``path``.

    Only the owner can read the file.
    """
    # A random name, because process ids are not unique: in a container, every start may have the same one.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(base64.b64encode(secret).decode())
            file.flush()
            os.fsync(file.fileno())
            yield file.name
        finally:
            Path(file.name).unlink(missing_ok=True)


def _stored_secret(folder: Path, name: str) -> str:
    """Return the secret in the file ``folder/name``, generated on first use. Concurrent callers get the same secret."""
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _secret_file(path, secrets.token_bytes(32)) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    return path.read_text()


def read_key(source: Key | None) -> bytes | None:
    """Return the current value of a key, or None if there is none.

    Raises ValueError if its file is damaged, and OSError if the file cannot be read.
    """
    if not isinstance(source, Path):
        return source
    try:
        return _key(source.read_text("latin-1"))  # accepts any bytes; ``_key`` reports invalid ones
    except FileNotFoundError:
        return None


def replace_key(present: Path, previous: Path) -> bool:
    """Move the key in the file ``present`` to ``previous`` and create a new one.

    Returns False if ``previous`` contains another key. An interrupted call loses no key, and the next call completes
    it. Calls must not run concurrently.
    """
    with contextlib.suppress(FileExistsError):
        os.link(present, previous)
    if previous.read_bytes() != present.read_bytes():
        return False
    store_key(secrets.token_bytes(32), present)
    return True


def store_key(key: bytes, path: Path) -> None:
    """Write the key to a file that only its owner can read. Replaces an existing file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _secret_file(path, key) as temporary:
        Path(temporary).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(environ: Mapping[str, str]) -> Config:
    """Read and check the ``BYTEOR_CLOUD_*`` variables. Raises ConfigError.

    With the embedded database, a master key or secret key that is not set is read from the data folder. It is generated
    on first use.
    """
    given = {key: value for key, value in environ.items() if key.startswith(PREFIX) and value != ""}

    def take[T](name: str, parse: Callable[[str], T], default: T) -> T:
        text = given.pop(PREFIX + name, None)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise ConfigError(f"{PREFIX}{name} {error}") from None

    data_dir = take("DATA_DIR", Path, Path("var")).absolute()
    database_url = take("DATABASE_URL", _url("postgresql", "postgres"), None)

    def secret[T](name: str, parse: Callable[[str], T]) -> T:
        value = take(name, parse, None)
        if value is not None:
            return value
        if database_url is not None:
            raise ConfigError(f"{PREFIX}{name} is required when {PREFIX}DATABASE_URL is set")
        try:
            return parse(_stored_secret(data_dir / "secrets", name.lower()))
        except OSError as error:
            raise ConfigError(f"{PREFIX}DATA_DIR {data_dir} cannot be used: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"{data_dir}/secrets/{name.lower()} {error}") from None

    # If the operator sets no key, the setting is the path of the generated key, because the file's content may change.
    is_generated = PREFIX + "MASTER_KEY" not in given
    key_file = data_dir / "secrets/master_key"
    master_key: Key = secret("MASTER_KEY", _key)
    previous_key: Key | None = take("MASTER_KEY_PREVIOUS", _key, None)
    if is_generated:
        master_key, previous_key = key_file, previous_key or key_file.with_name("master_key_previous")
        try:
            read_key(previous_key)
        except OSError as error:
            raise ConfigError(f"{key_file.parent}/master_key_previous cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"{key_file.parent}/master_key_previous {error}") from None

    default_address = ("127.0.0.1" if database_url is None else "0.0.0.0", 8080)  # noqa: S104 - a production server listens on all interfaces
    config = Config(
        deployment_mode=cast("Mode", take("DEPLOYMENT_MODE", _choice("combined", "api", "worker"), "combined")),
        data_dir=data_dir,
        database_url=database_url,
        database_direct_url=take("DATABASE_DIRECT_URL", _url("postgresql", "postgres"), None),
        api_bind_addr=take("API_BIND_ADDR", _address, default_address),
        worker_bind_addr=take("WORKER_BIND_ADDR", _address, None),
        public_base_url=take("PUBLIC_BASE_URL", _origin, None),
        master_key=master_key,
        master_key_previous=previous_key,
        secret_key=secret("SECRET_KEY", _secret),
        backup_passphrase=take("BACKUP_PASSPHRASE", str, None),
        run_demo_agents=take("RUN_DEMO_AGENTS", _switch, False),
        rate_limit=take("RATE_LIMIT", _switch, True),
        api_processes=take("API_PROCESSES", _number(1, 64), 2),
        api_threads=take("API_THREADS", _number(1, 64), 8),
        trusted_proxies=take("TRUSTED_PROXIES", _number(0, 10), 0),
        max_body_bytes=take("MAX_BODY_BYTES", _number(1024, 1 << 30), 4 << 20),
        max_agent_body_bytes=take("MAX_AGENT_BODY_BYTES", _number(1024, 1 << 30), 64 << 10),
        max_upload_bytes=take("MAX_UPLOAD_BYTES", _number(1024, 1 << 40), 64 << 20),
        max_derived_bytes=take("MAX_DERIVED_BYTES", _number(1 << 20, 1 << 50), 2 << 30),
        webhook_allow_private=take("WEBHOOK_ALLOW_PRIVATE", _networks, ()),
        log_format=cast("Literal['console', 'json']", take("LOG_FORMAT", _choice("console", "json"), "console")),
        s3_bucket=take("S3_BUCKET", str, None),
        s3_endpoint_url=take("S3_ENDPOINT_URL", _url("http", "https"), None),
        s3_region=take("S3_REGION", str, None),
        oidc_issuer=take("OIDC_ISSUER", _url("http", "https"), None),
        oidc_client_id=take("OIDC_CLIENT_ID", str, None),
        oidc_client_secret=take("OIDC_CLIENT_SECRET", str, None),
        smtp_url=take("SMTP_URL", _smtp_server, None),
        mail_from=take("MAIL_FROM", _sender, None),
        replay_http_allowlist=take("REPLAY_HTTP_ALLOWLIST", _list(parse_url_prefix), ()),
        replay_exec_allowlist=take("REPLAY_EXEC_ALLOWLIST", _list(check_program), ()),
    )
    if given:
        raise ConfigError(f"unknown setting{'s' if len(given) > 1 else ''} {', '.join(sorted(given))}")
    if config.oidc_issuer and not (config.oidc_client_id and config.oidc_client_secret):
        raise ConfigError(f"{PREFIX}OIDC_ISSUER requires {PREFIX}OIDC_CLIENT_ID and {PREFIX}OIDC_CLIENT_SECRET")
    if config.smtp_url and not config.public_base_url:
        raise ConfigError(f"{PREFIX}SMTP_URL requires {PREFIX}PUBLIC_BASE_URL, which links in e-mails start with")
    if config.smtp_url and not config.mail_from:
        raise ConfigError(f"{PREFIX}SMTP_URL requires {PREFIX}MAIL_FROM")
    return config
