"""The page in a real browser: by mouse and by keyboard, light and dark, wide and narrow."""

import json

import chromium
import numpy as np
import pytest
import served

from dinogrl_jax.retrieval.server.guard import Access
from dinogrl_jax.retrieval.store.labels import stored_labels

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.ABSENT)
TOKEN = "correct-horse-battery-staple"
SEARCHED = "document.querySelectorAll('#list article').length"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("browser")) as page:
        page.shape(1200, 900)
        yield page


@pytest.fixture
def own(model, clips, tmp_path):
    """A server of a gallery of one's own."""
    gallery = served.fill(tmp_path / "g", model, clips)
    with served.served(model, gallery.folder) as client:
        yield client


def searched(page, client, clip, modality="infrared") -> None:
    page.open(client.address)
    page.wait("document.querySelectorAll('[name=cameras]').length")
    page.choose("#files", clip)
    page.run(f"document.querySelector('[name=modality][value={modality}]').click()")
    page.run("document.querySelector('button.main').click()")
    page.wait(SEARCHED)


def test_a_search_shows_what_the_api_answers(page, own, clips):
    searched(page, own, clips[3])
    answer = own.search(served.files_of(clips[3]), "infrared").json()
    assert page.run(SEARCHED) == len(answer["found"]) == served.TRACKLETS
    titles = page.run("[...document.querySelectorAll('article h3')].map((x) => x.textContent)")
    for rank, (title, one) in enumerate(zip(titles, answer["found"], strict=True), 1):
        assert title.startswith(f"{rank}: ")
        assert float(title.split()[1]) == pytest.approx(one["distance"], rel=1e-3)
    said = page.run("document.querySelector('article').innerText")
    for words in ("≤ 1 %", "camera\n0", "infrared", "tracklet-3", "3 frames", "Same person"):
        assert words in said, words
    shown = "[...document.querySelectorAll('.picture img')].filter((x) => x.naturalWidth).length"
    page.wait(f"{shown} === {served.TRACKLETS}")
    assert f"{served.TRACKLETS} tracklets of {served.TRACKLETS}" in page.run(STATUS)
    assert "share of pairs of different people" in page.run("document.body.innerText")


def test_frames_open(page, own, clips):
    searched(page, own, clips[3])
    page.run("document.querySelector('summary').click()")
    page.wait("document.querySelectorAll('details img').length === 3")
    assert page.run("document.querySelector('details img').naturalHeight") == 60


def test_hostile_names_are_text(page, own, clips, tmp_path):
    hostile = tmp_path / f"{served.HOSTILE}.png".replace("/", "")
    hostile.write_bytes(b"no picture")
    searched(page, own, clips[5])
    assert served.HOSTILE in page.run("document.querySelector('article').innerText")
    page.choose("#files", [hostile])
    assert served.HOSTILE in page.run("document.getElementById('chosen').textContent")
    page.run("document.querySelector('button.main').click()")
    page.wait(f"{STATUS}.includes('is not an image')")
    assert "<img src=x onerror=alert(1)>" in page.run(STATUS)
    assert not page.run("document.querySelectorAll('[onerror], article script').length")


def test_filters(page, own, clips):
    page.open(own.address)
    page.wait("document.querySelectorAll('[name=cameras]').length")
    page.choose("#files", clips[3])
    page.run("document.querySelector('[name=modality][value=infrared]').click()")
    page.run("document.querySelector('[name=cameras][value=\"1\"]').click()")
    page.run("document.querySelector('[name=modalities][value=infrared]').click()")
    page.run("document.querySelector('[name=since]').value = '1970-01-01T02:00:00'")
    page.run("document.querySelector('button.main').click()")
    page.wait(SEARCHED)
    found = page.run("[...document.querySelectorAll('article h3')].length")
    kept = [i for i in range(served.TRACKLETS) if i % 3 == 1 and i % 2 == 0 and i >= 2]
    assert found == len(kept) > 0


def test_what_is_missing_is_said(page, own, clips):
    page.open(own.address)
    for step, said in (
        (lambda: None, "Choose a clip first"),
        (lambda: page.choose("#files", clips[0]), "in which light the clip was filmed"),
    ):
        step()
        page.run("document.querySelector('button.main').click()")
        page.wait(f"{STATUS}.includes({json.dumps(said)})")


def test_all_by_keyboard_and_labels_are_kept(page, own, clips):
    """From the top of the page to an answer by Tab, Space and Enter alone; the file is chosen."""
    page.open(own.address)
    page.wait("document.querySelectorAll('[name=cameras]').length")
    page.choose("#files", clips[3])
    reached = set()

    def reach(selector: str) -> None:
        for _ in range(60):
            page.press(chromium.TAB)
            reached.add(page.run("document.activeElement.name || document.activeElement.className"))
            ring = page.run("getComputedStyle(document.activeElement).outlineStyle")
            assert ring == "solid", page.run("document.activeElement.outerHTML")
            if page.run(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(selector)

    reach("[name=modality]")
    page.press(chromium.SPACE)
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight",
              windowsVirtualKeyCode=39)  # fmt: skip
    assert page.run("document.querySelector('[name=modality]:checked').value") == "infrared"
    reach("button.main")
    page.press(chromium.ENTER)
    page.wait(SEARCHED)
    assert {"modality", "cameras", "modalities", "since", "until", "k", "main"} <= reached
    reach("button.same")
    page.press(chromium.ENTER)
    page.wait(f"{STATUS}.includes('kept as same person')")
    reach("button.other")
    reach("summary")
    page.press(chromium.ENTER)
    page.wait("document.querySelectorAll('details img').length === 3")
    (label,) = stored_labels(own.service.folder)
    assert (label.place, label.label) == (3, "same")
    page.run("document.querySelector('button.main').click()")  # it is there when asked again
    pressed = "document.querySelectorAll('[aria-pressed=true]').length"
    page.wait(f"{pressed} === 1 && !document.querySelector('button.main').disabled")
    page.run("document.querySelector('.other').click()")
    page.wait(f"{STATUS}.includes('kept as other person')")
    page.run("document.querySelector('.other').click()")
    page.wait(f"{STATUS}.includes('has no answer now')")
    assert stored_labels(own.service.folder) == []


def test_a_dropped_clip(page, own, clips):
    page.open(own.address)
    page.wait("document.querySelectorAll('[name=cameras]').length")
    count = page.run(
        """(async () => {
          const data = new DataTransfer();
          for (const name of ["10.png", "9.png"]) {
            const blob = await (await fetch("tracklets/3/thumbnail")).blob();
            data.items.add(new File([blob], name, { type: "image/jpeg" }));
          }
          const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
          document.getElementById("drop").dispatchEvent(event);
          return document.getElementById("chosen").textContent;
        })()"""
    )
    assert count.startswith("2 files, 9.png to 10.png")
    page.run("document.querySelector('[name=modality][value=visible]').click()")
    page.run("document.querySelector('button.main').click()")
    page.wait(SEARCHED)


def test_the_token_is_asked_for_once(page, model, gallery, clips):
    with served.served(model, gallery.folder, Access(token=TOKEN)) as client:
        page.open(client.address)
        page.wait("document.getElementById('ask').open")
        for given, there in (("wrong", True), (TOKEN, False)):
            page.run("document.getElementById('secret').focus()")
            page.type(given)
            page.press(chromium.ENTER)
            page.wait(
                "document.getElementById('wrong').textContent" if there else SEARCHED + " === 0"
            )
        page.wait("document.querySelectorAll('[name=cameras]').length")
        assert not page.run("document.getElementById('ask').open")
        searched(page, client, clips[3])  # the page is opened again: it is remembered
        assert not page.run("document.getElementById('ask').open")
        page.wait("!!document.querySelector('.picture img')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1120])
def test_any_width_light_and_dark(page, client, clips, scheme, width):
    page.shape(width, 800, scheme)
    try:
        searched(page, client, clips[3])
        assert page.run("document.documentElement.scrollWidth") <= width
        for selector in ("body", ".soft", "dt", "button.main", "button.same", "#gallery", "a"):
            assert contrast(page, selector) >= 4.5, selector
    finally:
        page.shape(1200, 900)


def contrast(page, selector: str) -> float:
    """Of an element's text and what is behind it, as WCAG has it: 4.5 is enough."""
    colours = page.run(
        f"""(() => {{
          const element = document.querySelector({json.dumps(selector)});
          let behind = element;
          while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
            behind = behind.parentElement;
          const numbers = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
          return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
            .map(numbers);
        }})()"""
    )
    values = np.array(colours) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (high + 0.05) / (low + 0.05)


def test_everything_has_a_name_and_nothing_comes_from_elsewhere(page, own, clips):
    page.events.clear()
    searched(page, own, clips[3])
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = (
        "button",
        "checkbox",
        "radio",
        "textbox",
        "spinbutton",
        "DisclosureTriangle",
        "link",
    )
    nameless = [x for x in tree if x.get("role", {}).get("value") in controls and not x["ignored"]]
    assert len(nameless) > 40
    assert not [x for x in nameless if not x.get("name", {}).get("value")]
    assert page.run("document.getElementById('status').getAttribute('aria-live')") == "polite"
    assert page.problems() == []
    for address in page.addresses():
        assert address.startswith((own.address, "blob:", "data:")), address
    # the policy holds: markup that somebody smuggled in would not run
    page.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.bad=1\">')"
    )
    page.run("new Promise((done) => setTimeout(done, 200))")
    assert page.run("window.bad") is None
    assert any("Content Security Policy" in x for x in page.problems())
