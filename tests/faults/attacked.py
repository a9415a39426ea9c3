"""The service with all outgoing connections on loopback: `python -m tests.faults.attacked serve --config FILE`, as
`receiver` otherwise.

`CERTIFICATE_HOST` (address:port) is used as the host of SNS's certificates; `NAME_SERVER` (address:port) resolves every
other name. Nothing else differs: pools, resolver and TLS are the service's own.
"""

from __future__ import annotations

import os
from unittest.mock import patch

from receiver import service
from receiver.commands import cli
from receiver.transport.client import Transport
from receiver.transport.resolver import AsyncResolver
from tests.transport.test_transport_tls import HOST


class Near(AsyncResolver):
    """The service's resolver, but for one name."""

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        """The addresses of a name."""
        if host != HOST:
            return await super().resolve(host, port)
        address, _, at = os.environ["CERTIFICATE_HOST"].partition(":")
        return [(address, int(at))]


class NearTransport(Transport):
    """Asks the name server of the test."""

    def _own_resolver(self) -> AsyncResolver:
        self._resolvers.append(Near([os.environ["NAME_SERVER"]]))
        return self._resolvers[-1]


def main() -> None:
    """The command line of the service."""
    with patch.object(service, "Transport", NearTransport):
        cli.main()


if __name__ == "__main__":
    main()
