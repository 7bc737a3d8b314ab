"""What the doors for redis-py's two clients have in common: options, arguments, replies and errors in redis-py's form.

Promises: an error is one of redis-py's classes and has the library's as its cause; one whose command was sent and not answered is a
MaybeExecuted too. Leaves to others: running commands.
"""

# redis-py's own annotations differ between its versions, and contradict each other in places: what is inherited from it is not checked.
# mypy: disable-error-code="misc, override, no-any-return, no-untyped-call, arg-type, unused-ignore, truthy-function, import-untyped, operator"

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import redis
from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from .. import _core, _errors
from .._errors import MaybeExecuted
from .._shared import MESSAGE, text

try:
    from redis._parsers.base import BaseParser
except ImportError as error:  # redis-py before 5.0
    raise ImportError("vigie_redis.redis_py needs redis-py 5.0 or newer") from error

VIGIE_OPTIONS = frozenset(option["key"] for option in _core.options())
# redis-py 8 speaks RESP3 if nothing is said, and shapes replies as before.
WIRE = "auto" if int(redis.__version__.split(".")[0]) >= 8 else 2
CONFIRMED_WITHIN = 5.0
NEVER_DECODE = redis.client.NEVER_DECODE
EMPTY_RESPONSE = redis.client.EMPTY_RESPONSE
# Replies that may have errors inside, which are looked for in no others.
SCRIPTS = frozenset(("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "EXEC"))

# Options of redis-py about its own sockets, parsers and retries: there are none here, so there is nothing to set. The library has its own.
WITHOUT_OBJECT = frozenset((
    "retry", "retry_on_error", "retry_on_timeout", "health_check_interval", "socket_keepalive", "socket_keepalive_options", "socket_read_size",
    "socket_type", "parser_class", "lib_name", "lib_version", "driver_info", "auto_close_connection_pool", "connection_class",
    "encoder_class", "ssl_min_version", "event_dispatcher", "legacy_responses", "loop",
))  # fmt: skip
MILLISECONDS = {"socket_timeout": "timeout.call", "socket_connect_timeout": "timeout.connect"}
SAME = {
    "db": "db", "username": "auth.username", "password": "auth.password", "client_name": "client.name", "ssl_ca_certs": "tls.ca",
    "ssl_certfile": "tls.cert", "ssl_keyfile": "tls.key", "ssl_password": "tls.key_password",
}  # fmt: skip
ENCODING = {"encoding": "utf-8", "encoding_errors": "strict", "decode_responses": False}


def split_url(url: str, kwargs: dict[str, Any]) -> str:
    """Takes redis-py's own arguments out of a URL's query, into kwargs; what is left is the library's."""
    parts = urlsplit(url)
    ours = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in VIGIE_OPTIONS and key != "db":
            ours.append((key, value))
        elif key in URL_QUERY_ARGUMENT_PARSERS:
            kwargs[key] = URL_QUERY_ARGUMENT_PARSERS[key](value)
        elif key == "decode_responses":
            kwargs[key] = value.lower() in ("1", "true", "yes")
        else:
            kwargs[key] = unquote(value)
    if parts.scheme == "unix":
        return urlunsplit(("redis", "", "", urlencode([("primary.addr", "unix:" + parts.path), *ours]), ""))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(ours, quote_via=quote), ""))


def options_of(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The library's options for arguments of redis-py. One that would change nothing silently is refused."""
    options: dict[str, Any] = dict(kwargs.get("options") or {})
    options.setdefault("protocol", kwargs.get("protocol") or WIRE)
    for key, value in kwargs.items():
        if value is None or key in WITHOUT_OBJECT or key in ENCODING or key in ("options", "protocol", "service", "read", "source"):
            continue
        if key in MILLISECONDS:
            options[MILLISECONDS[key]] = max(1, round(value * 1000))
        elif key in SAME:
            if value != "" and (key, value) != ("db", 0):
                options[SAME[key]] = value
        elif key == "max_connections":
            options["pool.max"] = max(2, value)
        elif key in VIGIE_OPTIONS:
            options[key] = value
        elif key.startswith("ssl"):
            tls_option(options, key, value)
        elif value:
            raise TypeError(f"vigie_redis.redis_py does not know the argument {key}: options of the library go into options={{...}}")
    return options


def tls_option(options: dict[str, Any], key: str, value: Any) -> None:
    """Options of redis-py about TLS, as far as they have a meaning for the library."""
    if key == "ssl":
        options["tls"] = "on" if value else "off"
    elif key == "ssl_check_hostname":
        if not value:
            options["tls.verify"] = "ca"
    elif key == "ssl_cert_reqs":
        if str(value) in ("none", "0", "VerifyMode.CERT_NONE"):
            options["tls.verify"] = "none"
    elif value:
        raise TypeError(f"vigie_redis.redis_py cannot keep {key}: the library has tls.ca, tls.cert, tls.key, tls.verify and others")


def words_of(args: tuple[Any, ...], encoder: Any) -> tuple[Any, ...]:
    """A command's arguments as redis-py would send them: names of two words apart, floats as their repr, other encodings than UTF-8."""
    name = args[0]
    if isinstance(name, bytes):
        name = name.decode()
    if " " in name:
        args = (*name.split(), *args[1:])
    if float in map(type, args):
        args = tuple(repr(one) if type(one) is float else one for one in args)
    if encoder.encoding not in ("utf-8", "utf8", "UTF-8"):
        args = (args[0], *map(encoder.encode, args[1:]))
    return args


def decoded(value: Any, encoder: Any) -> Any:
    """A reply of bytes in redis-py's encoding."""
    if isinstance(value, bytes):
        return encoder.decode(value, force=True)
    if isinstance(value, list):
        return [decoded(item, encoder) for item in value]
    if isinstance(value, dict):
        return {decoded(key, encoder): decoded(item, encoder) for key, item in value.items()}
    return value


def by_extension(encoder: Any) -> bool:
    """Whether the C extension makes the texts that redis-py would make of a reply: it knows UTF-8, and no errors to ignore or replace."""
    return encoder.encoding in ("utf-8", "utf8", "UTF-8") and encoder.encoding_errors == "strict"


def answers_due(words: tuple[Any, ...]) -> int:
    """How many answers of the server belong to a wish of a subscription; what ends one is not waited for."""
    name = words[0] if isinstance(words[0], str) else words[0].decode()
    return len({text(word) for word in words[1:]}) if name.upper() in ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE") else 0


def is_answer(raw: tuple[int, int, Any, Any]) -> bool:
    """Whether an event answers the beginning of a subscription, or refuses it. Raises what says that there is no connection."""
    kind, _, error, value = raw
    if error is not None and not isinstance(error, _errors.Server):
        raise as_redis(error) from error
    return kind == MESSAGE and (error is not None or text(value[0]) in ("subscribe", "psubscribe", "ssubscribe"))


def not_confirmed(due: int) -> redis.ConnectionError:
    return redis.ConnectionError(f"{due} channels were not confirmed within {CONFIRMED_WITHIN} s; they are asked for further on")


_classes: dict[type[redis.RedisError], type[redis.RedisError]] = {}


def as_redis(error: _errors.Error) -> redis.RedisError:
    """The error in redis-py's classes."""
    made = _plain(error)
    # redis-py has no word for a write that ran and that too few replicas have: it must not look refused.
    if error.maybe_executed or isinstance(error, _errors.Replicas):
        kind = type(made)
        mixed = _classes.get(kind)
        if mixed is None:
            mixed = _classes[kind] = type(kind.__name__, (kind, MaybeExecuted), {"__doc__": kind.__doc__})
        made = mixed(*made.args)
    made.__cause__ = error
    return made


def _plain(error: _errors.Error) -> redis.RedisError:
    if isinstance(error, _errors.Server):
        parsed: redis.RedisError = BaseParser.parse_error(str(error))
        return parsed
    for kind, made in TRANSLATED:
        if isinstance(error, kind):
            return made(str(error))
    return redis.RedisError(str(error))


TRANSLATED: list[tuple[type[_errors.Error], type[redis.RedisError]]] = [
    (_errors.TxnAborted, redis.WatchError),
    (_errors.Timeout, redis.TimeoutError),
    (_errors.Auth, redis.AuthenticationError),
    (_errors.Unsupported, redis.ResponseError),
    (_errors.InvalidArgument, redis.ResponseError),
    (_errors.CrossShard, redis.ResponseError),
    (_errors.ScanInterrupted, redis.ResponseError),
    (_errors.Replicas, redis.ResponseError),
    (_errors.ReadOnlyClient, redis.exceptions.ReadOnlyError),
    (_errors.Config, redis.RedisError),
    (_errors.Usage, redis.ConnectionError),
    (_errors.Connection, redis.ConnectionError),
    (_errors.Unavailable, redis.ConnectionError),
    (_errors.Pool, redis.ConnectionError),
]


def errors_inside(value: Any) -> Any:
    """Errors in their places, in redis-py's classes."""
    if isinstance(value, _errors.Error):
        return as_redis(value)
    if isinstance(value, list):
        return [errors_inside(item) for item in value]
    return value


def shaped(client: Any, name: str, response: Any, options: dict[str, Any]) -> Any:
    """What redis-py makes of a reply."""
    options.pop(NEVER_DECODE, None)
    options.pop(EMPTY_RESPONSE, None)
    options.pop("keys", None)
    if name in SCRIPTS:
        response = errors_inside(response)
    callback = client.response_callbacks.get(name)
    return response if callback is None else callback(response, **options)


def transaction_error(pipeline: Any, error: _errors.Error, stack: list[Any]) -> redis.RedisError:
    """A transaction that did not run: the error of the first command that was refused, as redis-py raises it."""
    if error.code == "EXECABORT" and isinstance(error.reply, list):
        for place, reply in enumerate(error.reply):
            if isinstance(reply, _errors.Server) and place < len(stack):
                made = as_redis(reply)
                pipeline.annotate_exception(made, place + 1, stack[place][0])
                return made
    if isinstance(error, _errors.TxnAborted):
        made = redis.WatchError("Watched variable changed.")
        made.__cause__ = error
        return made
    return as_redis(error)
