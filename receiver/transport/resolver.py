"""Edge: names. Look-ups are independent: names that no server answers do not delay other names.

The system's resolver blocks a thread for each look-up, for ten seconds and more if no server answers. A few dozen such
names would use up all threads. This resolver (c-ares) has one thread for any number of look-ups. It reads what the
system's does: /etc/hosts, /etc/resolv.conf (servers, search domains, ndots; changes are noticed), and the order of
`files` and `dns` in /etc/nsswitch.conf. Other sources of that file (mdns, ldap) are not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import aiodns
from pycares.errno import ARES_ESERVFAIL, ARES_ETIMEOUT

FIRST_WAIT = 1.0
"""Seconds until a server is asked again, doubling each time; less if it answers other questions faster."""
TRIES = 5
LONGEST = 5.0
"""Seconds for one look-up, over all servers and search domains. The caller may give up sooner."""

WORDS = {
    ARES_ETIMEOUT: "no name server answered in time",
    ARES_ESERVFAIL: "the name server failed",
}


class AsyncResolver:
    """Resolves names without a thread for each. `servers` (`address:port`) replace the system's."""

    def __init__(self, servers: Sequence[str] = (), longest: float = LONGEST) -> None:
        self._servers, self._longest = servers, longest
        self._channel: aiodns.DNSResolver | None = None

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        """Every address of the name, the best first (RFC 6724). Raises `OSError` if there is none in time."""
        if self._channel is None:
            self._channel = aiodns.DNSResolver(self._servers or None, timeout=FIRST_WAIT, tries=TRIES)
        try:
            async with asyncio.timeout(self._longest):
                found = await self._channel.getaddrinfo(
                    host, family=socket.AF_UNSPEC, port=port, type=socket.SOCK_STREAM
                )
        except TimeoutError as error:
            raise OSError(None, WORDS[ARES_ETIMEOUT]) from error
        except aiodns.error.DNSError as error:
            raise OSError(None, WORDS.get(error.args[0], "the name has no address")) from error
        return [(node.addr[0].decode("ascii"), port) for node in found.nodes]

    async def close(self) -> None:
        """Abort what is in progress."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(aiodns.error.DNSError):
                await channel.close()
