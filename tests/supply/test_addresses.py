"""Published addresses: what a server says is compared with what was published. Everything here is on the loopback."""

import hashlib

import pytest
import requests

from frugalseg.data.sources import SOURCES, STEPS, Source
from frugalseg.errors import ConfigError
from tests.data.web import Served, serve
from tests.supply import addresses

CONTENT = b"frugal" * 1000


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(addresses, "PAUSE", 0.0)
    with serve() as running:
        yield running


@pytest.fixture
def judged(web):
    """The verdict on a file of the server, with what was published for it."""

    def judge(digest=None, size=None, **settings):
        web.files["/file"] = Served(CONTENT, **settings)
        with requests.Session() as session:
            return addresses.judge(session, "voc", Source(web.url("/file"), "file", digest, size))

    return judge


def test_a_living_address(judged, web):
    verdict = judged(size=len(CONTENT))
    assert verdict.good
    assert verdict.what == "HTTP 200, 6.00 kB"
    assert [method for method, *_ in web.requests] == ["HEAD"], "nothing is fetched"
    assert web.requests[0][2]["Accept-Encoding"] == "identity"


def test_another_size_is_bad(judged):
    verdict = judged(size=len(CONTENT) + 1)
    assert not verdict.good
    assert verdict.what == "6000 bytes, 6001 were published"


def test_a_size_that_is_not_said_is_no_fault(judged):
    verdict = judged(size=7, sized=False)
    assert verdict.good
    assert "size not said" in verdict.what


@pytest.mark.parametrize("code", [404, 410, 401])
def test_a_dead_address_is_asked_once(judged, web, code):
    verdict = judged(statuses=[code])
    assert (verdict.good, verdict.what) == (False, f"HTTP {code}")
    assert len(web.requests) == 1


@pytest.mark.parametrize("code", [403, 405, 501])
def test_a_server_without_head_is_asked_for_one_byte(judged, web, code):
    verdict = judged(statuses=[code, 200], ranges=False)
    assert verdict.good
    assert [method for method, *_ in web.requests] == ["HEAD", "GET"]
    assert web.ranges() == ["bytes=0-0"]


def test_a_refusal_of_both_is_bad(judged):
    assert judged(statuses=[403]).what == "HTTP 403"


def test_a_part_says_the_whole_size(judged):
    verdict = judged(statuses=[405, 200], ranges=False, headers={"Content-Range": "bytes 0-0/123456"}, size=123456)
    assert verdict.good


def test_a_busy_server_is_asked_again(judged, web):
    assert judged(statuses=[503, 200]).good
    assert len(web.requests) == 2
    verdict = judged(statuses=[503])
    assert (verdict.good, verdict.what) == (False, f"HTTP 503, {addresses.ATTEMPTS} times")


def test_no_server(monkeypatch):
    monkeypatch.setattr(addresses, "PAUSE", 0.0)
    with serve() as web:
        url = web.url("/file")
    with requests.Session() as session:
        gone = addresses.judge(session, "voc", Source(url, "file", None, None))
        none = addresses.judge(session, "voc", Source("nothing://x", "file", None, None))
    assert not gone.good
    assert gone.what.startswith("no answer (")
    assert gone.what.endswith("3 times")
    assert not none.good
    assert none.what.startswith("not an address (")


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({"x-linked-etag": f'"{hashlib.sha256(CONTENT).hexdigest()}"'}, True),
        ({"x-linked-etag": f'"{hashlib.sha256(b"other").hexdigest()}"'}, False),
        ({"x-linked-etag": '"anything"'}, True),
    ],
)
def test_the_hub_says_a_sha256(judged, headers, good):
    verdict = judged(digest=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", headers=headers)
    assert verdict.good == good
    assert ("sha256 is right" in verdict.what) == (good and "anything" not in headers["x-linked-etag"])
    assert good or "was published" in verdict.what


def test_an_etag_that_is_the_md5_is_said_and_another_one_is_no_fault(judged):
    digest = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert judged(digest=digest, etag=f'"{digest[4:]}"').what.endswith("md5 is right")
    assert judged(digest=digest, etag=f'"{"0" * 32}"').good


def test_every_source_and_every_page_of_the_steps_is_asked():
    found = addresses.groups(sorted({*SOURCES, *STEPS}))
    asked = {source.url for sources in found.values() for source in sources}
    assert {source.url for sources in SOURCES.values() for source in sources} <= asked
    assert "https://www.cityscapes-dataset.com/file-handling/?packageID=3" in asked
    assert "https://captain-whu.github.io/iSAID/dataset.html" in asked
    assert all(not url.endswith((".", ",", ":", ")")) for url in asked)
    assert sum(text.count("http") for text in STEPS.values()) == sum(map(len, addresses.pages().values()))


def test_weights_are_those_of_data_get(monkeypatch):
    from frugalseg.commands import data_get
    from frugalseg.commands.data_get import MODELS

    # timm takes seconds to import, and tests of `data get` hold the names to it
    monkeypatch.setattr(data_get, "_repository", lambda name: f"timm/{name}")
    found = addresses.groups(["weights"])["weights"]
    assert [source.name for source in found] == list(MODELS)
    assert all(source.url.endswith(f"/timm/{source.name}/resolve/main/model.safetensors") for source in found)


def test_an_unknown_group_is_an_error(capsys):
    with pytest.raises(ConfigError, match="--only nothing: there are ade20k, "):
        addresses.groups(["nothing"])
    assert addresses.main(["--only", "nothing"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_command_counts_and_fails_where_one_is_dead(web, monkeypatch, capsys):
    web.files["/good"] = Served(CONTENT)
    sources = {"voc": [Source(web.url(path), "x", None, None) for path in ("/good", "/gone")]}
    monkeypatch.setattr(addresses, "groups", lambda _: sources)
    assert addresses.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok  voc ")
    assert lines[1].startswith("BAD voc ")
    assert lines[2] == "2 addresses, 1 bad"
    del sources["voc"][1]
    assert addresses.main([]) == 0
