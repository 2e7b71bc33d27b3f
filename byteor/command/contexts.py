"""The stored contexts: for each, a server, a token, and the organization, project and environment to work in.

They are in ``byteor/config.json`` in the XDG configuration folder, which only its owner can read. ``BYTEOR_CONTEXT``
names the context to use; ``BYTEOR_URL`` and ``BYTEOR_TOKEN`` override its server and token.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from byteor.command.exits import SIGNED_OUT, USAGE, Refusal

URL, TOKEN, NAME = "BYTEOR_URL", "BYTEOR_TOKEN", "BYTEOR_CONTEXT"


@dataclass(frozen=True)
class Context:
    """Where commands work. The organization, the project and the environment are names or ids; empty: none chosen."""

    url: str = ""
    token: str = field(default="", repr=False)
    organization: str = ""
    project: str = ""
    environment: str = ""


@dataclass(frozen=True)
class Contexts:
    """All stored contexts by name, and the name of the current one."""

    current: str = ""
    by_name: dict[str, Context] = field(default_factory=dict)

    def with_context(self, name: str, context: Context) -> Contexts:
        """Return the contexts with this one, which becomes the current one."""
        return Contexts(name, {**self.by_name, name: context})


def config_file() -> Path:
    """Return the path of the file with the contexts."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "byteor" / "config.json"


def load() -> Contexts:
    """Read the contexts. Raises Refusal if the file cannot be read."""
    path = config_file()
    try:
        stored = json.loads(path.read_text())
        return Contexts(stored["current"], {name: Context(**each) for name, each in stored["contexts"].items()})
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refusal(f"{path} cannot be read ({error}). Correct it, or remove it and sign in again.", USAGE) from None


def store(contexts: Contexts) -> None:
    """Write the contexts. Another process never sees a half-written file or one that others can read."""
    import tempfile  # noqa: PLC0415  slow to import, and most commands only read the contexts

    path = config_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"current": contexts.current, "contexts": {name: asdict(each) for name, each in contexts.by_name.items()}}
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".config")  # with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def current(name: str | None = None) -> tuple[str, Context, list[str]]:
    """Return the name of the context to use, the context, and warnings about variables that override it.

    ``name`` overrides ``BYTEOR_CONTEXT``, which overrides the stored choice. Raises Refusal if there is no such
    context, no server, or no token.
    """
    contexts, warnings = load(), []
    chosen = name or os.environ.get(NAME) or contexts.current
    if chosen and chosen not in contexts.by_name:
        known = ", ".join(sorted(contexts.by_name)) or "none"
        raise Refusal(f"There is no context {chosen}. Contexts: {known}.", USAGE)
    if not name and NAME in os.environ and os.environ[NAME] != contexts.current:
        warnings.append(f"{NAME} selects the context {chosen} instead of {contexts.current or 'none'}.")
    context = contexts.by_name.get(chosen, Context())
    for variable, member in ((URL, "url"), (TOKEN, "token")):
        value = os.environ.get(variable, "")
        if value and chosen and value != getattr(context, member):
            warnings.append(
                f"{variable} overrides the {'server' if member == 'url' else member} of the context {chosen}."
            )
        if value:
            context = replace(context, **{member: value})
    if URL in os.environ and TOKEN not in os.environ and context.url != contexts.by_name.get(chosen, context).url:
        context = replace(context, token="")  # the token of a context is never sent to another server
    if not context.url or not context.token:
        raise Refusal(f"You are not signed in. Run `byteor login URL`, or set {URL} and {TOKEN}.", SIGNED_OUT)
    return chosen, context, warnings
