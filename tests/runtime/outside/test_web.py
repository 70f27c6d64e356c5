"""HTTP for programs: what is reached, what is refused and where it stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_daemon.errors import PieError
from pie_daemon.host.outside import WebRequest, WebResponse
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.outside.loop import Job, Loop
from pie_daemon.runtime.outside.web import ProgramWeb, Web
from support import certificates
from support.waiting import until
from support.web_server import WebServer, web_server


class Setup:
    """A program that may reach the test's server, and names that lead where a test wants."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.rules = (f"127.0.0.1:{server.port}", "api.test:*", "other.test:*")
        self.names: dict[str, list[str]] = {"api.test": ["127.0.0.1"]}
        self.lookups: list[str] = []
        self.limits = LimitsConfig(http_hosts=self.rules, http_networks=("127.0.0.0/8",))
        self.loop = Loop()
        self.web = Web(self.loop, lambda: self.limits, self._resolve)
        self.programs: list[ProgramWeb] = []
        self.program = self.new_program(self.rules)

    def new_program(self, *manifests: tuple[str, ...]) -> ProgramWeb:
        program = ProgramWeb(self.web, manifests)
        self.programs.append(program)
        return program

    def close(self) -> None:
        for program in self.programs:
            program.close()
        self.loop.close()

    async def _resolve(self, host: str, port: int) -> list[str]:
        self.lookups.append(host)
        return self.names[host]

    def set(self, **limits: Any) -> None:
        self.limits = LimitsConfig(
            **{"http_hosts": self.rules, "http_networks": ("127.0.0.0/8",), **limits}
        )

    def start(self, url: str, program: ProgramWeb | None = None, **fields: Any) -> Job[WebResponse]:
        asked = {"method": "GET", "headers": [], "body": b"", "timeout_s": None, **fields}
        url = self.server.url(url) if url.startswith("/") else url
        woken = threading.Event()
        job = (program or self.program).fetch(WebRequest(url=url, **asked), woken.set)
        self.woken = woken
        return job

    def get(self, url: str, program: ProgramWeb | None = None, **fields: Any) -> WebResponse:
        job = self.start(url, program, **fields)
        try:
            until(self.woken.is_set)
            return job.result()
        finally:
            job.close()

    def refusal(
        self, url: str, program: ProgramWeb | None = None, **fields: Any
    ) -> tuple[str, str]:
        with pytest.raises(PieError) as caught:
            self.get(url, program, **fields)
        return caught.value.code, caught.value.message


@pytest.fixture
def web() -> Iterator[Setup]:
    with web_server() as server:
        setup = Setup(server)
        yield setup
        setup.close()


def test_a_response_arrives_whole(web: Setup) -> None:
    """Status, headers in lower case, body; errors of the server are responses too."""
    response = web.get("/")
    assert (200, b'{"hello": "world"}') == (response.status, response.body)
    assert "application/json" == dict(response.headers)["content-type"]
    assert (404, b"so it is") == (web.get("/status/404").status, web.get("/status/404").body)


def test_what_is_sent_is_what_was_asked_for(web: Setup) -> None:
    """Method, headers and body of the program; no cookies, no compression that grows here."""
    web.get("/")
    web.get("/", method="POST", headers=[("X-Key", " ä "), ("Accept", "text/x")], body=b"\x00data")
    first, second = web.server.asked
    assert ("POST", b"\x00data") == (second.method, second.body)
    assert ("text/x", "5") == (second.headers["accept"], second.headers["content-length"])
    assert "ä" == second.headers["x-key"].encode("latin-1").decode()
    assert "identity" == first.headers["accept-encoding"]
    assert first.headers["user-agent"].startswith("pie/")
    assert "cookie" not in second.headers


def test_connections_are_kept_within_a_program_and_never_shared(web: Setup) -> None:
    """The second request of one comes over the same line, that of another over its own."""
    other = web.new_program(web.rules)
    web.get("/")
    web.get("/")
    assert 1 == len(web.server.connections)
    web.get("/", other)
    assert 2 == len(web.server.connections)


@pytest.mark.parametrize(
    ("url", "code", "part"),
    [
        ("https://example.com/", "denied", "the manifest does not ask for example.com"),
        ("http://127.0.0.1:1/", "denied", "127.0.0.1:1"),
        ("ftp://api.test/", "invalid-argument", "neither with http:// nor"),
        ("http://", "invalid-argument", "is no host"),
        ("http://api.test:99999/", "invalid-argument", "port 99999"),
        ("http://user:pw@api.test/", "invalid-argument", "`authorization` header"),
        ("http://api.test@evil.test/", "invalid-argument", "`authorization` header"),
        ("http://2130706433/", "invalid-argument", "four decimal numbers"),
        ("http://0x7f.1/", "invalid-argument", "four decimal numbers"),
        ("http://0x7f000001/", "invalid-argument", "four decimal numbers"),
        ("http://127.1/", "invalid-argument", "four decimal numbers"),
        ("http://a b/", "invalid-argument", ""),
        ("http://a%2eb/", "invalid-argument", "is no host"),
        ("http://[fe80::1%25eth0]/", "invalid-argument", "is no host"),
        ("http://api.test/" + "a" * 9000, "invalid-argument", "characters"),
        ("http://api.test/a\r\nX: y", "invalid-argument", "is no URL"),
    ],
)
def test_urls_that_are_refused(web: Setup, url: str, code: str, part: str) -> None:
    """Before anything leaves the machine, and with what to do."""
    found = web.refusal(url)
    assert code == found[0]
    assert part in found[1]
    assert [] == web.lookups


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"headers": [("a", "b\r\nc: d")]}, "line break"),
        ({"headers": [("a", "b\nc")]}, "line break"),
        ({"headers": [("a", "b\x00")]}, "line break"),
        ({"headers": [("a b", "c")]}, "no name of a header"),
        ({"headers": [("a:", "c")]}, "no name of a header"),
        ({"headers": [("", "c")]}, "no name of a header"),
        ({"headers": [("Host", "evil")]}, "daemon's own affair"),
        ({"headers": [("Transfer-Encoding", "chunked")]}, "daemon's own affair"),
        ({"headers": [("content-length", "3")]}, "daemon's own affair"),
        ({"method": "GET / HTTP/1.1\r\nX:"}, "is no method"),
        ({"method": "CONNECT"}, "is no method"),
        ({"method": "get"}, "is no method"),
    ],
)
def test_a_request_cannot_be_more_than_one(web: Setup, fields: dict[str, Any], part: str) -> None:
    """Nothing of a header or method reaches the line as something else."""
    code, message = web.refusal("/", **fields)
    assert "invalid-argument" == code
    assert part in message
    assert [] == web.server.asked


def test_nothing_is_granted_unless_everybody_grants_it(web: Setup) -> None:
    """The manifest, those above it, and the operator; each refusal says whose it was."""
    url = web.server.url(host="api.test")
    assert 200 == web.get(url, web.new_program(("*:*",), ("api.test:*",))).status
    for manifests in ((), ("other.test:*",)), (("*:*",), ()):
        code, message = web.refusal(url, web.new_program(*manifests))
        assert "denied" == code
        assert f"the manifest does not ask for api.test:{web.server.port}" in message
        assert "programs which launch this one" in message
    web.set(http_hosts=())
    code, message = web.refusal(url)
    assert "denied" == code
    assert "limits.http_hosts" in message


def test_the_operator_can_take_a_grant_back(web: Setup) -> None:
    """From programs that run, for everything that they ask for from then on."""
    assert 200 == web.get("/").status
    web.set(http_hosts=("elsewhere.test",))
    assert "denied" == web.refusal("/")[0]


def test_a_name_that_leads_into_the_own_network_is_refused(web: Setup) -> None:
    """With the address and the way out; nothing is connected."""
    web.names["api.test"] = ["127.0.0.1", "169.254.169.254", "::1"]
    web.set(http_networks=())
    code, message = web.refusal(web.server.url(host="api.test"))
    assert "denied" == code
    assert "api.test (127.0.0.1, 169.254.169.254, ::1) is not a public address" in message
    assert "limits.http_networks" in message
    assert [] == web.server.asked


def test_of_several_addresses_only_allowed_ones_are_tried(web: Setup) -> None:
    """The checked address is the one that is connected: the name is looked up once."""
    web.names["api.test"] = ["10.0.0.1", "127.0.0.1"]
    assert 200 == web.get(web.server.url(host="api.test")).status
    assert ["api.test"] == web.lookups
    assert f"api.test:{web.server.port}" == web.server.asked[0].headers["host"]


def test_an_address_is_reachable_when_the_operator_lists_itself(web: Setup) -> None:
    """And not because of a star."""
    web.set(http_networks=())
    assert 200 == web.get("/").status
    web.set(http_networks=(), http_hosts=("*:*",))
    assert "denied" == web.refusal("/", web.new_program(web.rules))[0]


def test_redirects_are_followed_within_the_grant(web: Setup) -> None:
    """The last response is the answer; a 307 repeats the body."""
    assert b'{"hello": "world"}' == web.get("/to//").body
    web.get(f"/keep/{web.server.url(host='api.test')}", method="POST", body=b"again")
    assert (b"again", "POST") == (web.server.asked[-1].body, web.server.asked[-1].method)


def test_secrets_do_not_follow_a_redirect_to_another_host(web: Setup) -> None:
    """Although both hosts are granted."""
    headers = [("authorization", "Bearer x"), ("cookie", "a=b")]
    web.get(f"/to/{web.server.url(host='api.test')}", headers=headers)
    assert not {"authorization", "cookie"} & set(web.server.asked[-1].headers)
    assert "Bearer x" == web.server.asked[0].headers["authorization"]


@pytest.mark.parametrize(
    ("location", "part"),
    [
        ("http://example.com/", "the manifest does not ask for example.com"),
        ("http://127.0.0.1:1/", "the manifest does not ask for 127.0.0.1:1"),
        ("file://x/etc/passwd", "neither with http:// nor"),
        ("http://a:b@api.test/", "`authorization` header"),
        ("http://2130706433/", "four decimal numbers"),
    ],
)
def test_redirects_out_of_the_grant_are_refused(web: Setup, location: str, part: str) -> None:
    """The hop is named; it is not made."""
    code, message = web.refusal(f"/to/{location}")
    assert "denied" == code
    assert location.rstrip("/") in message
    assert part in message
    assert 1 == len(web.server.asked)


def test_a_redirect_into_the_own_network_is_refused(web: Setup) -> None:
    """By its address, though the name is granted."""
    web.names["other.test"] = ["10.0.0.1"]
    assert "denied" == web.refusal("/to/http://other.test/")[0]


def test_endless_redirects_end(web: Setup) -> None:
    """After five."""
    assert "exhausted" == web.refusal("/round/")[0]
    assert 6 == len(web.server.asked)


def test_large_bodies_arrive_whole_both_ways(web: Setup) -> None:
    """Larger than any buffer on the way."""
    body = bytes(range(256)) * 2000
    web.set(http_request_bytes=len(body), http_response_bytes=600_000)
    assert 600_000 == len(web.get("/size/600000").body)
    web.get("/", method="POST", body=body)
    assert body == web.server.asked[-1].body


def test_sizes_are_limited_both_ways(web: Setup) -> None:
    """With the key that says so; exactly as much is fine."""
    web.set(http_request_bytes=10, http_response_bytes=100)
    assert 100 == len(web.get("/size/100").body)
    for url, body, key in (
        ("/size/101", b"", "http_response_bytes=100"),
        ("/endless", b"", "http_response_bytes=100"),
        ("/", b"x" * 11, "http_request_bytes=10"),
    ):
        code, message = web.refusal(url, method="POST", body=body)
        assert "exhausted" == code
        assert key in message
    assert "exhausted" == web.refusal("/", headers=[("a", "b")] * 101)[0]
    assert "exhausted" == web.refusal("/", headers=[("a", "b" * 70_000)])[0]


def test_time_is_limited(web: Setup) -> None:
    """By the program, and by the operator whatever the program asks for."""
    assert "timeout" == web.refusal("/hang", timeout_s=0.05)[0]
    web.set(http_timeout_s=0.05)
    code, message = web.refusal("/hang", timeout_s=100)
    assert ("timeout", True) == (code, "within 0.05 s" in message)


def test_open_exchanges_are_counted_until_they_are_dropped(web: Setup) -> None:
    """What is not dropped is held in memory."""
    web.set(http_exchanges=2)
    jobs = [web.start("/hang"), web.start("/")]
    code, message = web.refusal("/")
    assert ("exhausted", True) == (code, "limits.http_exchanges=2" in message)
    jobs[1].close()
    assert 200 == web.get("/").status
    jobs[0].close()


def test_dropping_an_exchange_hangs_up(web: Setup) -> None:
    """The server sees it."""
    job = web.start("/hang")
    until(lambda: len(web.server.asked) == 1)
    job.close()
    until(web.server.hung_up.is_set)


def test_failures_on_the_way_are_told(web: Setup) -> None:
    """No connection, no such name, no HTTP."""
    with web_server() as gone:
        url = gone.url()
    web.set(http_hosts=("*:*", url.split("/")[2]))
    program = web.new_program(("*:*",))
    assert "closed" == web.refusal(url, program)[0]
    assert "closed" == web.refusal("/nonsense")[0]

    async def unknown(host: str, port: int) -> list[str]:
        raise PieError("not-found", f"there is no host {host}")

    web.web._network._resolve = unknown
    assert "not-found" == web.refusal("http://nowhere.test/", program)[0]


def test_the_environment_names_no_proxy(web: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to what nobody has checked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert 200 == web.get("/", web.new_program(web.rules)).status


def test_the_end_of_the_daemon_ends_exchanges(web: Setup) -> None:
    """Whoever waits is told, and nothing new begins."""
    job = web.start("/hang")
    until(lambda: len(web.server.asked) == 1)
    web.close()
    assert web.woken.is_set()
    with pytest.raises(PieError, match="closed"):
        job.result()
    with pytest.raises(PieError, match="shutting down"):
        web.start("/")


def test_the_systems_own_lookup(web: Setup) -> None:
    """Finds this machine, and says what it does not find."""
    web.web = Web(web.loop, lambda: web.limits)
    web.set(http_hosts=("localhost:*", "*:*"), http_networks=())
    program = web.new_program(("*:*",))
    assert 200 == web.get(web.server.url(host="localhost"), program).status
    assert "not-found" == web.refusal("http://no-such-host.invalid/", program)[0]


def test_certificates_are_checked_for_the_name_that_was_asked_for(
    web: Setup, tmp_path: Path
) -> None:
    """Although the connection goes to an address; and nothing goes on without encryption."""
    tls, trusting = certificates.contexts("api.test", tmp_path)
    web.names["other.test"] = ["127.0.0.1"]
    with web_server(tls) as server:
        code, message = web.refusal(f"https://api.test:{server.port}/")
        assert ("closed", True) == (code, "CERTIFICATE_VERIFY_FAILED" in message)
        web.web._tls = trusting
        web.program = web.new_program(web.rules)
        assert 200 == web.get(f"https://api.test:{server.port}/").status
        code, message = web.refusal(f"https://other.test:{server.port}/")
        assert ("closed", True) == (code, "not valid for 'other.test'" in message)
        down = f"https://api.test:{server.port}/to/{web.server.url(host='api.test')}"
        code, message = web.refusal(down)
        assert ("denied", True) == (code, message.endswith("without encryption"))
        assert [] == web.server.asked
        web.close()
