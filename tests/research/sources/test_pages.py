from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import FetchRefused, SourceError
from agentflow.research.sources import ReadLimits, Source, read_sources
from agentflow.research.sources.addresses import PublicResolver, refusal


async def fetch(address: str, **limits: float) -> Source:
    (source,) = (
        await read_sources([address], limits=ReadLimits(**limits), allow_private=True)  # type: ignore[arg-type]
    ).sources
    return source


async def test_a_page_is_read_with_its_title(pages: str) -> None:
    source = await fetch(f"{pages}/article")
    assert source.title == "On Tides"
    assert "sixteen metres" in source.text
    assert "menu" not in source.text
    assert (source.origin, source.media_type) == (f"{pages}/article", "text/html")


async def test_several_pages_keep_their_order_and_one_address_is_fetched_once(pages: str) -> None:
    reading = await read_sources([f"{pages}/latin", f"{pages}/article", f"{pages}/latin"], allow_private=True)
    assert [source.origin.rsplit("/")[-1] for source in reading.sources] == ["latin", "article"]
    assert "Crème brûlée" in reading.sources[0].text


@pytest.mark.parametrize(
    ("page", "words", "limits"),
    [
        ("never", r"did not answer within 0\.3 s", {"page_timeout_s": 0.3}),
        ("endless", "larger than 1 MB", {"max_page_bytes": 1_000_000}),
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
    with pytest.raises(SourceError, match="cannot be fetched"):
        await fetch("http://127.0.0.1:9/")
    with pytest.raises(SourceError, match="has no address"):
        await fetch("http://nothing.invalid/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "127.1"])
async def test_this_machine_is_refused_unless_allowed(pages: str, host: str) -> None:
    address = pages.replace("127.0.0.1", host) + "/article"
    with pytest.raises(SourceError, match=r"loopback|unspecified|no address|cannot be fetched") as raised:
        await read_sources([address])
    if host in ("127.0.0.1", "localhost", "[::1]"):
        assert isinstance(raised.value, FetchRefused)


async def test_a_redirect_to_a_private_address_is_refused(pages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first hop must be let through for the second to be judged: the resolver alone is told that it is public.
    async def resolve(self: PublicResolver, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
        assert host == "public.test"
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr(PublicResolver, "resolve", resolve)
    start = pages.replace("127.0.0.1", "public.test")
    assert (await read_sources([f"{start}/article"])).sources
    for target in ("http://127.0.0.1:80/x", "http://169.254.169.254/latest/meta-data", "http://[::ffff:10.0.0.1]/"):
        with pytest.raises(FetchRefused, match=r"redirects to .* (loopback|link-local|private) address"):
            await read_sources([f"{start}/away?to={target}"])


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_visited(address: str) -> None:
    assert refusal(address) is None


@given(st.ip_addresses(v=4))
def test_an_address_inside_an_ipv6_address_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    assert refusal(str(address)) == refusal(f"::ffff:{address}") == refusal(f"64:ff9b::{address}")
