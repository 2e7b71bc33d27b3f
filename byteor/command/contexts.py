"""The stored contexts: for each, a server, a token, and the organization, project and environment to work in.

They are in the file ``byteor/config.json`` in the XDG configuration folder. Only its owner can read the file.
``BYTEOR_CONTEXT`` names the context to use; ``BYTEOR_URL`` and ``BYTEOR_TOKEN`` override its server and token.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from byteor.command.exits import FAILED, SIGNED_OUT, USAGE, Refusal
from byteor.command.output import note

URL, TOKEN, NAME = "BYTEOR_URL", "BYTEOR_TOKEN", "BYTEOR_CONTEXT"
_OTHERS: Final = 0o077  # the permissions of other users


@dataclass(frozen=True)
class Context:
    """Where commands work. The organization, project and environment are names or ids, or empty if none is selected.

    A stored context contains their ids, and their names in the fields that end with ``_name``.
    """

    url: str = ""
    token: str = field(default="", repr=False)
    organization: str = ""
    project: str = ""
    environment: str = ""
    organization_name: str = ""
    project_name: str = ""
    environment_name: str = ""

    def at(self, organization: str, project: str, environment: str) -> Context:
        """Return the context with the given levels. A new level deselects the levels below it."""
        found = self
        if organization and organization not in {self.organization, self.organization_name}:
            found = Context(self.url, self.token, organization)
        if project and project not in {found.project, found.project_name}:
            found = Context(
                self.url, self.token, found.organization, project, organization_name=found.organization_name
            )
        return replace(found, environment=environment, environment_name="") if environment else found


@dataclass(frozen=True)
class Contexts:
    """All stored contexts by name, and the name of the current one."""

    current: str = ""
    by_name: dict[str, Context] = field(default_factory=dict)

    def with_context(self, name: str, context: Context) -> Contexts:
        """Return the contexts with this one as the current context."""
        return Contexts(name, {**self.by_name, name: context})

    def without(self, name: str) -> Contexts:
        """Return the contexts without this one. If it was the current one, none is current."""
        kept = {each: context for each, context in self.by_name.items() if each != name}
        return Contexts("" if self.current == name else self.current, kept)

    def named(self, name: str | None) -> tuple[str, Context]:
        """Return the name and the context: ``name``, or ``BYTEOR_CONTEXT``, or the current one. Raises Refusal."""
        chosen = name if name is not None else os.environ.get(NAME) or self.current
        if name is None and not chosen:
            raise Refusal("No context is selected. Run `byteor login URL` or `byteor context use NAME`.", SIGNED_OUT)
        if chosen not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise Refusal(f"There is no context {chosen or repr(chosen)}. Contexts: {known}.", USAGE)
        return chosen, self.by_name[chosen]


def config_file() -> Path:
    """Return the path of the file with the contexts. A relative ``XDG_CONFIG_HOME`` is ignored, as XDG requires."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".config") / "byteor" / "config.json"


def load() -> Contexts:
    """Read the contexts. Returns an empty ``Contexts`` if there is no file. Raises Refusal if it cannot be read.

    On POSIX systems, if other users have permissions on the file, changes its mode to 0600 and prints a note.
    """
    path = config_file()
    try:
        if os.name == "posix" and path.stat().st_mode & _OTHERS:
            path.chmod(0o600)
            note(
                f"Note: Other users had permissions on {path}, so its mode was changed to 0600. Replace the tokens in "
                "this file."
            )
        stored = json.loads(path.read_text())
        return Contexts(_text(stored["current"]), {name: _context(each) for name, each in stored["contexts"].items()})
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise Refusal(
            f"{path} cannot be read ({what}). Correct the file, or remove it and sign in again.", USAGE
        ) from None


def _context(stored: dict[str, object]) -> Context:
    known = {each.name for each in fields(Context)}  # a newer version may have stored further fields
    return Context(**{name: _text(value) for name, value in stored.items() if name in known})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r:.40}")
    return value


def store(contexts: Contexts) -> None:
    """Write the contexts atomically, to a file that only its owner can read. Raises Refusal."""
    import tempfile  # noqa: PLC0415  slow to import, and most commands only read the contexts

    path = config_file().resolve()  # the file may be a link into a folder of dotfiles
    content = {"current": contexts.current, "contexts": {name: asdict(each) for name, each in contexts.by_name.items()}}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".config")  # with mode 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(content, file, indent=2)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        raise Refusal(f"{path} cannot be written ({error.strerror}).", FAILED) from None


def current(name: str | None = None) -> tuple[str, Context, list[str]]:
    """Return the name of the context to use, the context, and warnings about variables that override what is stored.

    The name is empty if no context is selected.

    ``name`` overrides ``BYTEOR_CONTEXT``, which overrides the stored choice. Raises Refusal if there is no such
    context, no server, or no token. A token of a context is sent only to the context's server.
    """
    contexts, warnings = load(), []
    chosen, stored = name if name is not None else os.environ.get(NAME) or contexts.current, Context()
    if chosen or name is not None:
        chosen, stored = contexts.named(chosen)
    if not name and chosen != contexts.current:
        warnings.append(f"{NAME} selects the context {chosen} instead of {contexts.current or 'none'}.")
    url, token = os.environ.get(URL, "").strip().rstrip("/"), os.environ.get(TOKEN, "").strip()
    context = stored
    if url and url != stored.url:
        context = Context(url)  # the ids of the context are those of its own server
        if chosen:
            warnings.append(f"{URL} overrides the server of the context {chosen}.")
    if token and token != context.token:
        context = replace(context, token=token)
        if chosen:
            warnings.append(f"{TOKEN} overrides the token of the context {chosen}.")
    if not context.url or not context.token:
        raise Refusal(f"You are not signed in. Run `byteor login URL`, or set {URL} and {TOKEN}.", SIGNED_OUT)
    return chosen, context, warnings
