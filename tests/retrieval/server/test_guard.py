"""Who may ask: the token, names of the server, and pages of other sites."""

import pytest
import served
from PIL import Image

from dinogrl_jax.retrieval.server.guard import Access

TOKEN = "correct-horse-battery-staple"
FRAME = ("a.png", served.png(Image.new("RGB", (20, 40))))


@pytest.fixture(scope="module")
def guarded(model, gallery):
    """A server with a token, which others may reach."""
    with served.served(model, gallery.folder, Access(hosts=None, token=TOKEN)) as client:
        yield client


def test_what_tells_of_people_wants_the_token(guarded):
    description = guarded.get("/openapi.json").json()
    for path, verbs in description["paths"].items():
        for verb in verbs:
            address = path.replace("{place}", "0").replace("{number}", "0")
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": TOKEN},
                {"Authorization": f"Basic {TOKEN}"},
                {"Authorization": f"Bearer {TOKEN}x"},
                {"Cookie": f"token={TOKEN}"},
            ):
                answer = guarded.ask(verb.upper(), address, headers)
                if address == "/health":
                    assert answer.status_code == 200
                else:
                    assert "Authorization: Bearer TOKEN" in served.line(answer, 401)
                    assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/labels/", "//labels", "/static/../labels", "/gallery?x=/health", "/Health"):
        assert guarded.get(path).status_code in (401, 404), path


def test_the_token_opens(guarded):
    guarded.headers = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.search([FRAME]).status_code == 200
    for path in ("/gallery", "/labels", "/metrics", "/tracklets/0/frames/0"):
        assert guarded.get(path).status_code == 200
    assert guarded.get("/gallery", Host="cameras.example.org").status_code == 200
    guarded.headers = {}


def test_pages_hold_nothing_and_are_open(guarded):
    for path in ("/", "/docs", "/static/page.js", "/static/page.css"):
        answer = guarded.get(path)
        assert answer.status_code == 200 and TOKEN not in answer.text
    assert guarded.get("/static/%2e%2e/app.py").status_code in (401, 404)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "", "evil:x:y", "[::2]"]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(client, host):
    for path in ("/", "/gallery", "/search"):
        assert "--known-as" in served.line(client.get(path, Host=host), 421)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "[::1]:80", "127.0.0.1", "LOCALHOST"]
)
def test_its_own_names(client, host):
    assert client.get("/gallery", Host=host).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_pages_of_others_change_and_read_nothing(client, headers):
    said = {"query": "0" * 32, "place": 0, "label": "same"}
    for answer in (
        client.ask("PUT", "/labels", headers, json=said),
        client.ask(
            "POST", "/search", headers, files=[("files", FRAME)], data={"modality": "visible"}
        ),
    ):
        assert "a page of another site" in served.line(answer, 403)
    if "Sec-Fetch-Mode" in headers:  # a link to the page is followed
        assert client.get("/", **headers).status_code == 200
    else:
        served.line(client.get("/tracklets/0/thumbnail", **headers), 403)


def test_its_own_page_asks(client):
    headers = {"Origin": client.address, "Sec-Fetch-Site": "same-origin"}
    form = {"files": [("files", FRAME)], "data": {"modality": "visible"}}
    assert client.ask("POST", "/search", headers, **form).status_code == 200


def test_every_answer_has_the_headers(client, guarded):
    for answer in (
        client.get("/"),
        client.get("/gallery"),
        client.get("/no"),
        guarded.get("/labels"),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    assert "script" not in client.get("/docs").headers["content-security-policy"]
