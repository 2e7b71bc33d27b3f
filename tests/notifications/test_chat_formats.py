"""Messages to chat servers: their parts and length, and names and notes that add no formatting, links or mentions."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from apps.notifications.models import ChatFormat
from apps.notifications.services.chat.formats import MAX_LENGTH, escape_mattermost, escape_slack, format_message
from apps.notifications.services.wording import Content

MARKUP = "*_~`<>&@#!|[](){}\\:/.-+=^$'\" \n\r\t\u200b\u202e\u2028abcé0"
TRICKS = [
    "<!channel>", "<!here|here>", "<@U012345>", "<#C012345|x>", "@here", "@all", "@channel", "@anna", "~town-square",
    "https://evil.example/x", "<https://evil.example|Approve>", "[Approve](https://evil.example)", "*bold*", "_i_",
    "~gone~", "`code`", "```", "> quote", "# title", ":smile:", "&lt;!channel&gt;", "![x](y)", "quotes_v1", " ", "\n",
]  # fmt: skip
TEXTS = st.text() | st.text(alphabet=MARKUP, max_size=40) | st.lists(st.sampled_from(TRICKS)).map("".join)
# An invisible character, and lookalikes of characters that Slack or Mattermost cannot escape.
SHOWN_AS = {"\u200b": "", "\u2217": "*", "\u223c": "~", "\u02cb": "`", "\u02cd": "_", "\u2039": "<", "\uff04": "$"}


def visible(text: str) -> str:
    """Return the visible characters of a text, except those in ``SHOWN_AS``."""
    return "".join(each for each in text if each.isprintable() and not each.isspace() and each not in SHOWN_AS)


@given(TEXTS)
@example("0.`")  # the lookalike of the backtick is a letter
def test_text_escaped_for_slack_contains_no_markup_mention_or_link(text: str) -> None:
    escaped = escape_slack(text)

    assert not set(escaped) & set("<>*~`\n\r")
    assert re.sub("&(amp|lt|gt);", "", escaped).count("&") == 0
    assert re.search(r"@[^\u200b]", escaped) is None  # no mention and no e-mail address
    assert re.search(r":[^\u200b\s]", escaped) is None  # no URL and no emoji
    assert re.search(r"(?<![^\W_])_|_(?![^\W_])", escaped) is None  # underscores only within words
    assert re.search(r"\w\.[^\W\d_]", escaped) is None  # no domain
    assert not escaped.startswith("&gt;")


@given(TEXTS)
def test_text_escaped_for_mattermost_contains_no_markup_mention_or_link(text: str) -> None:
    escaped = escape_mattermost(text)

    unescaped = re.sub(r"\\[\\`*{}\[\]()#+\-.!_>~|]", "", escaped)
    assert not set(unescaped) & set("\\`*{}[]()#+-.!_>~|<$\n\r")
    assert re.search(r"[@&][^\u200b]|[@&]$", escaped) is None  # no mention, e-mail address or entity
    assert re.search(r"\\[#~](?!\u200b)", escaped) is None  # no hashtag and no link to a channel
    assert re.search(r":[^\u200b\s]", escaped) is None  # no URL and no emoji


@given(st.text(alphabet=MARKUP))
def test_escaped_text_shows_same_visible_characters(text: str) -> None:
    slack = escape_slack(text).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
    mattermost = re.sub(r"\\(.)", r"\1", escape_mattermost(text))
    for each, shown in SHOWN_AS.items():
        slack, mattermost = slack.replace(each, shown), mattermost.replace(each, shown)

    assert visible(slack) == visible(text)
    assert visible(mattermost) == visible(text)


def test_message_consists_of_sentence_and_detail_lines_and_one_link() -> None:
    content = Content("a & b in <prod>.", "/admin/x/?in=1", "Review (now)", ("Note: *go*",))

    slack = format_message(ChatFormat.SLACK, content, base_url="https://cloud.example")
    mattermost = format_message(ChatFormat.MATTERMOST, content, base_url="https://cloud.example")

    assert slack == {
        "text": "a &amp; b in &lt;prod\u200b&gt;.\n• Note: \u2217go\u2217\n\n"
        "<https://cloud.example/admin/x/?in=1|Review (now)>"
    }
    assert mattermost == {
        "text": "a &\u200b b in \u2039prod\\>\\.\n- Note: \\*go\\*\n\n"
        "[Review \\(now\\)](https://cloud.example/admin/x/?in=1)"
    }


@given(st.lists(TEXTS, max_size=20), st.sampled_from(ChatFormat))
def test_message_has_one_link_and_bounded_length(lines: list[str], format: ChatFormat) -> None:
    content = Content("It runs", "/admin/", "Open", tuple(line[:300] for line in lines))

    text = format_message(format, content, base_url="https://cloud.example")["text"]

    assert text.count("https://") == 1
    assert len(text) <= MAX_LENGTH + 200


def test_lines_beyond_limit_are_counted() -> None:
    content = Content("Changes", "/admin/", "Open", ("x" * 300,) * 20)

    text = format_message(ChatFormat.SLACK, content, base_url="")["text"]

    assert "• 9 more" in text.split("\n")
    assert text.count("x" * 300) == 11
