"""Redis and Valkey under Sentinel: a client that follows failovers, loses no acknowledged write, and says what happened to every command.

    import vigie_redis

    with vigie_redis.Client("redis-sentinel://10.0.0.1,10.0.0.2,10.0.0.3/mymaster") as client:
        client.call("SET", "greeting", "hello")
        print(client.call("GET", "greeting"))

`Client` blocks and serves all threads; `vigie_redis.aio.Client` is for asyncio; `vigie_redis.redis_py` is for programs of redis-py.
Every error is an `Error`; `except MaybeExecuted` is for those whose command was sent and not answered.
"""

from ._client import Client, Events, Pipeline, Script, Sentinel, Session, Shards, Subscription, Worker
from ._core import version as __version__
from ._errors import (
    Ask, Auth, BufferTooSmall, Busy, BusyGroup, BusyKey, Cancelled, Closed, ClusterDown, Config, Connect, Connection, CrossShard,
    CrossSlot, Error, ExecAbort, Fenced, Forked, IO, InProgress, Internal, Interrupted, InvalidArgument, InvalidState, IoError, Limit,
    Loading, MasterDown, MaybeExecuted, Misconfigured, Moved, NoAuth, NoGoodReplica, NoGroup, NoPermission, NoPrimary, NoProtocol,
    NoReplica, NoReplicas, NoScript, NoSentinel, NotBusy, OutOfMemory, Pool, PoolBusy, PoolTimeout, Protocol, QueueFull, ReadOnly,
    ReadOnlyClient, Replicas, Resolve, Role, ScanInterrupted, Server, SplitView, TLS, Timeout, TryAgain, TxnAborted, Unavailable,
    Unblocked, Unkillable, UnknownService, Unsupported, Usage, WrongPassword, WrongType, by_code,
)  # fmt: skip
from ._logging import LogBridge, log_to
from ._shared import Dropped, Event, Gap, Job, Message

__all__ = [
    "Ask", "Auth", "BufferTooSmall", "Busy", "BusyGroup", "BusyKey", "Cancelled", "Client", "Closed", "ClusterDown", "Config",
    "Connect", "Connection", "CrossShard", "CrossSlot", "Dropped", "Error", "Event", "Events", "ExecAbort", "Fenced", "Forked", "Gap",
    "IO", "InProgress", "Internal", "Interrupted", "InvalidArgument", "InvalidState", "IoError", "Job", "Limit", "Loading",
    "LogBridge", "MasterDown", "MaybeExecuted", "Message", "Misconfigured", "Moved", "NoAuth", "NoGoodReplica", "NoGroup",
    "NoPermission", "NoPrimary", "NoProtocol", "NoReplica", "NoReplicas", "NoScript", "NoSentinel", "NotBusy", "OutOfMemory",
    "Pipeline", "Pool", "PoolBusy", "PoolTimeout", "Protocol", "QueueFull", "ReadOnly", "ReadOnlyClient", "Replicas", "Resolve",
    "Role", "ScanInterrupted", "Script", "Sentinel", "Server", "Session", "Shards", "SplitView", "Subscription", "TLS", "Timeout",
    "TryAgain", "TxnAborted", "Unavailable", "Unblocked", "Unkillable", "UnknownService", "Unsupported", "Usage", "Worker",
    "WrongPassword", "WrongType", "__version__", "by_code", "log_to",
]  # fmt: skip
