"""Format messages for chat servers. Names and notes are escaped: they cannot add formatting, links or mentions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from urllib.parse import quote

from apps.notifications.models import ChatFormat
from apps.notifications.services.wording import Content

MAX_LENGTH = 3500
"""The maximum total length of the lines with details. Some servers split or refuse messages over 4,000 characters."""
# A zero-width space. After a character such as "@", it prevents a mention or a link.
_BREAK = "\u200b"

# Slack cannot escape "*", "~" and "`", so they are replaced by characters that look alike.
_SLACK = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": f"{_BREAK}&gt;",  # at the start of a line, it would mark a quotation
        "*": "\u2217",
        "~": "\u223c",
        "`": "\u02cb",
        "@": f"@{_BREAK}",
    }
)
# Within a word, an underscore has no effect.
_SLACK_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_MATTERMOST = str.maketrans(
    {
        **{each: f"\\{each}" for each in r"\`*{}[]()+-.!_>|"},
        "#": f"\\#{_BREAK}",  # a hashtag or a heading
        "~": f"\\~{_BREAK}",  # a link to a channel
        "@": f"@{_BREAK}",
        "&": f"&{_BREAK}",  # an entity
        "<": "\u2039",  # HTML; Mattermost cannot escape "<" and "$"
        "$": "\uff04",  # a formula
    }
)
_EMOJI_OR_SCHEME = re.compile(r":(?=\S)")
_DOMAIN = re.compile(r"(?<=\w)\.(?=[^\W\d_])")


def format_message(format: ChatFormat, content: Content, *, base_url: str) -> dict[str, str]:
    """Return the JSON body of a message. ``base_url`` is the installation's URL, with which the link starts.

    If the message would be too long, its last lines are replaced by their number.
    """
    style = _STYLES[format]
    lines, length = [style.escape(content.sentence)], 0
    for number, line in enumerate(content.lines):
        formatted = f"{style.bullet} {style.escape(line)}"
        length += len(formatted)
        if length > MAX_LENGTH:
            lines.append(f"{style.bullet} {len(content.lines) - number:,} more")
            break
        lines.append(formatted)
    # Without the empty line, Mattermost would show the link as a part of the last list item.
    return {"text": "\n".join([*lines, "", style.link(base_url + content.path, style.escape(content.action))])}


def escape_slack(text: str) -> str:
    """Return the text in one line, escaped so that Slack shows no formatting, links or mentions."""
    separated = _EMOJI_OR_SCHEME.sub(f":{_BREAK}", _SLACK_UNDERSCORE.sub("\u02cd", _on_one_line(text)))
    # Domains come last, because some of the characters that ``_SLACK`` inserts count as letters.
    return _DOMAIN.sub(f".{_BREAK}", separated.translate(_SLACK))


def escape_mattermost(text: str) -> str:
    """Return the text in one line, escaped so that Mattermost shows no formatting, links or mentions."""
    return _EMOJI_OR_SCHEME.sub(f":{_BREAK}", _on_one_line(text)).translate(_MATTERMOST)


def _on_one_line(text: str) -> str:
    """Replace whitespace and characters of Unicode's category C, such as control characters, with single spaces."""
    visible = (" " if unicodedata.category(each)[0] in "CZ" else each for each in text)
    return " ".join("".join(visible).split())


def _quoted(url: str) -> str:
    return quote(url, safe=":/?=%[]@!$,;+-._~")


class _Style:
    """The syntax of a chat server for text, lists and links."""

    def __init__(self, escape: Callable[[str], str], bullet: str, link: Callable[[str, str], str]) -> None:
        self.escape, self.bullet = escape, bullet
        self._link = link

    def link(self, url: str, label: str) -> str:
        """Return a link. ``label`` is already escaped."""
        return self._link(_quoted(url), label)


_STYLES: Mapping[ChatFormat, _Style] = {
    ChatFormat.SLACK: _Style(escape_slack, "•", lambda url, label: f"<{url}|{label}>"),
    ChatFormat.MATTERMOST: _Style(escape_mattermost, "-", lambda url, label: f"[{label}]({url})"),
}
