"""The blocking client: one object for all threads.

A call runs on the caller's thread, through the C extension. Ctrl-C ends it in the main thread. Nothing is retried here: the library does that
where it is right, within the timeout of the call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from . import _core, _shared
from ._errors import IO, Closed, TxnAborted
from ._shared import Argument, Dropped, Event, Gap, Hook, Job, Message

T = TypeVar("T")
Self = TypeVar("Self", bound="_Context")


class _Context:
    """`with` closes it."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Sentinel(_Context):
    """The Sentinels of a deployment, or a primary that is given; clients are made from it.

    uri is redis-sentinel://user:password@host:port,host:port/service?option=value, rediss-sentinel:// with TLS, or redis://host:port/db
    without Sentinels. options are those of the library by their names, such as {"failover.fence_max": 5000}; times there are in
    milliseconds. timeout: a Sentinel must answer within so many seconds; None: the first command asks.
    """

    def __init__(self, uri: str | None = None, *, options: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        self._handle = _core.Handle(_shared.settings(uri, options), timeout)

    def topology(self, service: str | None = None) -> dict[str, Any]:
        """What is known now of a service (None: of all that were asked for), without asking anybody."""
        return self._handle.topology(service)

    def refresh(self, service: str | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Asks the Sentinels now, and answers as topology()."""
        return self._handle.refresh(service, timeout)

    def services(self, *, follow: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """All services that the Sentinels watch, with their primaries. follow: they are discovered, and followed from now on."""
        return self._handle.services(follow, timeout)

    def admin(self, *args: Argument, at: str | None = None, all: bool = False, typed: bool = True, timeout: float | None = None) -> Any:
        """Runs a sub-command of SENTINEL, given without that word: at the first Sentinel that answers, at one address, or at all."""
        flags = (_shared.FLAG_ALL if all else 0) | (_shared.FLAG_TYPED if typed else 0)
        return self._handle.admin(args, at, flags, timeout)

    def configure(self, options: Mapping[str, Any]) -> None:
        """Changes options that can change while the handle is open, all at the same moment."""
        self._handle.configure(dict(options))

    def stats(self) -> dict[str, Any]:
        """What the handle and its clients have done."""
        return self._handle.stats()

    def metrics(self, openmetrics: bool = False) -> str:
        """The same figures as text for Prometheus."""
        return self._handle.metrics(openmetrics)

    def events(self, kinds: Iterable[str] = _shared.ALL, *, capacity: int = 4096) -> Events:
        """What happens to the services from now on, as an iterator of `Event`."""
        return Events(self._handle, kinds, capacity)

    def close(self, timeout: float | None = None) -> None:
        """Closes the handle and every client that was made from it; calls under way have so many seconds."""
        self._handle.close(timeout)


class Events(_Context):
    """Events of a deployment: iterate, or take one with get()."""

    def __init__(self, handle: _core.Handle, kinds: Iterable[str], capacity: int) -> None:
        self._handle, self._queue = handle, _core.Queue(capacity, True)
        self._taken: deque[tuple[int, int, Any, Any]] = deque()
        self._open = True
        handle.watch(self._queue, _shared.mask_of(kinds), 0)

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None when the time is over (None: no limit) or the iterator is closed."""
        if not self._taken and self._open:
            self._taken.extend(self._queue.drain(timeout))
        return _shared.event_of(self._taken.popleft()) if self._taken and self._open else None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    def close(self) -> None:
        """Ends the watch. A thread that waits in get() returns None."""
        if self._open:
            self._open = False
            self._handle.watch(self._queue, 0, 0)
            self._queue.wakeup()


class Commands:
    """What clients and sessions share."""

    call: Callable[..., Any]
    calls: Callable[..., Any]

    def pipeline(self, commands: Iterable[Sequence[Argument]] = ()) -> Pipeline:
        """A list of commands that travel together. Errors of single commands stand in their places among the replies."""
        return Pipeline(self, commands, False)

    def multi(self, commands: Iterable[Sequence[Argument]] = ()) -> Pipeline:
        """A list of commands that runs as one transaction (MULTI, EXEC), or not at all."""
        return Pipeline(self, commands, True)

    def script(self, body: Argument) -> Script:
        """A Lua script as a function: script(keys, args). It is sent by its hash once the servers have seen it."""
        return Script(self, body)


class Client(_core.Link, Commands, _Context):
    """Runs commands on a service, and follows its primary over failovers. One client serves all threads; forked children, too.

    uri: as for `Sentinel`, or a `Sentinel`, which many clients may share. service: its name, if the URI has none or another one. read: where
    commands that only read go: "primary", "replica" (and nothing else runs), or "split" (reads to replicas, the rest to the primary).
    decode_responses: texts are str, else bytes. options: those of the library for all; overrides: for this client alone.
    hook: called after each call and list with (name, endpoint, seconds, error), never with arguments.
    """

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
        super().__init__(read, self.sentinel._handle, service, dict(overrides or {}), decode_responses)
        self.hook = hook

    def session(self, key: Argument | None = None, *, overrides: Mapping[str, Any] | None = None) -> Session:
        """A client that is pinned to one connection, for WATCH and whatever else changes a connection. key: on the shard of this key."""
        return Session(self, key, overrides)

    def transaction(self, work: Callable[[Session, Pipeline], T], *keys: Argument, timeout: float = 5.0) -> tuple[list[Any], T]:
        """Watches keys, calls work(session, multi), which reads by the session and fills multi, and runs multi if no key was changed.

        If one was changed, or the connection was lost before anything ran, it begins anew, for so many seconds at most. Returns the replies
        of multi, and what work returned.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                with self.session(keys[0] if keys else None) as session:
                    if keys:
                        session.call("WATCH", *keys)
                    multi = session.multi()
                    result = work(session, multi)
                    return multi.run(), result
            except (TxnAborted, IO) as error:
                if error.maybe_executed or time.monotonic() >= end:
                    raise

    def scan(
        self, match: Argument | None = None, *, count: int | None = None, type: str | None = None, restarts: int = 0
    ) -> Iterator[Any]:
        """Every key that is there from the beginning to the end; one may come twice. restarts: how often a failover may begin it anew."""
        return self._scan("SCAN", None, match, count, type, restarts)

    def hscan(self, key: Argument, match: Argument | None = None, *, count: int | None = None, restarts: int = 0) -> Iterator[Any]:
        """The fields of a hash with their values."""
        return self._scan("HSCAN", key, match, count, None, restarts)

    def sscan(self, key: Argument, match: Argument | None = None, *, count: int | None = None, restarts: int = 0) -> Iterator[Any]:
        """The members of a set."""
        return self._scan("SSCAN", key, match, count, None, restarts)

    def zscan(self, key: Argument, match: Argument | None = None, *, count: int | None = None, restarts: int = 0) -> Iterator[Any]:
        """The members of a sorted set with their scores."""
        return self._scan("ZSCAN", key, match, count, None, restarts)

    def _scan(self, command: str, key: Any, match: Any, count: int | None, type: str | None, restarts: int) -> Iterator[Any]:
        scan = _core.Scan(self, _shared.scan_words(command, key, match, count, type), restarts)
        while (page := scan.next(None)) is not None:
            yield from _shared.page_items(command, page)

    def subscribe(
        self,
        *channels: Argument,
        patterns: Sequence[Argument] = (),
        shard_channels: Sequence[Argument] = (),
        overrides: Mapping[str, Any] | None = None,
        timeout: float = 5.0,
    ) -> Subscription:
        """Listens to channels and patterns; returns when the server has confirmed them. Iterate over it for the messages."""
        subscription = Subscription(self, overrides)
        try:
            subscription.add(*channels, patterns=patterns, shard_channels=shard_channels, timeout=timeout)
        except BaseException:
            subscription.close()
            raise
        return subscription

    def push_job(self, name: str, payload: Argument, *, id: str | None = None, timeout: float | None = None) -> int:
        """Pushes a job to a list of jobs, once; returns how many wait. After MaybeExecuted it may be there: push it with the same id."""
        length: int = _core.push_job(self, name, id, payload, timeout)
        return length

    def jobs(self, name: str, worker: str | None = None, *, lease: float | None = None) -> Worker:
        """A worker of a list of jobs, each of which is done at least once. worker: its name; None: a random one. lease: in seconds."""
        return Worker(self, name, worker, lease)

    def events(self, kinds: Iterable[str] = _shared.ALL, *, capacity: int = 4096) -> Events:
        """What happens to the deployment from now on, as an iterator of `Event`."""
        return self.sentinel.events(kinds, capacity=capacity)

    def close(self, timeout: float | None = None) -> None:
        """No new calls; those under way have so many seconds (None: the option timeout.call). A second close does nothing."""
        super().close(timeout)
        if self._owns:
            self.sentinel.close(timeout)


class Shards(Client):
    """Several primaries as one client: a command goes to the shard of its key, a list is dealt out to all of them.

    shards: texts such as "node_1=sentinel:SERVICE" or "node_1=redis://host:port". uri: the Sentinels, if a shard is a service.
    """

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
        self._owns = not isinstance(uri, Sentinel)
        sentinel = uri if isinstance(uri, Sentinel) else Sentinel(uri, options=options) if uri is not None else None
        self.sentinel = sentinel  # type: ignore[assignment]
        handle = None if sentinel is None else sentinel._handle
        _core.Link.__init__(self, "shards", handle, list(shards), dict(overrides or {}), decode_responses)
        self.hook = hook

    def close(self, timeout: float | None = None) -> None:
        _core.Link.close(self, timeout)
        if self._owns and self.sentinel is not None:
            self.sentinel.close(timeout)


class Session(_core.Link, Commands, _Context):
    """A client that is pinned to one connection; commands run in call order. What it watches is known to that connection alone."""

    def __init__(self, client: Client, key: Argument | None, overrides: Mapping[str, Any] | None) -> None:
        self.client = client
        super().__init__("session", client, key, dict(overrides or {}), client.decode_responses)
        self.hook = client.hook

    def close(self, timeout: float | None = 0) -> None:
        """Ends the session; a call under way has so many seconds."""
        super().close(timeout)


class Pipeline:
    """Commands that are collected, and run as one list: by run(), or at the end of `with`. `replies` are those of the last run."""

    def __init__(self, link: Commands, commands: Iterable[Sequence[Argument]], atomic: bool) -> None:
        self._link, self._atomic, self._batch = link, atomic, _core.Batch()
        self.replies: list[Any] = []
        for words in commands:
            self._batch.add(*words)

    def call(self, *args: Argument) -> int:
        """Adds a command; returns its place among the replies."""
        return self._batch.add(*args)

    def __len__(self) -> int:
        return len(self._batch)

    def run(self, **manner: Any) -> list[Any]:
        """Runs the list and empties it. The keywords are those of Client.call(); an empty list has no replies, and sends nothing."""
        if len(self._batch) == 0:
            self.replies = []
            return self.replies
        batch, self._batch = self._batch, _core.Batch()
        self.replies = self._link.calls(batch, self._atomic, **manner)
        return self.replies

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.run()


class Script:
    """A Lua script as a function of keys and arguments."""

    def __init__(self, link: Commands, body: Argument) -> None:
        self._link, self.body = link, body

    def __call__(self, keys: Sequence[Argument] = (), args: Sequence[Argument] = (), **manner: Any) -> Any:
        return self._link.call(*_shared.eval_words(self.body, keys, args), **manner)


class Subscription(_Context):
    """Messages of channels, in order, over failovers. Iteration gives `Message`, `Gap` and `Dropped`, until it is closed."""

    def __init__(self, client: Client, overrides: Mapping[str, Any] | None) -> None:
        self._queue = _core.Queue(16, client.decode_responses)
        self._sub = _core.Sub(client, self._queue, 1, dict(overrides or {}))
        self._taken: deque[tuple[int, int, Any, Any]] = deque()
        self._open = True

    def add(
        self, *channels: Argument, patterns: Sequence[Argument] = (), shard_channels: Sequence[Argument] = (), timeout: float = 5.0
    ) -> None:
        """Listens to more; returns when the server has confirmed all of it, and raises if it refuses one."""
        waiting = 0
        for word, names in (("SUBSCRIBE", channels), ("PSUBSCRIBE", patterns), ("SSUBSCRIBE", shard_channels)):
            if names:
                self._sub.exec(word, *names)
                waiting += len(set(names))
        self._await_answers(waiting, timeout)

    def remove(self, *channels: Argument, patterns: Sequence[Argument] = (), shard_channels: Sequence[Argument] = ()) -> None:
        """Listens to less; messages that are on their way still come."""
        for word, names in (("UNSUBSCRIBE", channels), ("PUNSUBSCRIBE", patterns), ("SUNSUBSCRIBE", shard_channels)):
            if names:
                self._sub.exec(word, *names)

    def _await_answers(self, waiting: int, timeout: float) -> None:
        end = time.monotonic() + timeout
        while waiting > 0:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{waiting} channels were not confirmed within {timeout} s; they are asked for further on")
            for raw in self._queue.drain(left):
                if raw[0] == _shared.MESSAGE and raw[2] is not None:
                    raise raw[2]
                if raw[0] == _shared.MESSAGE and _shared.text(raw[3][0]) in _shared.BEGUN:
                    waiting -= 1
                else:
                    self._taken.append(raw)

    def get(self, timeout: float | None = None) -> Message | Gap | Dropped | None:
        """The next message; None when the time is over (None: no limit), or when it is closed. Raises if a channel is refused."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._open:
            while self._taken:
                if (item := _shared.pushed(self._taken.popleft())) is not None:
                    return item
            left = None if end is None else max(0.0, end - time.monotonic())
            taken = self._queue.drain(left)
            self._taken.extend(taken)
            if not taken and left is not None and left <= 0:
                break
        return None

    def __iter__(self) -> Iterator[Message | Gap | Dropped]:
        try:
            while (item := self.get()) is not None:
                yield item
        except Closed:
            return

    def close(self) -> None:
        """Ends the subscription. A thread that waits in get() returns None."""
        if self._open:
            self._open = False
            self._sub.close()
            self._queue.wakeup()


class Worker(_Context):
    """Takes jobs of a list, each of which is done at least once: acknowledge it with ack(), or hand it back. `with` closes it."""

    def __init__(self, client: Client, name: str, worker: str | None, lease: float | None) -> None:
        self._jobs = _core.Jobs(client, name, worker, lease)

    def take(self, timeout: float | None = None) -> Job | None:
        """The next job; None if there was none within so many seconds (None: the option timeout.call; math.inf: no limit)."""
        return _shared.job_of(self._jobs.run("take", None, timeout))

    def ack(self, job: Job | str, timeout: float | None = None) -> None:
        """It is done, and is removed. After an error acknowledge it again: it is still in hand."""
        self._jobs.run("ack", job.id if isinstance(job, Job) else job, timeout)

    def give_back(self, job: Job | str, timeout: float | None = None) -> None:
        """It comes behind those that wait, marked, for any worker."""
        self._jobs.run("return", job.id if isinstance(job, Job) else job, timeout)

    def renew(self, timeout: float | None = None) -> None:
        """Renews the lease, for a job that takes longer than that."""
        self._jobs.run("renew", None, timeout)

    def limit_deliveries(self, count: int) -> None:
        """Jobs that were handed out so often are put aside; 0: no limit."""
        self._jobs.limit(count)

    def stop(self) -> None:
        """Ends a take() in another thread, and all later ones, with Cancelled."""
        self._jobs.stop()

    def close(self, timeout: float | None = None) -> None:
        """Stops, hands back what is in hand, and ends the lease."""
        self._jobs.run("close", None, timeout)
