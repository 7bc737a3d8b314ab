"""What the blocking client and the one for asyncio have in common: options, events, messages, the words of commands.

Nothing here waits or sends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Union

from . import _core, _errors

Argument = Union[str, bytes, bytearray, memoryview, int, float]
Hook = Callable[[str, "str | None", float, "Exception | None"], object]

COMPLETION, MESSAGE, SUB_GAP, TOPOLOGY, LOG, DROPPED, FENCE = 1, 2, 4, 8, 16, 32, 64
DEGRADED, REPLICA, SENTINEL, NOTICE, CONNECTION = 128, 256, 512, 1024, 2048
KINDS: dict[str, int] = {
    "topology": TOPOLOGY, "log": LOG, "fence": FENCE, "degraded": DEGRADED, "replica": REPLICA, "sentinel": SENTINEL,
    "notice": NOTICE, "connection": CONNECTION,
}  # fmt: skip
NAMES = {number: name for name, number in KINDS.items()} | {DROPPED: "dropped"}
ALL = ("topology", "fence", "degraded", "replica", "sentinel", "notice")
# What a server answers to the beginning of a subscription.
BEGUN = ("subscribe", "psubscribe", "ssubscribe")
EACH, ATOMIC, FLAG_ALL, FLAG_TYPED = 1 << 5, 1 << 0, 1 << 3, 1 << 7


class Event(NamedTuple):
    """What happened to a deployment. kind is a word such as "topology"; data has the keys that the library's EVENTS.md lists."""

    kind: str
    data: Any


class Message(NamedTuple):
    """A message of a channel. kind is "message", "pmessage" or "smessage"; pattern is None but for "pmessage"."""

    kind: str
    channel: Any
    pattern: Any
    data: Any


class Gap(NamedTuple):
    """A subscription was made anew: messages of the last `seconds` may be missing, and none after this."""

    seconds: float
    cause: str
    from_: str
    to: str


class Dropped(NamedTuple):
    """So many messages or events were lost here, because they were not taken in time."""

    lost: int


class Job(NamedTuple):
    """A job in hand: `redelivered` above 0 says that it may have been handed out before."""

    id: str
    payload: Any
    redelivered: int


def settings(uri: str | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a handle: those given, over the defaults of this package."""
    chosen: dict[str, Any] = {"fork": "reopen"}
    if uri is not None:
        chosen["uri"] = uri
    chosen.update(options or {})
    return chosen


def mask_of(kinds: Iterable[str]) -> int:
    mask = 0
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"there are no events of the kind {kind!r}: {', '.join(KINDS)}")
        mask |= KINDS[kind]
    return mask


def event_of(raw: tuple[int, int, Any, Any]) -> Event:
    kind, _, error, value = raw
    if error is not None:
        raise error
    return Event(NAMES.get(kind, str(kind)), value)


def pushed(raw: tuple[int, int, Any, Any]) -> Message | Gap | Dropped | None:
    """What a subscription yields for an event; None for an answer to a wish. Raises the event's error."""
    kind, _, error, value = raw
    if error is not None:
        raise error
    if kind == SUB_GAP:
        told = {text(key): entry for key, entry in value.items()}
        return Gap(told["gap_ms"] / 1000, text(told["cause"]), text(told["from"]), text(told["to"]))
    if kind == DROPPED:
        return Dropped(value)
    word = text(value[0])
    if word == "pmessage":
        return Message(word, value[2], value[1], value[3])
    if word in ("message", "smessage"):
        return Message(word, value[1], None, value[2])
    return None


def text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def scan_words(command: str, key: Argument | None, match: Argument | None, count: int | None, type: str | None) -> list[Argument]:
    """A scan command from its beginning."""
    words: list[Argument] = [command] if key is None else [command, key]
    words.append(0)
    for word, value in (("MATCH", match), ("COUNT", count), ("TYPE", type)):
        if value is not None:
            words += [word, value]
    return words


def page_items(command: str, page: Sequence[Any]) -> Iterable[Any]:
    """The elements of a page; those of HSCAN and ZSCAN come in pairs."""
    if command in ("SCAN", "SSCAN"):
        return page
    if page and isinstance(page[0], list):
        return [tuple(pair) for pair in page]
    pairs = list(zip(page[::2], page[1::2]))
    return [(member, float(score)) for member, score in pairs] if command == "ZSCAN" else pairs


def eval_words(body: Argument, keys: Sequence[Argument], args: Sequence[Argument]) -> list[Argument]:
    return ["EVAL", body, len(keys), *keys, *args]


def job_of(value: Any) -> Job | None:
    if value is None:
        return None
    told = {text(key): entry for key, entry in value.items()}
    return Job(text(told["id"]), told["payload"], told["redelivered"])


def _in_child() -> None:
    _core.after_fork(threading.get_ident())


_errors._names.update({number: name.removeprefix("VIGIE_ERR_") for number, name in _core.statuses().items()})
_core.set_up(_errors.make, threading.main_thread().ident or 0)
os.register_at_fork(after_in_child=_in_child)
