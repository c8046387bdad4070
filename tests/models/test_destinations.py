"""Where webhooks may go: every class of address that is not public, however it is written."""

import threading
import time
from ipaddress import ip_address, ip_network

import pytest

from models import destinations
from models.destinations import Destination, RefusedDestination, checked_addresses, parse, problem_with

NOT_PUBLIC = {
    "this network": ["0.0.0.0", "0.1.2.3"],
    "private": ["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "shared (carrier-grade NAT)": ["100.64.0.0", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "link-local, cloud metadata": ["169.254.0.1", "169.254.169.254", "fe80::1", "febf::1"],
    "unique local": ["fc00::1", "fd00:ec2::254", "fdff::1"],
    "IETF and documentation": [
        "192.0.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "2001:db8::1",
        "3fff::1",
    ],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "reserved, broadcast": ["240.0.0.1", "255.255.255.255", "::", "4000::1", "fec0::1"],
    "mapped IPv4": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"],
    "compatible IPv4": ["::127.0.0.1", "::8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8"],
}
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:4860:4860::8888", "2606:4700::1111", "2a00::1",
    "2003::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("kind", NOT_PUBLIC)
def test_what_is_not_public_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in NOT_PUBLIC[kind]:
        assert problem_with(ip_address(address), "https", ()), address
        literal = f"[{address}]" if ":" in address else address
        for url in (f"https://{literal}/", f"https://{literal}:8443/x?y"):
            with pytest.raises(RefusedDestination) as refused:
                checked_addresses(parse(url), (), within_s=1)
            assert refused.value.code == "address_refused"
        for says in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
            monkeypatch.setattr(destinations, "look_up", lambda host, port, says=says: says)
            with pytest.raises(RefusedDestination):
                checked_addresses(parse("https://hooks.example/"), (), within_s=1)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_taken_with_tls_alone(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "look_up", lambda host, port: [address])
    assert checked_addresses(parse("https://hooks.example/"), (), within_s=1) == [str(ip_address(address))]
    with pytest.raises(RefusedDestination, match="https"):
        checked_addresses(parse("http://hooks.example/"), (), within_s=1)


def test_a_setting_opens_networks_and_no_others() -> None:
    inner = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    for address, fine in [
        ("10.1.0.1", True), ("10.1.255.255", True), ("10.0.255.255", False), ("10.2.0.0", False), ("fd00::1", True),
        ("fc00::1", False), ("::ffff:10.1.0.1", True), ("64:ff9b::10.1.0.1", True), ("127.0.0.1", False),
    ]:  # fmt: skip
        for scheme in ("http", "https"):
            assert (problem_with(ip_address(address), scheme, inner) is None) is fine, address


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "LOCALHOST."]
)
def test_odd_ways_to_write_an_address_lead_to_the_same_answer(host: str) -> None:
    with pytest.raises(RefusedDestination):
        checked_addresses(parse(f"https://{host}/"), (), within_s=5)


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "//hooks.example", "hooks.example/x", "https://", "https:///x", "https://:443/", "ftp://hooks.example/",
        "file:///etc/passwd", "gopher://hooks.example/", "javascript:alert(1)", "https://user@hooks.example/",
        "https://user:password@hooks.example/", "https://@hooks.example/", "https://hooks.example/#x",
        "https://hooks.example/#", "https://hooks.example:0/", "https://hooks.example:65536/", "https://hooks.example:x/",
        "https://hooks.example:22/", "https://hooks.example:1023/", "https://hooks.example/a b",
        "https://hooks.example/\n", "https://hooks.example\\@inner/", "https://[fe80::1%25eth0]/", "https://[::1",
        "https://hooks..example/", "https://" + "x" * 64 + ".example/", "https://./", "https://hooks.example/ä",
        "https://hooks.example/\x00", "https://hooks%2eexample/",
    ],
)  # fmt: skip
def test_what_is_no_destination_is_refused_before_anything_is_looked_up(url: str) -> None:
    with pytest.raises(RefusedDestination):
        parse(url)


def test_both_sides_of_the_limits() -> None:
    fits = "https://hooks.example/".ljust(destinations.LONGEST_URL, "x")
    assert parse(fits).host == "hooks.example"
    with pytest.raises(RefusedDestination):
        parse(fits + "x")
    for port in (80, 443, 1024, 65535):
        assert parse(f"https://hooks.example:{port}").port == port


def test_a_destination_and_its_name_without_secrets() -> None:
    parsed = parse("HTTPS://Hooks.Example:8443/a/b?token=1&x=%20")
    assert parsed == Destination("https", "hooks.example", 8443, "/a/b?token=1&x=%20")
    assert parsed.authority == "hooks.example:8443"
    assert parse("https://hooks.example:443").authority == "hooks.example"
    assert parse("http://[2001:db8::1]:80/").authority == "[2001:db8::1]"
    assert parse("https://bücher.example/").host == "xn--bcher-kva.example"


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(destinations, "look_up", lambda host, port: ["8.8.8.8"] * go_on.wait(10))
    started = time.monotonic()
    with pytest.raises(RefusedDestination) as refused:
        checked_addresses(parse("https://hooks.example/"), (), within_s=0.1)
    assert time.monotonic() - started < 2
    assert refused.value.code == "unresolvable"
    go_on.set()


def test_a_name_that_is_none_is_unresolvable() -> None:
    with pytest.raises(RefusedDestination) as refused:
        checked_addresses(parse("https://no-such-host.invalid/"), (), within_s=5)
    assert refused.value.code == "unresolvable"
