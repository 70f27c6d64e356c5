"""Who asks: by key, or by reaching a port that only this machine reaches."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from pie_daemon.gateway.config import GatewayConfig, is_loopback
from pie_daemon.gateway.errors import ApiError

ANONYMOUS = "anonymous"
_SCHEME = "bearer "


class Access:
    def __init__(self, config: GatewayConfig) -> None:
        pairs = (key.split(":", 1) for key in config.api_keys)
        self._keys = [(user, secret.encode()) for user, secret in pairs]
        # A page in a browser of this machine must not get in by a name that it points here.
        self._check_host = not config.api_keys and not config.insecure

    def user(self, headers: Mapping[str, str]) -> str:
        """ApiError for whom nothing is served."""
        if self._keys:
            return self._by_key(headers.get("authorization", ""))
        if self._check_host and not is_loopback(_hostname(headers.get("host", ""))):
            raise ApiError(
                403,
                "without gateway.api_keys only requests to a loopback address are served, such as "
                "http://127.0.0.1; this one names another host",
            )
        return ANONYMOUS

    def _by_key(self, given: str) -> str:
        if not given.lower().startswith(_SCHEME):
            raise _no_key("no API key: send it as `Authorization: Bearer SECRET`")
        secret = given[len(_SCHEME) :].strip().encode("utf-8", "surrogateescape")
        # All of them are compared, so that time tells nothing about which is near.
        found = [user for user, known in self._keys if hmac.compare_digest(known, secret)]
        if not found:
            raise _no_key("the API key is none of gateway.api_keys (without its `USER:`)")
        return found[0]


def _no_key(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key")


def _hostname(host: str) -> str:
    """Of a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
