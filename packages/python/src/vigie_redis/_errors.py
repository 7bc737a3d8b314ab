"""The exceptions of vigie_redis.

Each error of the library is one class by its status, below the class of its kind; `MaybeExecuted` is mixed into those whose command was sent
and not answered. `make` builds them from what the C extension hands over. `by_status` and `by_code` hold the classes.
"""

from __future__ import annotations

from typing import Any

RETRYABLE, MAYBE_EXECUTED, FAILOVER = 1, 2, 4


class Error(Exception):
    """What the library, a server or the network refused. The text says what was tried, where, what happened and after how long.

    status: the number of the library. name: its name, such as "TIMEOUT". code: the first word of a server's error, such as "WRONGTYPE", or "".
    endpoint: the server that it happened with, "host:port", or "". retryable: the same call may succeed if it is tried again.
    maybe_executed: it was sent and not answered. failover: it happened while the topology was changing. count: for `Replicas` how many
    replicas have the write, else -1. errno: the system's number, or 0. reply: the server's answer to a call that failed despite it, or None.
    """

    status: int = 0
    name: str = ""
    code: str = ""
    endpoint: str = ""
    retryable: bool = False
    maybe_executed: bool = False
    failover: bool = False
    count: int = -1
    errno: int = 0
    reply: Any = None


class MaybeExecuted(Exception):
    """Mixed into an error whose command was sent and not answered: it may have run. Look before you send it again."""


class Usage(Error):
    """The call itself is wrong, or the handle cannot take it."""


class InvalidArgument(Usage):
    """An argument is out of range, or does not fit here."""


class InvalidState(Usage):
    """The present state of the handle does not allow this."""


class Config(Usage):
    """An option is unknown, has a bad value, or contradicts another one."""


class Unsupported(Usage):
    """Not in this build, not on this server, or refused by design; the text says which way is open."""


class Closed(Usage):
    """The client was closed."""


class Forked(Usage):
    """The object belongs to the parent process."""


class Cancelled(Usage):
    """The call was cancelled; `maybe_executed` says whether it had been sent."""


class Internal(Usage):
    """A bug of the library, which was caught."""


class BufferTooSmall(Usage):
    """An event does not fit into its buffer."""


class Interrupted(Usage):
    """A signal interrupted a wait."""


class Connection(Error):
    """The wire: resolving, connecting, sending, receiving."""


class Resolve(Connection):
    """A host name could not be resolved in time."""


class Connect(Connection):
    """No connection could be made."""


class IO(Connection):
    """The connection broke, or the peer closed it."""


class Timeout(Connection, TimeoutError):  # type: ignore[misc]  # OSError's errno may be None
    """The deadline passed."""


class TLS(Connection):
    """TLS failed."""


class Auth(Connection):
    """The server refused the credentials."""


class Protocol(Connection):
    """What the peer sent is not RESP, or no answer to what was asked."""


class Limit(Connection):
    """A reply is over the limits, or memory is short."""


class Unavailable(Error):
    """The deployment cannot serve the call now."""


class NoSentinel(Unavailable):
    """No Sentinel answered."""


class UnknownService(Unavailable):
    """No Sentinel knows the service."""


class NoPrimary(Unavailable):
    """The service has no usable primary."""


class NoReplica(Unavailable):
    """The service has no fit replica, and replica.fallback is error."""


class Role(Unavailable):
    """The server does not have the role that was asked for."""


class Fenced(Unavailable):
    """The write was held back during a failover, and not sent."""


class ReadOnlyClient(Unavailable):
    """A command that writes, on a client for replicas."""


class SplitView(Unavailable):
    """The Sentinels name different primaries."""


class Pool(Error):
    """No connection or no room for the call."""


class PoolTimeout(Pool):
    """No connection of one's own came free in time."""


class QueueFull(Pool):
    """Too many calls are under way."""


class PoolBusy(Pool):
    """No connection of one's own is free, and the call does not wait."""


class Server(Error):
    """The server answered with an error; `code` is its first word."""


class TxnAborted(Error):
    """Nothing of the transaction has run: a watched key was changed, or the connection with the WATCH is gone."""


class CrossShard(Error):
    """The command needs keys of more than one shard together."""


class Replicas(Error):
    """Executed, but fewer replicas have it than asked: `count` says how many."""


class ScanInterrupted(Error):
    """The cursor belongs to a node that is not scanned any more."""


by_status: dict[int, type[Error]] = {
    -1: InvalidArgument, -2: InvalidState, -3: Config, -4: Unsupported, -5: Closed, -6: Forked, -7: Cancelled, -8: Internal,
    -9: BufferTooSmall, -10: Interrupted,
    -100: Resolve, -101: Connect, -102: IO, -103: Timeout, -104: TLS, -105: Auth, -106: Protocol, -107: Limit,
    -200: NoSentinel, -201: UnknownService, -202: NoPrimary, -203: NoReplica, -204: Role, -205: Fenced, -206: ReadOnlyClient, -207: SplitView,
    -300: PoolTimeout, -301: QueueFull, -302: PoolBusy,
    -400: Server, -401: TxnAborted, -402: CrossShard, -403: Replicas, -404: ScanInterrupted,
}  # fmt: skip


class WrongType(Server):
    """WRONGTYPE: the key holds another kind of value."""


class NoScript(Server):
    """NOSCRIPT: the server does not know the script."""


class NoPermission(Server):
    """NOPERM: the user may not do this."""


class NoAuth(Server):
    """NOAUTH: the server asks for a password."""


class WrongPassword(Server):
    """WRONGPASS: user or password are wrong."""


class OutOfMemory(Server):
    """OOM: the server's memory limit is reached."""


class ReadOnly(Server):
    """READONLY: the server is a replica."""


class Misconfigured(Server):
    """MISCONF: the server cannot save, and refuses writes."""


class NoReplicas(Server):
    """NOREPLICAS: too few replicas for a write."""


class Loading(Server):
    """LOADING: the server is loading its data."""


class MasterDown(Server):
    """MASTERDOWN: the replica has lost its primary."""


class Busy(Server):
    """BUSY: a script is running."""


class BusyGroup(Server):
    """BUSYGROUP: the consumer group exists."""


class NoGroup(Server):
    """NOGROUP: there is no such consumer group."""


class BusyKey(Server):
    """BUSYKEY: the key exists."""


class ExecAbort(Server):
    """EXECABORT: a command of the transaction was refused, and nothing has run."""


class Unblocked(Server):
    """UNBLOCKED: a blocking command was ended from elsewhere."""


class NotBusy(Server):
    """NOTBUSY: no script is running."""


class Unkillable(Server):
    """UNKILLABLE: the script has written, and cannot be killed."""


class InProgress(Server):
    """INPROG: a failover is in progress."""


class NoGoodReplica(Server):
    """NOGOODSLAVE: no replica can be promoted."""


class CrossSlot(Server):
    """CROSSSLOT: the keys are in different slots."""


class Moved(Server):
    """MOVED: the slot is on another node."""


class Ask(Server):
    """ASK: the slot is moving to another node."""


class TryAgain(Server):
    """TRYAGAIN: the slot is moving, and has only some of the keys."""


class ClusterDown(Server):
    """CLUSTERDOWN: the cluster is down."""


class IoError(Server):
    """IOERR: the server could not reach another one."""


class NoProtocol(Server):
    """NOPROTO: the server does not speak this protocol."""


by_code: dict[str, type[Server]] = {
    "WRONGTYPE": WrongType, "NOSCRIPT": NoScript, "NOPERM": NoPermission, "NOAUTH": NoAuth, "WRONGPASS": WrongPassword,
    "OOM": OutOfMemory, "READONLY": ReadOnly, "MISCONF": Misconfigured, "NOREPLICAS": NoReplicas, "LOADING": Loading,
    "MASTERDOWN": MasterDown, "BUSY": Busy, "BUSYGROUP": BusyGroup, "NOGROUP": NoGroup, "BUSYKEY": BusyKey, "EXECABORT": ExecAbort,
    "UNBLOCKED": Unblocked, "NOTBUSY": NotBusy, "UNKILLABLE": Unkillable, "INPROG": InProgress, "NOGOODSLAVE": NoGoodReplica,
    "CROSSSLOT": CrossSlot, "MOVED": Moved, "ASK": Ask, "TRYAGAIN": TryAgain, "CLUSTERDOWN": ClusterDown, "IOERR": IoError,
    "NOPROTO": NoProtocol,
}  # fmt: skip

_mixed: dict[type[Error], type[Error]] = {}


def _maybe(base: type[Error]) -> type[Error]:
    """The class of the same name that is a MaybeExecuted too."""
    found = _mixed.get(base)
    if found is None:
        found = type(base.__name__, (base, MaybeExecuted), {"__doc__": base.__doc__, "__module__": base.__module__, "__reduce__": _reduce(base)})
        _mixed[base] = found
    return found


def _reduce(base: type[Error]) -> Any:
    """How an error of a class that was made here is pickled: by the parts that it was made of."""
    return lambda self: (
        make,
        (self.status, _flags(self), str(self), self.code, self.endpoint, self.count, self.errno or 0, self.reply),
    )


def _flags(error: Error) -> int:
    return error.retryable * RETRYABLE | error.maybe_executed * MAYBE_EXECUTED | error.failover * FAILOVER


def make(status: int, flags: int, message: str, code: str, endpoint: str, count: int, errno: int, reply: Any) -> Error:
    """The exception for an error of the library."""
    base = by_status.get(status)
    if base is None:
        base = Usage if status > -100 else Connection if status > -200 else Unavailable if status > -300 else Pool if status > -400 else Server
    if base is Server:
        base = by_code.get(code, Server)
    error = (_maybe(base) if flags & MAYBE_EXECUTED else base)(message)
    error.status, error.code, error.endpoint, error.count, error.reply = status, code, endpoint, count, reply
    error.name = _names.get(status, str(status))
    error.errno = errno
    error.retryable, error.maybe_executed = bool(flags & RETRYABLE), bool(flags & MAYBE_EXECUTED)
    error.failover = bool(flags & FAILOVER)
    return error


_names: dict[int, str] = {}
