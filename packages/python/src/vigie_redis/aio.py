"""The client for asyncio.

Calls of one tick of the loop travel together: they are gathered, and submitted as one list of which each is a call of its own. Completions are
taken in batches when the queue's descriptor is readable. No thread is involved, and nothing here blocks the loop.

A call that is cancelled (task.cancel(), asyncio.timeout()) is cancelled at the library, and waited for: CancelledError comes when its end is
known, with the library's error as its cause, so that `error.__cause__.maybe_executed` says whether it was sent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from . import _core, _shared
from ._client import Sentinel
from ._errors import IO, MAYBE_EXECUTED, Closed, QueueFull, TxnAborted, make
from ._shared import Argument, Dropped, Event, Gap, Hook, Job, Message

T = TypeVar("T")
Self = TypeVar("Self", bound="_Context")

CAPACITY, GATHERED = 1 << 16, 4096

__all__ = ["Call", "Client", "Events", "Pipeline", "Script", "Session", "Shards", "Subscription", "Worker"]


class Call(asyncio.Future[Any]):
    """One call under way: await it. Its cancellation ends it at the library, and lasts until that has answered."""

    _port: _Port | None = None
    _token = 0
    _told: tuple[Hook, str, float] | None = None
    _stopped = False

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        if self._port is None:
            return super().cancel(msg)
        self._stopped = True
        self._port.cancel(self._token)
        return True

    def set_result(self, result: Any) -> None:
        if self._told is not None:
            self._tell(None)
        if self._stopped:
            late = "the call was over when it was cancelled: its reply is in the attribute reply"
            return self._end(make(_CANCELLED, MAYBE_EXECUTED, late, "", "", -1, 0, result))
        super().set_result(result)

    def set_exception(self, exception: Any) -> None:
        if self._told is not None:
            self._tell(exception)
        if self._stopped:
            return self._end(exception)
        super().set_exception(exception)

    def _end(self, cause: Exception) -> None:
        error = asyncio.CancelledError()
        error.__cause__ = cause
        super().set_exception(error)

    def _tell(self, error: Exception | None) -> None:
        assert self._told is not None
        hook, name, begin = self._told
        try:
            hook(name, getattr(error, "endpoint", None) or None, time.monotonic() - begin, error)
        except Exception as raised:  # what a hook raises does not become the outcome of a call that has run
            self.get_loop().call_exception_handler({"message": "the hook of vigie_redis raised", "exception": raised})


_CANCELLED = -7


class _Port:
    """The queue of one loop: what is under way there, and what this tick has gathered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, text: bool) -> None:
        self.loop = loop
        self.queue = _core.Queue(CAPACITY, text)
        self.under_way: dict[int, Call] = {}
        self.next_token = 1
        self._gathered: deque[_Gathered] = deque()
        self._scheduled = False
        self._cancelled: set[int] = set()
        loop.add_reader(self.queue.fileno(), self._readable)

    def new_call(self) -> Call:
        """A call that is submitted by itself: with its token."""
        call = Call(loop=self.loop)
        call._port, call._token = self, self.next_token
        self.under_way[self.next_token] = call
        self.next_token += 1
        return call

    def forget(self, call: Call) -> None:
        """A submit was refused: there will be no completion."""
        self.under_way.pop(call._token, None)
        call._port = None

    def gather(self, link: _core.Link, args: tuple[Argument, ...], flags: int, timeout: float | None) -> Call:
        """Adds a call to what this tick submits."""
        last = self._gathered[-1] if self._gathered else None
        if last is None or last.link is not link or last.flags != flags or last.timeout != timeout or len(last.calls) >= GATHERED:
            last = _Gathered(link, flags, timeout)
            last.batch.add(*args)
            self._gathered.append(last)
            if not self._scheduled:
                self._scheduled = True
                self.loop.call_soon(self.flush)
        else:
            last.batch.add(*args)
        call = Call(loop=self.loop)
        call._port = self
        last.calls.append(call)
        return call

    def flush(self) -> None:
        """Submits what was gathered. What the queue has no room for waits for the next completions."""
        self._scheduled = False
        while self._gathered:
            group = self._gathered[0]
            token = self.next_token
            try:
                group.link.submit(group.batch, self.queue, token, group.flags | _shared.EACH, group.timeout)
            except QueueFull as error:
                if error.retryable and self.under_way:
                    return
                self._gathered.popleft().refuse(error)
                continue
            except Exception as error:
                self._gathered.popleft().refuse(error)
                continue
            self._gathered.popleft()
            self.next_token += len(group.calls)
            for place, call in enumerate(group.calls, token):
                call._token = place
                self.under_way[place] = call
                if call._stopped:
                    self.queue.cancel(place)

    def cancel(self, token: int) -> None:
        """A call that is not submitted yet has no token: it is cancelled as soon as it has one."""
        if token:
            self.queue.cancel(token)

    def _readable(self) -> None:
        under_way = self.under_way
        while self.queue.settle(under_way) == 64:
            pass
        if self._gathered and not self._scheduled:
            self.flush()

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(self.queue.fileno())


class _Gathered:
    """Calls that one submit takes: of one client, with the same flags and timeout."""

    __slots__ = ("batch", "calls", "flags", "link", "timeout")

    def __init__(self, link: _core.Link, flags: int, timeout: float | None) -> None:
        self.link, self.flags, self.timeout = link, flags, timeout
        self.batch = _core.Batch()
        self.calls: list[Call] = []

    def refuse(self, error: Exception) -> None:
        for call in self.calls:
            call._port = None
            if not call.done():
                call.set_exception(error)


class _Ports:
    """The ports of a client: one for each loop that uses it, so that each thread may run a loop of its own."""

    def __init__(self, text: bool) -> None:
        self._text = text
        self._ports: dict[asyncio.AbstractEventLoop, _Port] = {}
        self._lock = threading.Lock()

    def here(self) -> _Port:
        loop = asyncio.get_running_loop()
        port = self._ports.get(loop)
        return port if port is not None else self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> _Port:
        with self._lock:
            for gone in [one for one in self._ports if one.is_closed()]:
                del self._ports[gone]
            port = self._ports[loop] = _Port(loop, self._text)
        return port

    async def settled(self) -> None:
        """Until nothing is under way in this loop."""
        port = self._ports.get(asyncio.get_running_loop())
        if port is not None:
            port.flush()
            waiting = [call for call in port.under_way.values() if not call.done()]
            if waiting:
                await asyncio.wait(waiting)

    def close(self) -> None:
        with self._lock:
            here = self._ports.pop(asyncio.get_running_loop(), None)
        if here is not None:
            here.close()


class _Context:
    """`async with` closes it."""

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class _Caller:
    """What clients and sessions share."""

    _link: _core.Link
    _ports: _Ports
    hook: Hook | None = None

    def call(self, *args: Argument, timeout: float | None = None, **manner: Any) -> Call:
        """Starts one command, and returns what to await for its reply. The keywords are those of vigie_redis.Client.call()."""
        flags = self._link.flags(**manner) if manner else 0
        call = self._ports.here().gather(self._link, args, flags, timeout)
        if self.hook is not None:
            call._told = (self.hook, _shared.text(args[0]), time.monotonic())
        return call

    def calls(self, batch: _core.Batch, atomic: bool, *, timeout: float | None = None, **manner: Any) -> Call:
        """Starts a list, behind what this tick has gathered."""
        port = self._ports.here()
        port.flush()
        flags = (self._link.flags(**manner) if manner else 0) | (_shared.ATOMIC if atomic else 0)
        call = self._submitted(port, lambda token: self._link.submit(batch, port.queue, token, flags, timeout))
        if self.hook is not None:
            call._told = (self.hook, "MULTI" if atomic else "PIPELINE", time.monotonic())
        return call

    def _submitted(self, port: _Port, submit: Callable[[int], Any]) -> Call:
        call = port.new_call()
        try:
            submit(call._token)
        except BaseException:
            port.forget(call)
            raise
        return call

    def pipeline(self, commands: Iterable[Sequence[Argument]] = ()) -> Pipeline:
        """A list of commands that travel together. Errors of single commands stand in their places among the replies."""
        return Pipeline(self, commands, False)

    def multi(self, commands: Iterable[Sequence[Argument]] = ()) -> Pipeline:
        """A list of commands that runs as one transaction (MULTI, EXEC), or not at all."""
        return Pipeline(self, commands, True)

    def script(self, body: Argument) -> Script:
        """A Lua script as a function: await script(keys, args)."""
        return Script(self, body)


class Client(_Caller, _Context):
    """Runs commands on a service without blocking the loop, and follows its primary over failovers. The arguments are those of
    vigie_redis.Client. It may be made anywhere, and used in several loops, each in its thread."""

    def __init__(
        self,
        uri: str | Sentinel,
        service: str | None = None,
        *,
        read: str = "primary",
        decode_responses: bool = False,
        options: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        hook: Hook | None = None,
    ) -> None:
        self._owns = not isinstance(uri, Sentinel)
        self.sentinel = uri if isinstance(uri, Sentinel) else Sentinel(uri, options=options)
        self._link = _core.Link(read, self.sentinel._handle, service, dict(overrides or {}), decode_responses)
        self._ports = _Ports(decode_responses)
        self.hook = hook

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._link.closed

    def session(self, key: Argument | None = None, *, overrides: Mapping[str, Any] | None = None) -> Session:
        """A client that is pinned to one connection, for WATCH and whatever else changes a connection. Close it with `async with`."""
        return Session(self, key, overrides)

    async def transaction(
        self, work: Callable[[Session, Pipeline], Awaitable[T]], *keys: Argument, timeout: float = 5.0
    ) -> tuple[list[Any], T]:
        """Watches keys, awaits work(session, multi), which reads by the session and fills multi, and runs multi if no key was changed.

        If one was changed, or the connection was lost before anything ran, it begins anew, for so many seconds at most. Returns the replies
        of multi, and what work returned.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                async with self.session(keys[0] if keys else None) as session:
                    if keys:
                        await session.call("WATCH", *keys)
                    multi = session.multi()
                    result = await work(session, multi)
                    return await multi.run(), result
            except (TxnAborted, IO) as error:
                if error.maybe_executed or time.monotonic() >= end:
                    raise

    def scan(
        self, match: Argument | None = None, *, count: int | None = None, type: str | None = None, restarts: int = 0
    ) -> AsyncIterator[Any]:
        """Every key that is there from the beginning to the end; one may come twice. restarts: how often a failover may begin it anew."""
        return self._scan("SCAN", None, match, count, type, restarts)

    def hscan(self, key: Argument, match: Argument | None = None, *, count: int | None = None, restarts: int = 0) -> AsyncIterator[Any]:
        """The fields of a hash with their values."""
        return self._scan("HSCAN", key, match, count, None, restarts)

    def sscan(self, key: Argument, match: Argument | None = None, *, count: int | None = None, restarts: int = 0) -> AsyncIterator[Any]:
        """The members of a set."""
        return self._scan("SSCAN", key, match, count, None, restarts)

    def zscan(self, key: Argument, match: Argument | None = None, *, count: int | None = None, restarts: int = 0) -> AsyncIterator[Any]:
        """The members of a sorted set with their scores."""
        return self._scan("ZSCAN", key, match, count, None, restarts)

    async def _scan(self, command: str, key: Any, match: Any, count: int | None, type: str | None, restarts: int) -> AsyncIterator[Any]:
        scan = _core.Scan(self._link, _shared.scan_words(command, key, match, count, type), restarts)
        port = self._ports.here()
        while (page := await self._submitted(port, lambda token: scan.next(None, port.queue, token))) is not None:
            for item in _shared.page_items(command, page):
                yield item

    async def subscribe(
        self,
        *channels: Argument,
        patterns: Sequence[Argument] = (),
        shard_channels: Sequence[Argument] = (),
        overrides: Mapping[str, Any] | None = None,
        timeout: float = 5.0,
    ) -> Subscription:
        """Listens to channels and patterns; returns when the server has confirmed them. `async for` gives the messages."""
        subscription = Subscription(self, overrides)
        try:
            await subscription.add(*channels, patterns=patterns, shard_channels=shard_channels, timeout=timeout)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def push_job(self, name: str, payload: Argument, *, id: str | None = None, timeout: float | None = None) -> int:
        """Pushes a job to a list of jobs, once; returns how many wait. After MaybeExecuted it may be there: push it with the same id."""
        port = self._ports.here()
        length: int = await self._submitted(port, lambda token: _core.push_job(self._link, name, id, payload, timeout, port.queue, token))
        return length

    def jobs(self, name: str, worker: str | None = None, *, lease: float | None = None) -> Worker:
        """A worker of a list of jobs, each of which is done at least once. worker: its name; None: a random one. lease: in seconds."""
        return Worker(self, name, worker, lease)

    async def admin(self, *args: Argument, at: str | None = None, all: bool = False, typed: bool = True, timeout: float | None = None) -> Any:
        """Runs a sub-command of SENTINEL, given without that word: at the first Sentinel that answers, at one address, or at all."""
        port = self._ports.here()
        flags = (_shared.FLAG_ALL if all else 0) | (_shared.FLAG_TYPED if typed else 0)
        handle = self.sentinel._handle
        return await self._submitted(port, lambda token: handle.admin(args, at, flags, timeout, port.queue, token))

    def topology(self) -> dict[str, Any]:
        """What the client knows now: service, primary, replicas. Asks nobody."""
        return self._link.topology()

    def stats(self) -> dict[str, Any]:
        """What the client has done, as counters."""
        return self._link.stats()

    def metrics(self, openmetrics: bool = False) -> str:
        """The counters as text for Prometheus."""
        return self._link.metrics(openmetrics)

    def events(self, kinds: Iterable[str] = _shared.ALL, *, capacity: int = 4096) -> Events:
        """What happens to the deployment from now on, as an asynchronous iterator of `Event`."""
        return Events(self.sentinel._handle, kinds, capacity)

    async def close(self) -> None:
        """No new calls; those of this loop are waited for, within their own timeouts. A second close does nothing."""
        if not self._link.closed:
            await self._ports.settled()
            self._link.close(0)
            self._ports.close()
            if self._owns:
                self.sentinel.close(0)


class Shards(Client):
    """Several primaries as one client. The arguments are those of vigie_redis.Shards."""

    def __init__(
        self,
        shards: Sequence[str],
        uri: str | Sentinel | None = None,
        *,
        decode_responses: bool = False,
        options: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        hook: Hook | None = None,
    ) -> None:
        self._owns = uri is not None and not isinstance(uri, Sentinel)
        sentinel = uri if isinstance(uri, Sentinel) else Sentinel(uri, options=options) if uri is not None else None
        self.sentinel = sentinel  # type: ignore[assignment]
        # Each primary is asked once while the client is made, so make it before the loop runs, or with the option shard.degraded.
        self._link = _core.Link("shards", None if sentinel is None else sentinel._handle, list(shards), dict(overrides or {}), decode_responses)
        self._ports = _Ports(decode_responses)
        self.hook = hook

    def shard_of(self, key: Argument) -> int:
        """The index of the shard that a key is on."""
        return self._link.shard_of(key)


class Session(_Caller, _Context):
    """A client that is pinned to one connection; commands start in call order."""

    def __init__(self, client: Client, key: Argument | None, overrides: Mapping[str, Any] | None) -> None:
        self._link = _core.Link("session", client._link, key, dict(overrides or {}), client._link.decode_responses)
        self._ports, self.hook = client._ports, client.hook

    async def close(self) -> None:
        """Ends the session; calls under way end with Closed."""
        self._ports.here().flush()
        self._link.close(0)


class Pipeline:
    """Commands that are collected, and run as one list: by `await run()`, or at the end of `async with`."""

    def __init__(self, caller: _Caller, commands: Iterable[Sequence[Argument]], atomic: bool) -> None:
        self._caller, self._atomic, self._batch = caller, atomic, _core.Batch()
        self.replies: list[Any] = []
        for words in commands:
            self._batch.add(*words)

    def call(self, *args: Argument) -> int:
        """Adds a command; returns its place among the replies."""
        return self._batch.add(*args)

    def __len__(self) -> int:
        return len(self._batch)

    async def run(self, **manner: Any) -> list[Any]:
        """Runs the list and empties it. The keywords are those of call(); an empty list has no replies, and sends nothing."""
        if len(self._batch) == 0:
            self.replies = []
            return self.replies
        batch, self._batch = self._batch, _core.Batch()
        self.replies = await self._caller.calls(batch, self._atomic, **manner)
        return self.replies

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            await self.run()


class Script:
    """A Lua script as a function of keys and arguments."""

    def __init__(self, caller: _Caller, body: Argument) -> None:
        self._caller, self.body = caller, body

    def __call__(self, keys: Sequence[Argument] = (), args: Sequence[Argument] = (), **manner: Any) -> Call:
        return self._caller.call(*_shared.eval_words(self.body, keys, args), **manner)


class _Inbox:
    """A queue of its own that one loop reads: events as they come."""

    def __init__(self, capacity: int, text: bool) -> None:
        self.queue = _core.Queue(capacity, text)
        self.open = True
        self._taken: deque[tuple[int, int, Any, Any]] = deque()
        self._arrived = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _readable(self) -> None:
        while taken := self.queue.drain(0):
            self._taken.extend(taken)
        if self._taken:
            self._arrived.set()
            # What is not taken yet stays in the library, which bounds it.
            self._pause()

    def _watch(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self.queue.fileno(), self._readable)

    def _pause(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self.queue.fileno())
        self._loop = None

    async def next(self) -> tuple[int, int, Any, Any] | None:
        """The next event; None when it was closed."""
        while not self._taken:
            if not self.open:
                return None
            self._arrived.clear()
            self._watch()
            await self._arrived.wait()
        return self._taken.popleft()

    def ready(self) -> bool:
        """Whether an event is there now."""
        if not self._taken:
            self._readable()
        return bool(self._taken)

    def put_back(self, raws: Iterable[tuple[int, int, Any, Any]]) -> None:
        self._taken.extendleft(reversed(list(raws)))

    def close(self) -> None:
        self.open = False
        self._pause()
        self._arrived.set()


class Events(_Context):
    """Events of a deployment: `async for`, or take one with get()."""

    def __init__(self, handle: _core.Handle, kinds: Iterable[str], capacity: int) -> None:
        self._handle, self._inbox = handle, _Inbox(capacity, True)
        handle.watch(self._inbox.queue, _shared.mask_of(kinds), 0)

    async def get(self) -> Event | None:
        """The next event; None when it was closed."""
        raw = await self._inbox.next()
        return None if raw is None else _shared.event_of(raw)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.get()) is not None:
            yield event

    async def close(self) -> None:
        """Ends the watch."""
        if self._inbox.open:
            self._handle.watch(self._inbox.queue, 0, 0)
            self._inbox.close()


class Subscription(_Context):
    """Messages of channels, in order, over failovers. `async for` gives `Message`, `Gap` and `Dropped`, until it is closed."""

    def __init__(self, client: Client, overrides: Mapping[str, Any] | None) -> None:
        self._inbox = _Inbox(16, client._link.decode_responses)
        self._sub = _core.Sub(client._link, self._inbox.queue, 1, dict(overrides or {}))

    async def add(
        self, *channels: Argument, patterns: Sequence[Argument] = (), shard_channels: Sequence[Argument] = (), timeout: float = 5.0
    ) -> None:
        """Listens to more; returns when the server has confirmed all of it, and raises if it refuses one."""
        waiting = 0
        for word, names in (("SUBSCRIBE", channels), ("PSUBSCRIBE", patterns), ("SSUBSCRIBE", shard_channels)):
            if names:
                self._sub.exec(word, *names)
                waiting += len(set(names))
        await asyncio.wait_for(self._await_answers(waiting), timeout)

    async def _await_answers(self, waiting: int) -> None:
        others: list[tuple[int, int, Any, Any]] = []
        try:
            while waiting > 0 and (raw := await self._inbox.next()) is not None:
                if raw[0] == _shared.MESSAGE and raw[2] is not None:
                    raise raw[2]
                if raw[0] == _shared.MESSAGE and _shared.text(raw[3][0]) in _shared.BEGUN:
                    waiting -= 1
                else:
                    others.append(raw)
        finally:
            self._inbox.put_back(others)

    def remove(self, *channels: Argument, patterns: Sequence[Argument] = (), shard_channels: Sequence[Argument] = ()) -> None:
        """Listens to less; messages that are on their way still come."""
        for word, names in (("UNSUBSCRIBE", channels), ("PUNSUBSCRIBE", patterns), ("SUNSUBSCRIBE", shard_channels)):
            if names:
                self._sub.exec(word, *names)

    async def get(self) -> Message | Gap | Dropped | None:
        """The next message; None when it was closed. Raises if a channel is refused."""
        while (raw := await self._inbox.next()) is not None:
            if (item := _shared.pushed(raw)) is not None:
                return item
        return None

    async def __aiter__(self) -> AsyncIterator[Message | Gap | Dropped]:
        try:
            while (item := await self.get()) is not None:
                yield item
        except Closed:
            return

    async def close(self) -> None:
        """Ends the subscription. A task that waits in get() gets None."""
        if self._inbox.open:
            self._inbox.close()
            self._sub.close()


class Worker(_Context):
    """Takes jobs of a list, each of which is done at least once: acknowledge it with ack(), or hand it back."""

    def __init__(self, client: Client, name: str, worker: str | None, lease: float | None) -> None:
        self._client, self._jobs = client, _core.Jobs(client._link, name, worker, lease)

    async def _run(self, what: str, job: Job | str | None, timeout: float | None) -> Any:
        port = self._client._ports.here()
        id = job.id if isinstance(job, Job) else job
        return await self._client._submitted(port, lambda token: self._jobs.run(what, id, timeout, port.queue, token))

    async def take(self, timeout: float | None = None) -> Job | None:
        """The next job; None if there was none within so many seconds (None: the option timeout.call; math.inf: no limit)."""
        return _shared.job_of(await self._run("take", None, timeout))

    async def ack(self, job: Job | str, timeout: float | None = None) -> None:
        """It is done, and is removed. After an error acknowledge it again: it is still in hand."""
        await self._run("ack", job, timeout)

    async def give_back(self, job: Job | str, timeout: float | None = None) -> None:
        """It comes behind those that wait, marked, for any worker."""
        await self._run("return", job, timeout)

    async def renew(self, timeout: float | None = None) -> None:
        """Renews the lease, for a job that takes longer than that."""
        await self._run("renew", None, timeout)

    def limit_deliveries(self, count: int) -> None:
        """Jobs that were handed out so often are put aside; 0: no limit."""
        self._jobs.limit(count)

    def stop(self) -> None:
        """Ends a take() under way, and all later ones, with Cancelled."""
        self._jobs.stop()

    async def close(self, timeout: float | None = None) -> None:
        """Stops, hands back what is in hand, and ends the lease."""
        await self._run("close", None, timeout)


