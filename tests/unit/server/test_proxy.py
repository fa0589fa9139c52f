"""Whose address counts behind proxies: what they wrote, never what a client invented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.errors import ConfigError
from curbside.server.proxy import ClientAddresses, parse_node

PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


def scope(peer: str | None, *headers: tuple[str, str]) -> dict[str, Any]:
    """A request as the server gets it."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {"client": (peer, 4711) if peer else None, "headers": raw}


def find(peer: str | None, *values: str, hops: int = 1, name: str = "x-forwarded-for") -> str:
    """The client's key, with 10.0.0.0/8 and fd00::/8 trusted."""
    addresses = ClientAddresses(("10.0.0.0/8", "fd00::/8"), name, hops)
    return addresses.find(scope(peer, *((name, value) for value in values)))


def test_a_peer_that_is_no_proxy_speaks_for_itself_alone() -> None:
    for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
        said = scope("198.51.100.9", (header, f"for={CLIENT}" if header == "forwarded" else CLIENT))
        assert ClientAddresses().find(said) == "198.51.100.9"
        assert ClientAddresses(("10.0.0.0/8",), "forwarded").find(said) == "198.51.100.9"
        assert ClientAddresses(("10.0.0.0/8",)).find(said) == "198.51.100.9"


def test_without_trusted_proxies_not_even_loopback_is_believed() -> None:
    assert ClientAddresses().find(scope("127.0.0.1", ("x-forwarded-for", CLIENT))) == "127.0.0.1"


def test_a_trusted_proxy_is_believed_in_its_own_header_only() -> None:
    assert find(PROXY, CLIENT) == CLIENT
    other = scope(PROXY, ("forwarded", f"for={CLIENT}"), ("x-real-ip", CLIENT))
    assert ClientAddresses(("10.0.0.0/8",)).find(other) == PROXY


@pytest.mark.parametrize(
    ("values", "hops", "expected"),
    [
        (["6.6.6.6, 203.0.113.7"], 1, CLIENT),
        (["6.6.6.6", "203.0.113.7"], 1, CLIENT),
        (["6.6.6.6, 203.0.113.7, 10.0.0.2"], 1, "10.0.0.2"),
        (["6.6.6.6, 203.0.113.7, 10.0.0.2"], 2, CLIENT),
        (["6.6.6.6, 203.0.113.7", "10.0.0.2"], 2, CLIENT),
        (["6.6.6.6, 203.0.113.7, 10.0.0.2"], 8, CLIENT),
        (["10.0.0.3, 10.0.0.2"], 8, "10.0.0.3"),
        (["203.0.113.7, unknown"], 2, PROXY),
        (["203.0.113.7, _hidden, 10.0.0.2"], 3, "10.0.0.2"),
        ([""], 1, PROXY),
        ([" , ,"], 3, PROXY),
        ([], 1, PROXY),
        (['6.6.6.6, "7.7.7.7, 203.0.113.7'], 1, CLIENT),
        (["203.0.113.7:52000"], 1, CLIENT),
        (["\t203.0.113.7  "], 1, CLIENT),
        (["203.0.113.7\x00"], 1, PROXY),
        (["203.0.113.007"], 1, PROXY),
        (["3405803783"], 1, PROXY),
        (["0x7f.1"], 1, PROXY),
        (["localhost"], 1, PROXY),
        (["203.0.113.7/32"], 1, PROXY),
        (["\xb2\xb3.1.1.1"], 1, PROXY),
        (["1" * 30_000], 1, PROXY),
        (["6.6.6.6," * 5_000 + CLIENT], 1, CLIENT),
    ],
)
def test_x_forwarded_for(values: list[str], hops: int, expected: str) -> None:
    assert find(PROXY, *values, hops=hops) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["for=203.0.113.7"], CLIENT),
        (["For=203.0.113.7;proto=https;by=10.0.0.1;host=a.example"], CLIENT),
        (['proto=https;for="203.0.113.7:47011"'], CLIENT),
        (['for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::/64"),
        (["for=6.6.6.6, for=203.0.113.7"], CLIENT),
        (["for=6.6.6.6", "for=203.0.113.7"], CLIENT),
        (['for="6.6.6.6, for=203.0.113.7'], CLIENT),
        (['for=6.6.6.6;x=",", for=203.0.113.7'], CLIENT),
        (['for="a\\", for=203.0.113.7'], CLIENT),
        (["for=unknown"], PROXY),
        (["for=_gazonk"], PROXY),
        (["by=203.0.113.7"], PROXY),
        (["xfor=203.0.113.7"], PROXY),
        (["203.0.113.7"], PROXY),
        (["for=203.0.113.7 6.6.6.6"], PROXY),
        ([""], PROXY),
    ],
)
def test_forwarded(values: list[str], expected: str) -> None:
    assert find(PROXY, *values, name="forwarded") == expected


def test_ipv6_is_counted_by_its_network_and_mapped_addresses_as_ipv4() -> None:
    assert find(PROXY, "2001:db8:1:2:3:4:5:6") == find(PROXY, "[2001:db8:1:2::9]:443") == "2001:db8:1:2::/64"
    assert find(PROXY, "2001:db8:1:3::1") != find(PROXY, "2001:db8:1:2::1")
    assert find("::ffff:10.0.0.1", "::ffff:203.0.113.7") == CLIENT
    assert find("fd00::1", CLIENT) == CLIENT
    assert find("fe80::1%eth0", CLIENT) == "unknown"
    assert find(None, CLIENT) == "unknown"


def test_settings_that_make_no_sense_are_refused() -> None:
    for arguments in (
        (("10.0.0.0/33",),),
        (("10.0.0.1/8",),),
        (("proxy.example",),),
        ((), "x-real-ip"),
        ((), "forwarded", 0),
        ((), "forwarded", 9),
    ):
        with pytest.raises(ConfigError, match="proxy"):
            ClientAddresses(*arguments)


@given(st.text(st.characters(max_codepoint=255), max_size=200), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_whatever_a_client_sends_first_changes_nothing(invented: str, name: str) -> None:
    """What the proxy appends decides, as an element of the same line or as a line of its own."""
    appended = f"for={CLIENT}" if name == "forwarded" else CLIENT
    assert find(PROXY, f"{invented}, {appended}", name=name) == CLIENT
    assert find(PROXY, invented, appended, name=name) == CLIENT


@given(st.text(max_size=60))
def test_only_addresses_are_addresses(text: str) -> None:
    found = parse_node(text)
    assert found is None or str(found)
