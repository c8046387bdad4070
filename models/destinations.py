"""
Where we may send to on a customer's behalf: public addresses, and what WEBHOOK_PRIVATE_NETWORKS names. Everything else
would let a customer reach what only this machine can (server-side request forgery, OWASP).

A name is resolved and every address of it checked, and the connection then goes to an address that was checked: what the
name says a moment later makes no difference (DNS rebinding).
"""

import socket
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2_000
WELL_KNOWN_PORTS = {80, 443}
"""Of those below 1024, which belong to mail servers and the like; above, receivers are where they want to be."""
# IANA's special-purpose registries (RFC 6890 and its updates), multicast and what is reserved.
REFUSED_IPV4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
GLOBAL_IPV6 = IPv6Network("2000::/3")
"""All that was ever given out; loopback, link-local, ULA, multicast and mapped addresses are outside."""
REFUSED_IPV6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # IETF protocols, with Teredo, which carries an IPv4 address
        "2001:db8::/32", "2002::/16",  # documentation; 6to4, which carries an IPv4 address
        "2620:4f:8000::/48", "3fff::/20",
    )
)  # fmt: skip
NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is meant, and a resolver behind NAT64 gives such for every host."""


class RefusedDestination(Exception):
    """Why nothing is sent there. `code` is for machines: `unresolvable` or `address_refused`; the text is for people."""

    def __init__(self, reason: str, code: str = "address_refused") -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Destination:
    scheme: str
    host: str
    """In ASCII, as it is looked up and as its certificate names it."""
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """The host, with the port unless it is the scheme's own: all of a URL that is no secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default_port(self.scheme) else f"{host}:{self.port}"


def default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def parse(url: str) -> Destination:
    """The destination that a URL names; raises RefusedDestination for what is none. Nothing is looked up."""
    if len(url) > LONGEST_URL or not url.isprintable() or " " in url or "\\" in url:
        raise RefusedDestination(f"This must be a URL of {LONGEST_URL} characters at the most.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RefusedDestination("This is not a URL.") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise RefusedDestination("This must be like https://example.com/hook.")
    if "@" in parts.netloc:
        raise RefusedDestination("A name or a password in the URL is not taken.")
    if parts.fragment or url.endswith("#"):
        raise RefusedDestination("A fragment in the URL is not taken.")
    port = default_port(parts.scheme) if port is None else port
    if port not in WELL_KNOWN_PORTS and port < 1024:
        raise RefusedDestination("The port must be 80, 443 or above 1023.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii():
        raise RefusedDestination("The path must be ASCII; percent-encode the rest.")
    return Destination(parts.scheme, _ascii(host), port, target)


def _ascii(host: str) -> str:
    if "%" in host:  # an interface of this machine
        raise RefusedDestination("This host name is not taken.")
    if ":" in host:
        return host
    try:
        name = host.encode("idna").decode().rstrip(".")
    except UnicodeError as error:
        raise RefusedDestination("This is not a host name.") from error
    if not name:
        raise RefusedDestination("This is not a host name.")
    return name


def checked_addresses(
    destination: Destination, private_networks: Sequence[Network], *, within_s: float
) -> list[str]:
    """
    The addresses to connect to. Raises RefusedDestination when there is none, or when any of them is refused: who names an
    inner address beside an outer one hopes for the second try.
    """
    found = resolve(destination.host, destination.port, within_s=within_s)
    for address in found:
        problem = problem_with(address, destination.scheme, private_networks)
        if problem:
            raise RefusedDestination(problem)
    return [str(address) for address in found]


def problem_with(address: Address, scheme: str, private_networks: Sequence[Network]) -> str | None:
    """Why nothing is sent to the address; None if it may be."""
    meant = embedded(address) or address
    if any(each.version == meant.version and meant in each for each in private_networks):
        return None
    if not is_public(meant):
        return "The host is at a private or reserved address."
    return None if scheme == "https" else "Only https is taken."


def embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, where it may stand for one."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None


def is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in each for each in REFUSED_IPV4)
    return address in GLOBAL_IPV6 and not any(address in each for each in REFUSED_IPV6)


def resolve(host: str, port: int, *, within_s: float) -> list[Address]:
    """Every address of the host, each once; raises RefusedDestination if there is none, or none in time."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    asked: Future[list[str]] = _resolvers().submit(look_up, host, port)
    try:
        texts = asked.result(within_s)
    except (OSError, UnicodeError, FutureTimeout) as error:
        raise RefusedDestination("The host name has no address.", "unresolvable") from error
    found = list(dict.fromkeys(ip_address(each.partition("%")[0]) for each in texts))
    if not found:
        raise RefusedDestination("The host name has no address.", "unresolvable")
    return found


def look_up(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


@cache
def _resolvers() -> ThreadPoolExecutor:
    """The resolver knows no time limit; whoever waits for it does, and leaves it behind."""
    return ThreadPoolExecutor(16, thread_name_prefix="resolve")
