"""A door for programs of redis.asyncio: `Redis` is a redis.asyncio.Redis whose commands go by vigie.

    from vigie_redis.redis_py.asyncio import Redis

    r = Redis.from_url("redis-sentinel://10.0.0.1,10.0.0.2,10.0.0.3/mymaster", decode_responses=True)
    await r.set("greeting", "hello")

What holds for `vigie_redis.redis_py` holds here. Commands of one tick of the loop travel together.
"""

# redis-py's own annotations differ between its versions, and contradict each other in places: what is inherited from it is not checked.
# mypy: disable-error-code="misc, override, no-any-return, no-untyped-call, arg-type, unused-ignore, truthy-function, import-untyped, operator"

from __future__ import annotations

import asyncio
import threading
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.client

from .. import _core, aio
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


class ConnectionPool(redis.asyncio.ConnectionPool):
    """Stands where redis-py has its pool: it holds the client of vigie, and gives no connections. The arguments are those of
    vigie_redis.redis_py.ConnectionPool; source may be a vigie_redis.aio.Client."""

    def __init__(self, source: str | aio.Client | None = None, **kwargs: Any) -> None:
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
        self._client: aio.Client | None = None if isinstance(source, str) else source
        self._bytes: aio.Client | None = None
        self._owns = self._client is None
        self._lock_ = threading.Lock()

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> ConnectionPool:
        """From a URI of vigie or of redis-py; its query may have arguments of redis-py and options of the library."""
        return cls(url, **kwargs)

    @property
    def client(self) -> aio.Client:
        """The client of vigie, which is made at the first command."""
        client = self._client
        return client if client is not None else self._open()

    def _open(self) -> aio.Client:
        with self._lock_:
            if self._client is None:
                assert isinstance(self.source, str)
                options = options_of(self._kwargs)
                decode = self._known["decode_responses"] and by_extension(self.get_encoder())
                read, service = self._kwargs.get("read", "primary"), self._kwargs.get("service")
                try:
                    self._client = aio.Client(self.source, service, read=read, decode_responses=decode, options=options)
                except Error as error:
                    raise as_redis(error) from error
            return self._client

    @property
    def bytes_client(self) -> aio.Client:
        """One whose texts are bytes, for replies that redis-py must not decode (DUMP)."""
        client = self.client
        if not client._link.decode_responses:
            return client
        if self._bytes is None:
            read, service = self._kwargs.get("read", "primary"), self._kwargs.get("service")
            self._bytes = aio.Client(client.sentinel, service, read=read)
        return self._bytes

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """There is none to give: raises."""
        raise redis.RedisError("vigie_redis.redis_py has no connections to give: MONITOR and the like need redis-py's own client")

    async def release(self, connection: Any) -> None:
        """Nothing was taken."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Closes the client of vigie, if this pool has made it; the next command makes another."""
        if self._owns:
            for client in (self._bytes, self._client):
                if client is not None:
                    await client.close()
            self._client = self._bytes = None

    async def aclose(self) -> None:
        """As disconnect()."""
        await self.disconnect()


class _Commands:
    """Running commands: what Redis and Pipeline share."""

    connection_pool: Any
    response_callbacks: Any
    _session: aio.Session | None = None

    async def _run(self, link: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        encoder = self.connection_pool.get_encoder()
        raw = NEVER_DECODE in options
        try:
            if raw and encoder.decode_responses and self._session is None:
                link = self.connection_pool.bytes_client
            response = await link.call(*words_of(args, encoder))
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
        response = shaped(self, args[0], response, options)
        return response


class Redis(_Commands, redis.asyncio.Redis):
    """A redis.asyncio.Redis whose commands go by vigie. The arguments are those of `ConnectionPool`, or one such pool."""

    def __init__(
        self,
        source: str | aio.Client | None = None,
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
            raise TypeError("the pool of a vigie_redis.redis_py.asyncio.Redis is a vigie_redis.redis_py.asyncio.ConnectionPool")
        super().__init__(connection_pool=connection_pool)
        self.auto_close_connection_pool = owns
        self._session = connection_pool.client.session() if single_connection_client else None

    @classmethod
    def from_url(cls, url: str, single_connection_client: bool = False, auto_close_connection_pool: bool | None = None, **kwargs: Any) -> Redis:
        """From a URI of vigie or of redis-py; its query may have arguments of redis-py and options of the library."""
        it = cls(connection_pool=ConnectionPool.from_url(url, **kwargs), single_connection_client=single_connection_client)
        it.auto_close_connection_pool = auto_close_connection_pool is not False
        return it

    @property
    def vigie(self) -> aio.Client:
        """The client of vigie below."""
        client: aio.Client = self.connection_pool.client
        return client

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs a command, and gives its reply as redis-py shapes it."""
        return await self._run(self._session or self.connection_pool.client, args, options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Commands that travel together, by default as one transaction."""
        return Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def pubsub(self, **kwargs: Any) -> PubSub:
        """A subscription that lives through failovers."""
        return PubSub(self.connection_pool, **kwargs)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Ends the single connection, if this client has one, and the pool, if it has made that."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
        await super().aclose(close_connection_pool)


StrictRedis = Redis


class Pipeline(_Commands, redis.asyncio.client.Pipeline):
    """A redis-py pipeline: one list, or one transaction; WATCH pins it to a session."""

    async def load_scripts(self) -> None:
        """Makes the scripts of the pipeline known to the servers."""
        scripts = list(self.scripts)
        client = self.connection_pool.client
        try:
            known = await client.call("SCRIPT", "EXISTS", *[script.sha for script in scripts])
            for script, exists in zip(scripts, known):
                if not exists:
                    await client.call("SCRIPT", "LOAD", script.script)
        except Error as error:
            raise as_redis(error) from error

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs a command at once, on the session that WATCH has pinned."""
        if self._session is None:
            self._session = self.connection_pool.client.session()
        try:
            response = await self._run(self._session, args, options)
        except redis.RedisError as error:
            cause = error.__cause__
            if self.watching and isinstance(cause, (IO, TxnAborted)) and not cause.maybe_executed:
                await self.reset()
                raise redis.WatchError(f"a watched key's connection was lost: {cause}") from cause
            raise
        if args[0] in self.UNWATCH_COMMANDS:
            self.watching = False
        elif args[0] == "WATCH":
            self.watching = True
        return response

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Runs what was collected, and gives the replies as redis-py shapes them."""
        stack = self.command_stack
        if not stack and not self.watching:
            return []
        try:
            if self.scripts:
                await self.load_scripts()
            responses = await self._run_stack(stack, bool(self.is_transaction or self.explicit_transaction))
            if raise_on_error:
                self.raise_first_error(stack, responses)
            return [one if isinstance(one, Exception) else await self._shaped(args[0], one, options) for one, (args, options) in zip(responses, stack)]
        finally:
            await self.reset()

    async def _shaped(self, name: str, response: Any, options: dict[str, Any]) -> Any:
        value = shaped(self, name, response, options)
        return await value if asyncio.iscoroutine(value) else value

    async def _run_stack(self, stack: list[Any], atomic: bool) -> list[Any]:
        encoder = self.connection_pool.get_encoder()
        skipped = {place: options[EMPTY_RESPONSE] for place, (_, options) in enumerate(stack) if atomic and EMPTY_RESPONSE in options}
        batch = _core.Batch()
        try:
            for place, (args, _) in enumerate(stack):
                if place not in skipped:
                    batch.add(*words_of(args, encoder))
            replies = await self._run_batch(batch, atomic)
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
        if encoder.decode_responses and not by_extension(encoder):
            responses = [decoded(one, encoder) for one in responses]
        return responses

    async def _run_batch(self, batch: _core.Batch, atomic: bool) -> list[Any]:
        if len(batch) == 0:
            if self._session is not None and self.watching:
                # An empty transaction tells whether a watched key was changed.
                await self._session.call("MULTI")
                return await self._session.call("EXEC")
            return []
        link = self._session if self._session is not None else self.connection_pool.client
        return await link.calls(batch, atomic)

    async def reset(self) -> None:
        """Empties the pipeline, and ends its session with what that watches."""
        self.command_stack = []
        self.scripts = set()
        self.watching = False
        self.explicit_transaction = False
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


class _Heard:
    """Stands where redis-py has the connection of a subscription."""

    is_connected = True

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool, self.gone = pool, False
        self.open()

    def open(self) -> None:
        self.gone = False
        self.inbox = aio._Inbox(16, bool(self.pool.get_encoder().decode_responses))
        self.sub = _core.Sub(self.pool.client._link, self.inbox.queue, 1, {})

    async def disconnect(self, *args: Any) -> None:
        """Ends it; the next use makes another, and subscribes again."""
        self.gone = True
        self.close()

    async def ask(self, words: tuple[Any, ...]) -> None:
        """Changes what is listened to. What begins is waited for: the end of what no server has confirmed would have no answer."""
        self.sub.exec(*words)
        due, taken = answers_due(words), []
        try:
            async with asyncio.timeout(CONFIRMED_WITHIN):
                while due > 0 and (raw := await self.inbox.next()) is not None:
                    taken.append(raw)
                    due -= is_answer(raw)
        except TimeoutError:
            raise not_confirmed(due) from None
        finally:
            self.inbox.put_back(taken)

    def deregister_connect_callback(self, callback: Any) -> None:
        """redis-py's finalizer calls this."""

    async def take(self, timeout: float | None) -> Any:
        """The next message as a list; None when the time is over, or when it was closed."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    if timeout == 0 and not self.inbox.ready():
                        return None
                    raw = await self.inbox.next()
                    if raw is None:
                        return None
                    if raw[2] is not None:
                        raise as_redis(raw[2]) from raw[2]
                    if raw[0] not in (SUB_GAP, DROPPED):
                        return raw[3]
        except TimeoutError:
            return None

    def close(self) -> None:
        self.inbox.close()
        self.sub.close()


class PubSub(redis.asyncio.client.PubSub):
    """redis-py's subscription, on one of vigie: it is made anew after a failover by the library."""

    connection: Any

    async def connect(self) -> None:
        """Makes the subscription, which connects with its first channel."""
        if self.connection is None:
            self.connection = _Heard(self.connection_pool)
        if self.connection.gone:
            self.connection.open()
            await self.on_connect(self.connection)

    async def execute_command(self, *args: Any) -> None:
        """Changes what is listened to; the answers come among the messages."""
        await self.connect()
        try:
            await self.connection.ask(words_of(args, self.encoder))
        except Error as error:
            raise as_redis(error) from error

    async def parse_response(self, block: bool = True, timeout: float = 0) -> Any:
        """The next message, as the server sent it."""
        if self.connection is None:
            raise RuntimeError("pubsub connection not set: did you forget to call subscribe() or psubscribe()?")
        await self.connect()
        return await self.connection.take(None if block else timeout)

    async def check_health(self) -> None:
        """The library asks the server by itself."""

    async def aclose(self) -> None:
        """Ends the subscription."""
        if self.connection is not None:
            heard, self.connection = self.connection, None
            heard.close()
        self.channels = {}
        self.patterns = {}
        self.shard_channels = {}
        self.pending_unsubscribe_channels = set()
        self.pending_unsubscribe_patterns = set()
        self.pending_unsubscribe_shard_channels = set()
