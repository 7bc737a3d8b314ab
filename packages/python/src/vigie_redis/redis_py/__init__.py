"""A door for programs of redis-py: `Redis` is a redis.Redis whose commands go by vigie.

    from vigie_redis.redis_py import Redis

    r = Redis.from_url("redis-sentinel://10.0.0.1,10.0.0.2,10.0.0.3/mymaster", decode_responses=True)
    r.set("greeting", "hello")

Methods, response callbacks, error classes, pipelines, locks, scripts and subscriptions are redis-py's; connecting, failovers, retries and timeouts
are the library's. Only what is a socket of redis-py is not there: MONITOR, and programs that read from a connection by themselves. The variant for
redis.asyncio is in `vigie_redis.redis_py.asyncio`; Django's cache in `vigie_redis.redis_py.django`.
"""

# redis-py's own annotations differ between its versions, and contradict each other in places: what is inherited from it is not checked.
# mypy: disable-error-code="misc, override, no-any-return, no-untyped-call, arg-type, unused-ignore, truthy-function, import-untyped, operator"

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import redis
import redis.client

from .. import _core
from .._client import Client, Session
from .._errors import IO, Error, Server, TxnAborted
from .._shared import DROPPED, SUB_GAP
from ._shared import (
    CONFIRMED_WITHIN,
    EMPTY_RESPONSE,
    ENCODING,
    NEVER_DECODE,
    answers_due,
    as_redis,
    by_extension,
    decoded,
    errors_inside,
    is_answer,
    not_confirmed,
    options_of,
    shaped,
    split_url,
    transaction_error,
    words_of,
)

__all__ = ["ConnectionPool", "PubSub", "Pipeline", "Redis", "StrictRedis"]


class ConnectionPool(redis.ConnectionPool):
    """Stands where redis-py has its pool: it holds the client of vigie, and gives no connections.

    source is a URI, a vigie_redis.Client, or a host. The other arguments are redis-py's, as far as they are about data and not about its
    sockets; options={...} are the library's, service and read as for vigie_redis.Client.
    """

    def __init__(self, source: str | Client | None = None, **kwargs: Any) -> None:
        kwargs.pop("connection_class", None)
        host, port = kwargs.pop("host", "localhost"), kwargs.pop("port", 6379)
        if source is None:
            source = f"redis://{host}:{port}"
        elif isinstance(source, str) and "://" in source:
            source = split_url(source, kwargs)
        elif isinstance(source, str):
            source = f"redis://{source}:{port}"
        self.source = source
        known = {key: kwargs.get(key, default) for key, default in ENCODING.items()}
        known |= {key: kwargs[key] for key in ("protocol", "legacy_responses") if kwargs.get(key) is not None}
        self._known, self._kwargs = known, kwargs
        super().__init__(**{"source": source, **kwargs, **known})
        self._client: Client | None = source if isinstance(source, Client) else None
        self._owns = self._client is None
        self._lock_ = threading.Lock()

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> ConnectionPool:
        """From a URI of vigie or of redis-py; its query may have arguments of redis-py and options of the library."""
        return cls(url, **kwargs)

    @property
    def client(self) -> Client:
        """The client of vigie, which is made at the first command."""
        client = self._client
        return client if client is not None else self._open()

    def _open(self) -> Client:
        with self._lock_:
            if self._client is None:
                assert isinstance(self.source, str)
                options = options_of(self._kwargs)
                decode = self._known["decode_responses"] and by_extension(self.get_encoder())
                read, service = self._kwargs.get("read", "primary"), self._kwargs.get("service")
                try:
                    self._client = Client(self.source, service, read=read, decode_responses=decode, options=options)
                except Error as error:
                    raise as_redis(error) from error
            return self._client

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """There is none to give: raises."""
        raise redis.RedisError("vigie_redis.redis_py has no connections to give: MONITOR and the like need redis-py's own client")

    def release(self, connection: Any) -> None:
        """Nothing was taken."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Closes the connections; the next command opens others."""
        if self._client is not None and not self._client.closed:
            self._client.disconnect()

    def close(self) -> None:
        """Closes the client of vigie, if this pool has made it."""
        client = self._client
        if client is not None and self._owns:
            self._client = None
            client.close(0)


class _Commands:
    """Running commands: what Redis and its single-connection form share."""

    connection_pool: Any
    response_callbacks: Any
    _session: Session | None = None

    def _run(self, link: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        encoder = self.connection_pool.get_encoder()
        raw = NEVER_DECODE in options
        try:
            response = link.call(*words_of(args, encoder), decode=False if raw else None)
        except Server as error:
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise as_redis(error) from error
        except Error as error:
            raise as_redis(error) from error
        except TypeError as error:
            raise redis.DataError(str(error)) from error
        if encoder.decode_responses and not raw and not by_extension(encoder):
            response = decoded(response, encoder)
        return shaped(self, args[0], response, options)


class Redis(_Commands, redis.Redis):
    """A redis.Redis whose commands go by vigie. The arguments are those of `ConnectionPool`, or one such pool."""

    def __init__(
        self,
        source: str | Client | None = None,
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        *,
        connection_pool: Any = None,
        single_connection_client: bool = False,
        **kwargs: Any,
    ) -> None:
        owns = connection_pool is None
        if connection_pool is None:
            source = kwargs.pop("host", None) if source is None else source
            connection_pool = ConnectionPool(source, port=port, db=db, password=password, **kwargs)
        elif not isinstance(connection_pool, ConnectionPool):
            raise TypeError("the pool of a vigie_redis.redis_py.Redis is a vigie_redis.redis_py.ConnectionPool")
        super().__init__(connection_pool=connection_pool)
        self.auto_close_connection_pool = owns
        self._session = connection_pool.client.session() if single_connection_client else None

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Redis:
        """From a URI of vigie or of redis-py; its query may have arguments of redis-py and options of the library."""
        single = kwargs.pop("single_connection_client", False)
        it = cls(connection_pool=ConnectionPool.from_url(url, **kwargs), single_connection_client=single)
        it.auto_close_connection_pool = True
        return it

    @property
    def vigie(self) -> Client:
        """The client of vigie below, for what redis-py has no methods for: topology(), events(), stats()."""
        client: Client = self.connection_pool.client
        return client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs a command, and gives its reply as redis-py shapes it."""
        return self._run(self._session or self.connection_pool.client, args, options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Commands that travel together, by default as one transaction."""
        return Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def pubsub(self, **kwargs: Any) -> PubSub:
        """A subscription that lives through failovers."""
        return PubSub(self.connection_pool, **kwargs)

    def close(self) -> None:
        """Ends the single connection, if this client has one, and the pool, if it has made that."""
        if self._session is not None:
            session, self._session = self._session, None
            session.close()
        super().close()


StrictRedis = Redis


class Pipeline(_Commands, redis.client.Pipeline):
    """A redis-py pipeline: one list, or one transaction; WATCH pins it to a session."""

    def load_scripts(self) -> None:
        """Makes the scripts of the pipeline known to the servers."""
        scripts = list(self.scripts)
        client = self.connection_pool.client
        try:
            known = client.call("SCRIPT", "EXISTS", *[script.sha for script in scripts])
            for script, exists in zip(scripts, known):
                if not exists:
                    client.call("SCRIPT", "LOAD", script.script)
        except Error as error:
            raise as_redis(error) from error

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs a command at once, on the session that WATCH has pinned."""
        if self._session is None:
            self._session = self.connection_pool.client.session()
        try:
            response = self._run(self._session, args, options)
        except redis.RedisError as error:
            cause = error.__cause__
            if self.watching and isinstance(cause, (IO, TxnAborted)) and not cause.maybe_executed:
                self.reset()
                raise redis.WatchError(f"a watched key's connection was lost: {cause}") from cause
            raise
        if args[0] in self.UNWATCH_COMMANDS:
            self.watching = False
        elif args[0] == "WATCH":
            self.watching = True
        return response

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Runs what was collected, and gives the replies as redis-py shapes them."""
        stack = self.command_stack
        if not stack and not self.watching:
            return []
        try:
            if self.scripts:
                self.load_scripts()
            responses = self._run_stack(stack, bool(self.transaction or self.explicit_transaction))
            if raise_on_error:
                self.raise_first_error(stack, responses)
            return [one if isinstance(one, Exception) else shaped(self, args[0], one, options) for one, (args, options) in zip(responses, stack)]
        finally:
            self.reset()

    def _run_stack(self, stack: list[Any], atomic: bool) -> list[Any]:
        encoder = self.connection_pool.get_encoder()
        raw = [NEVER_DECODE in options for _, options in stack]
        skipped = {place: options[EMPTY_RESPONSE] for place, (_, options) in enumerate(stack) if atomic and EMPTY_RESPONSE in options}
        by_hand = encoder.decode_responses and (any(raw) or not by_extension(encoder))
        batch = _core.Batch()
        try:
            for place, (args, _) in enumerate(stack):
                if place not in skipped:
                    batch.add(*words_of(args, encoder))
            replies = self._run_batch(batch, atomic, False if by_hand else None)
        except Error as error:
            raise transaction_error(self, error, stack) from error
        except TypeError as error:
            raise redis.DataError(str(error)) from error
        responses = errors_inside(replies)
        for place, value in sorted(skipped.items()):
            responses.insert(place, value)
        for place, (_, options) in enumerate(stack):
            if EMPTY_RESPONSE in options and isinstance(responses[place], redis.ResponseError):
                responses[place] = options[EMPTY_RESPONSE]
        if by_hand:
            responses = [one if bare else decoded(one, encoder) for one, bare in zip(responses, raw)]
        return responses

    def _run_batch(self, batch: _core.Batch, atomic: bool, decode: bool | None) -> list[Any]:
        if self._session is not None and self.watching and len(batch) == 0:
            # An empty transaction tells whether a watched key was changed.
            self._session.call("MULTI")
            return self._session.call("EXEC")
        if len(batch) == 0:
            return []
        link = self._session if self._session is not None else self.connection_pool.client
        return link.calls(batch, atomic, decode=decode)

    def reset(self) -> None:
        """Empties the pipeline, and ends its session with what that watches."""
        self.command_stack = []
        self.scripts = set()
        self.watching = False
        self.explicit_transaction = False
        if self._session is not None:
            session, self._session = self._session, None
            session.close()


class _Heard:
    """Stands where redis-py has the connection of a subscription."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool, self.gone = pool, False
        self.open()

    def open(self) -> None:
        self.gone = False
        self.queue = _core.Queue(16, bool(self.pool.get_encoder().decode_responses))
        self.sub = _core.Sub(self.pool.client, self.queue, 1, {})
        self.taken: deque[Any] = deque()

    def disconnect(self, *args: Any) -> None:
        """Ends it; the next use makes another, and subscribes again."""
        self.gone = True
        self.sub.close()
        self.queue.wakeup()

    def ask(self, words: tuple[Any, ...]) -> None:
        """Changes what is listened to. What begins is waited for: the end of what no server has confirmed would have no answer."""
        self.sub.exec(*words)
        due, end = answers_due(words), time.monotonic() + CONFIRMED_WITHIN
        while due > 0:
            left = end - time.monotonic()
            if left <= 0:
                raise not_confirmed(due)
            for raw in self.queue.drain(left):
                self.taken.append(raw)
                due -= is_answer(raw)

    def take(self, timeout: float | None) -> Any:
        """The next message as a list; None when the time is over."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            while self.taken:
                kind, _, error, value = self.taken.popleft()
                if error is not None:
                    raise as_redis(error) from error
                if kind not in (SUB_GAP, DROPPED):
                    return value
            left = None if end is None else max(0.0, end - time.monotonic())
            taken = self.queue.drain(left)
            self.taken.extend(taken)
            if not taken and left is not None and left <= 0:
                return None


class PubSub(redis.client.PubSub):
    """redis-py's subscription, on one of vigie: it is made anew after a failover by the library."""

    connection: Any = None

    def execute_command(self, *args: Any) -> None:
        """Changes what is listened to; the answers come among the messages."""
        with self._lock:
            if self.connection is None:
                self.connection = _Heard(self.connection_pool)
            self._reopen()
            try:
                self.connection.ask(words_of(args, self.encoder))
            except Error as error:
                raise as_redis(error) from error

    def parse_response(self, block: bool = True, timeout: float = 0) -> Any:
        """The next message, as the server sent it."""
        if self.connection is None:
            raise RuntimeError("pubsub connection not set: did you forget to call subscribe() or psubscribe()?")
        self._reopen()
        return self.connection.take(None if block else timeout)

    def _reopen(self) -> None:
        if self.connection.gone:
            self.connection.open()
            self.on_connect(self.connection)

    def check_health(self) -> None:
        """The library asks the server by itself."""

    def reset(self) -> None:
        """Ends the subscription."""
        if self.connection is not None:
            heard, self.connection = self.connection, None
            heard.disconnect()
        super().reset()


