"""Django's cache over vigie.

    CACHES = {
        "default": {
            "BACKEND": "vigie_redis.redis_py.django.RedisCache",
            "LOCATION": "redis-sentinel://10.0.0.1,10.0.0.2,10.0.0.3/mymaster",
        }
    }

It is Django's own backend with another client below. OPTIONS are those of `vigie_redis.redis_py.ConnectionPool`. One location is enough: with
"read": "split" among the OPTIONS reads go to the replicas.
"""

# redis-py's own annotations differ between its versions, and contradict each other in places: what is inherited from it is not checked.
# mypy: disable-error-code="misc, override, no-any-return, no-untyped-call, arg-type, unused-ignore, truthy-function, import-untyped, operator"

from typing import Any

from django.core.cache.backends.redis import RedisCache as DjangoCache
from django.core.cache.backends.redis import RedisCacheClient as DjangoClient

from . import ConnectionPool, Redis

__all__ = ["RedisCache"]


class RedisCacheClient(DjangoClient):
    """Django's client of the cache, with this package's Redis."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"pool_class": ConnectionPool, **kwargs})
        self._client = Redis


class RedisCache(DjangoCache):
    """Django's RedisCache, whose commands go by vigie."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        # Django splits a text at its commas, which stand between the Sentinels of one URI here.
        super().__init__([server] if isinstance(server, str) else server, params)
        self._class = RedisCacheClient
