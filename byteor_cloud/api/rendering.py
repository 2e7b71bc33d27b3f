"""The JSON of responses, encoded in pieces, so that other requests are not delayed until several MiB are encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, override

from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder

from byteor_cloud.concurrency.event_loop import pause
from byteor_cloud.json_text import JsonText

# Objects within objects are encoded member by member down to this depth. Deeper ones are encoded as a whole, and so are
# the items of lists.
_DEPTH = 6
_ITEMS = 16  # the number of list items that are encoded together


class _Encoder(JSONEncoder):
    @override
    def default(self, obj: Any) -> Any:
        return obj.value if isinstance(obj, JsonText) else super().default(obj)


def json_pieces(value: Any, *, sort_keys: bool = False, ensure_ascii: bool = True) -> Iterator[str]:
    """Yield the JSON of ``value``, encoded as by DRF with the shortest separators, in pieces.

    The text of a JsonText may be yielded unchanged, unless ``sort_keys`` is set. Other requests may compute between the
    pieces. Raises ValueError for NaN and infinities.
    """
    options: dict[str, Any] = {"sort_keys": sort_keys, "ensure_ascii": ensure_ascii, "separators": (",", ":")}
    encode = _Encoder(allow_nan=False, **options).encode
    for piece in _pieces(value, encode, sort_keys, _DEPTH):
        pause()
        yield piece


def _pieces(value: Any, encode: Callable[[Any], str], sort_keys: bool, depth: int) -> Iterator[str]:
    if isinstance(value, JsonText) and not sort_keys:
        yield value.text
    elif not depth or not value:
        yield encode(value)
    elif isinstance(value, dict) and all(isinstance(name, str) for name in value):
        before = "{"
        for name in sorted(value) if sort_keys else value:
            yield f"{before}{encode(name)}:"
            yield from _pieces(value[name], encode, sort_keys, depth - 1)
            before = ","
        yield "}"
    elif isinstance(value, (list, tuple)) and len(value) > _ITEMS:
        before = "["
        for start in range(0, len(value), _ITEMS):
            yield before + encode(list(value[start : start + _ITEMS]))[1:-1]
            before = ","
        yield "]"
    else:
        yield encode(value)


class PausingJSONRenderer(JSONRenderer):
    """DRF's JSON renderer, but other requests may compute between the pieces."""

    @override
    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        """Return the JSON text in UTF-8."""
        if data is None:
            return b""
        # Escape the separators U+2028 and U+2029 as DRF does. They are valid in JSON, but end a line in old JavaScript.
        text = "".join(json_pieces(data, ensure_ascii=False))
        return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode()
