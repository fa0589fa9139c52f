"""Which address a request comes from, behind proxies that are ours.

A peer's word about whom it speaks for (X-Forwarded-For, or Forwarded of RFC 7239) counts only when the peer is in a
trusted network. Each of our proxies writes what it saw at the right end of the header, so it is read from there, at
most `hops` entries and never past one that is not itself a trusted proxy: what stands further left may be a client's
invention, and is never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from curbside.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNKNOWN: Final = "unknown"
MOST_HOPS: Final = 8
_HEADERS: Final = {"x-forwarded-for": b"x-forwarded-for", "forwarded": b"forwarded"}
_SPOKEN_FOR: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via", b"x-forwarded-host"})
_IPV6_PREFIX: Final = 64
"""A customer's usual share: who has one address of it has them all, so they count as one."""
_NODE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::[0-9]{1,5})?\Z|([0-9A-Fa-f:.]{2,45})\Z")
_FOR: Final = re.compile(r'(?:^|;)[ \t]*for[ \t]*=[ \t]*(?:"([^"\\]*)"|([^";\\ \t]*))[ \t]*(?:;|\Z)', re.IGNORECASE)


def parse_networks(names: Sequence[str], setting: str) -> tuple[Network, ...]:
    """Networks such as 10.0.0.0/8 or 2001:db8::/32; a single address counts as a network of one.

    Raises: ConfigError naming the setting.
    """
    try:
        return tuple(ip_network(name) for name in names)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


class ClientAddresses:
    """Finds the client's address. trusted: networks of our proxies. header: the one they write. hops: how many of them
    a request passes."""

    def __init__(self, trusted: Sequence[str] = (), header: str = "x-forwarded-for", hops: int = 1) -> None:
        """Raises: ConfigError."""
        self._trusted = parse_networks(trusted, "proxy.trusted")
        if header not in _HEADERS:
            raise ConfigError("proxy.header must be x-forwarded-for or forwarded")
        if not 1 <= hops <= MOST_HOPS:
            raise ConfigError(f"proxy.hops must be between 1 and {MOST_HOPS}")
        self._header = _HEADERS[header]
        self._hops = hops

    def find(self, scope: Mapping[str, Any]) -> str:
        """The key of the client's tries: an IPv4 address, the /64 of an IPv6 one, or "unknown". Never logged."""
        address = self.find_client(scope)
        return UNKNOWN if address is None else _share(address)

    def find_client(self, scope: Mapping[str, Any]) -> Address | None:
        """The client's address; the last proxy's when what it wrote cannot be read; None when the peer has none."""
        address = find_peer(scope)
        if address is None or not self._trusted or not is_within(address, self._trusted):
            return address
        for _, entry in zip(range(self._hops), self._read_entries(scope), strict=False):
            said = parse_node(entry)
            if said is None:
                return address
            address = said
            if not is_within(address, self._trusted):
                return address
        return address

    def is_from_proxy(self, scope: Mapping[str, Any]) -> bool:
        """Whether a proxy of ours hands this on, so that its other headers may be believed."""
        peer = find_peer(scope)
        return peer is not None and is_within(peer, self._trusted)

    def _read_entries(self, scope: Mapping[str, Any]) -> Iterator[str]:
        """The header's elements, the last one first."""
        for name, value in reversed(scope["headers"]):
            if name == self._header:
                parts = _split_from_right(value.decode("latin-1"))
                yield from parts if self._header == b"x-forwarded-for" else map(_read_for, parts)


def is_spoken_for(scope: Mapping[str, Any]) -> bool:
    """Whether the request says of itself that a proxy handed it on."""
    return any(name in _SPOKEN_FOR for name, _ in scope["headers"])


def find_peer(scope: Mapping[str, Any]) -> Address | None:
    """The other end of the connection."""
    client = scope.get("client")
    return parse_node(str(client[0])) if client else None


def parse_node(text: str) -> Address | None:
    """An address with or without a port, as proxies write it (RFC 7239 section 6); None for anything else, also for
    `unknown`, an obfuscated name and an address of a link."""
    found = _NODE.match(text.strip(" \t"))
    if found is None:
        return None
    try:
        address = ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in network for network in networks)


def _share(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _IPV6_PREFIX), strict=False))


def _split_from_right(value: str) -> Iterator[str]:
    """Elements of a list, the last one first. Commas in quotes divide nothing.

    Quotes are paired from the right, so that one left open by a client cannot swallow what a proxy appended.
    """
    end, is_quoted = len(value), False
    for at in range(len(value) - 1, -1, -1):
        if value[at] == '"':
            is_quoted = not is_quoted
        elif value[at] == "," and not is_quoted:
            yield value[at + 1 : end]
            end = at
    yield value[:end]


def _read_for(element: str) -> str:
    """The `for` of a forwarded-element; "" for none."""
    found = _FOR.search(element)
    return "" if found is None else found[1] or found[2] or ""
