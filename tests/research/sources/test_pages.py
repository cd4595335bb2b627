from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import FetchRefused, SourceError
from agentflow.research.sources import ReadLimits, Scope, Source, addresses, read_sources
from agentflow.research.sources.addresses import guarded_socket, refusal


async def fetch(address: str, **limits: float) -> Source:
    (source,) = (
        await read_sources([address], limits=ReadLimits(**limits), scope=Scope(allow_private=True))  # type: ignore[arg-type]
    ).sources
    return source


async def test_a_page_is_read_with_its_title(pages: str) -> None:
    source = await fetch(f"{pages}/article")
    assert source.title == "On Tides"
    assert "sixteen metres" in source.text
    assert "menu" not in source.text
    assert (source.origin, source.media_type) == (f"{pages}/article", "text/html")


async def test_several_pages_keep_their_order_and_one_address_is_fetched_once(pages: str) -> None:
    reading = await read_sources(
        [f"{pages}/latin", f"{pages}/article", f"{pages}/latin"], scope=Scope(allow_private=True)
    )
    assert [source.origin.rsplit("/")[-1] for source in reading.sources] == ["latin", "article"]
    assert "Crème brûlée" in reading.sources[0].text


@pytest.mark.parametrize(
    ("page", "words", "limits"),
    [
        ("never", r"did not answer within 0\.3 s", {"page_timeout_s": 0.3}),
        ("endless", "larger than 1 MB", {"max_page_bytes": 1_000_000}),
        ("stream", "larger than 1 MB", {"max_page_bytes": 1_000_000}),
        ("bomb", "larger than 1 MB", {"max_page_bytes": 1_000_000}),
        ("image", "image/png", {}),
        ("none", "HTTP 404", {}),
        ("away?to=/away?to=/away", "redirects more than 2 times|HTTP", {"max_redirects": 2}),
        ("away?to=ftp://example.org/", "not an http or https address", {}),
        ("away?to=http://u:p@example.org/", "user name", {}),
    ],
)
async def test_a_page_that_does_not_behave_is_told_in_one_line(
    pages: str, page: str, words: str, limits: dict[str, float]
) -> None:
    with pytest.raises(SourceError, match=words) as raised:
        await fetch(f"{pages}/{page}", **limits)
    assert str(raised.value).startswith("http://127.0.0.1")
    assert "\n" not in str(raised.value)


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(SourceError, match="cannot be reached"):
        await fetch("http://127.0.0.1:9/")
    with pytest.raises(SourceError, match="has no address"):
        await fetch("http://nothing.invalid/")


@pytest.mark.parametrize("address", ["http://[bad/", "http://host:99999/", "http://", "http:///x", "http://host:port/"])
async def test_a_malformed_address_is_told(address: str) -> None:
    with pytest.raises(FetchRefused, match=r"not a well-formed|not an http or https"):
        await fetch(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "127.1", "0x7f.1", "127.0.0.1.", "１２７.0.0.1",
     "127。0。0。1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "ⓛocalhost"],
)  # fmt: skip
async def test_this_machine_is_refused_however_it_is_written(pages: str, host: str) -> None:
    address = pages.replace("127.0.0.1", host) + "/article"
    with pytest.raises(SourceError, match=r"loopback|unspecified|no address|well-formed") as raised:
        await read_sources([address])
    if host in ("127.0.0.1", "localhost", "[::1]", "１２７.0.0.1", "[::ffff:127.0.0.1]"):
        assert isinstance(raised.value, FetchRefused)


def test_the_socket_itself_is_refused_when_everything_before_it_was_fooled() -> None:
    make = guarded_socket(allow_private=False)
    with pytest.raises(FetchRefused, match="link-local"):
        make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("169.254.169.254", 80)))
    make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("1.1.1.1", 443))).close()
    guarded_socket(allow_private=True)((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))).close()


async def test_a_redirect_to_a_private_address_is_refused(pages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests reach no public server, so the one address of the test server is taken for public; all others are judged.
    judge = addresses.refusal
    monkeypatch.setattr(addresses, "refusal", lambda address: None if address == "127.0.0.1" else judge(address))
    assert (await read_sources([f"{pages}/article"])).sources
    for target in (
        "http://127.0.0.2:80/x", "http://169.254.169.254/latest/meta-data", "http://[::ffff:10.0.0.1]/",
        "//192.168.0.1/", "http://１２７.0.0.2/",
    ):  # fmt: skip
        with pytest.raises(FetchRefused, match=r"redirects to .* (loopback|link-local|private) address"):
            await read_sources([f"{pages}/away?to={target}"])


async def test_a_redirect_that_leads_nowhere_is_told(pages: str) -> None:
    with pytest.raises(SourceError, match="HTTP 302 and does not say where"):
        await fetch(f"{pages}/nowhere")
    with pytest.raises(FetchRefused, match=r"redirects to http://\[bad/, which is not a well-formed"):
        await fetch(f"{pages}/away?to=http://[bad/")
    assert (await fetch(f"{pages}/away?to=/article")).origin == f"{pages}/away?to=/article"


async def test_text_is_read_in_the_encoding_that_the_page_declares(pages: str) -> None:
    assert (await fetch(f"{pages}/japanese")).text == "これは短い文です。"
    for charset in ("no-such-thing", "zlib", "punycode", "iso-8859-1"):
        assert (await fetch(f"{pages}/utf8?charset={charset}")).text == "naïve “quotes”"


async def test_a_cancelled_reading_lets_its_connections_go(pages: str) -> None:
    async def waiting() -> int:
        return int((await fetch(f"{pages}/waiting")).text.split()[0])

    reading = asyncio.create_task(
        read_sources([f"{pages}/never?{n}" for n in range(3)], scope=Scope(allow_private=True))
    )
    while await waiting() < 3:
        pass
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    while await waiting():
        pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_page_that_fails_ends_the_fetching_of_the_others(pages: str) -> None:
    with pytest.raises(SourceError, match="HTTP 404"):
        await read_sources([f"{pages}/never", f"{pages}/none"], scope=Scope(allow_private=True))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "240.0.0.1", "198.18.0.1",
     "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:101:101::", "2001:0:101:101::1",
     "64:ff9b:1::101:101", "::127.0.0.1", "2001:db8::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_visited(address: str) -> None:
    assert refusal(address) is None


@given(st.ip_addresses(v=4))
def test_an_address_inside_an_ipv6_address_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    assert refusal(str(address)) == refusal(f"::ffff:{address}") == refusal(f"64:ff9b::{address}")
