"""A bridge from the library's log to Python's `logging`. It is off until a program asks for it.

A thread of its own takes the lines, so that no call waits for a handler of `logging`.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from . import _core, _shared
from ._client import Client, Sentinel

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


class LogBridge:
    """Hands the lines of one handle to a logger until it is closed."""

    def __init__(self, handle: _core.Handle, logger: logging.Logger, level: str) -> None:
        self._handle, self._logger, self._queue, self._open = handle, logger, _core.Queue(4096, True), True
        handle.configure({"log.level": level})
        handle.watch(self._queue, _shared.LOG, 0)
        self._thread = threading.Thread(target=self._run, name="vigie-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._open:
            for kind, _, _, line in self._queue.drain(None):
                if kind == _shared.LOG:
                    self._pass_on(line)
                elif kind == _shared.DROPPED:
                    self._logger.warning("%d lines of the log were dropped", line)

    def _pass_on(self, line: dict[str, Any]) -> None:
        level = _LEVELS.get(line["level"], logging.INFO)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s: %s", line["target"], line["message"], extra={"vigie": line})

    def close(self) -> None:
        """Ends the bridge; lines that are on their way are dropped."""
        self._open = False
        self._handle.watch(self._queue, 0, 0)
        self._queue.wakeup()
        self._thread.join()


def log_to(source: Client | Sentinel, logger: logging.Logger | None = None, level: str = "warning") -> LogBridge:
    """Hands the library's log lines of a handle to a logger ("vigie_redis" if none is given).

    level is that of the library: error, warning, info or debug. The attribute vigie of each record has the line with all its keys.
    """
    sentinel = source.sentinel if isinstance(source, Client) else source
    return LogBridge(sentinel._handle, logger or logging.getLogger("vigie_redis"), level)
