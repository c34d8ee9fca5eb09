"""The gallery in a real browser, from a file and from a server: what a person sees and does there.

No page may ask another host for anything, nor make the console complain, whatever the names are.
"""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest
from browser import Browser
from exhibition import HOSTILE_STYLE, contents, make_exhibition, pieces, refresh
from selenium.webdriver import ActionChains, Keys

NAMES = 10
"""Contents of the exhibition, one of which no job could be made of."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a place with hostile names, failures, a copy, an animation, and an output gone."""
    home = make_exhibition(tmp_path_factory.mktemp("gallery") / "home", output={"making": "webp"})
    refresh(home)
    (home / "outbox/boat-oil.png").unlink()
    refresh(home)
    return home


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[str]:
    """Return the address of the gallery on a server that knows files alone."""
    handler = functools.partial(_Quiet, directory=os.fspath(home / "outbox"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/gallery/index.html"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser, home: Path) -> Iterator[Browser]:
    """Return the browser with the gallery's page, from a file; see that it did nothing wrong."""
    show(browser, home)
    yield browser
    assert browser.errors() == []
    assert browser.foreign() == []
    assert browser.run("return document.title") == "home"  # what a script of a name would change
    assert not browser.all("[onerror], [onmouseover], #grid script, .facts script")


def show(browser: Browser, home: Path | str, fragment: str = "") -> None:
    """Load the page, anew."""
    browser.driver.get("about:blank")
    page = (home / "outbox/gallery/index.html").as_uri() if isinstance(home, Path) else home
    browser.open(f"{page}#{fragment}")
    browser.wait_for("document.querySelector('#grid').hasChildNodes()")


def tiles(browser: Browser) -> int:
    return len(browser.all("#grid a.tile"))


def piece_id(home: Path, name: str, style: str) -> str:
    return str(pieces(home)[name, style]["id"])


def open_piece(browser: Browser, piece: str) -> None:
    browser.run("location.hash = `piece=${arguments[0]}`", piece)
    browser.wait_for("document.querySelector('.viewer[open] .facts dl, .viewer[open] .links')")


def test_the_grid_has_the_paintings_over_columns_and_the_photographs_before_rows(
    page: Browser,
) -> None:
    heads = [head.text for head in page.all("#grid thead th")]
    assert heads == ["ink", "oil", HOSTILE_STYLE]
    assert all(head.get_attribute("alt") for head in page.all("#grid thead th img"))
    assert len(page.all("#grid tbody tr")) == NAMES + 1
    assert tiles(page) == 3 * NAMES + 1
    page.wait_for("[...document.images].every((i) => i.loading !== 'eager' || i.naturalWidth)")
    page.run("document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; })")
    page.wait_for("[...document.images].every((image) => image.complete)")
    assert page.run("return [...document.images].filter((i) => !i.naturalWidth).length") == 0
    alts = [image.get_attribute("alt") for image in page.all("#grid img")]
    assert "boat.png in ink" in alts and "The photograph boat.png" in alts and all(alts)


def test_it_works_from_a_server_too(browser: Browser, served: str) -> None:
    show(browser, served)
    assert tiles(browser) == 3 * NAMES + 1
    browser.click("#grid a.tile.done")
    browser.wait_for("document.querySelector('.viewer[open] .facts dl')")
    assert browser.errors() == [] and browser.foreign() == []


def test_one_style_is_shown_across_contents_and_one_content_across_styles(page: Browser) -> None:
    page.click("#grid thead th a")
    page.wait_for("document.querySelector('.wall')")
    assert page.text("#now h2") == "ink"
    assert tiles(page) == NAMES
    page.click("#now a")
    page.wait_for("document.querySelector('table')")
    page.run(
        "[...document.querySelectorAll('tbody th a')]"
        ".find((link) => link.innerText === 'boat.png').click()"
    )
    page.wait_for("document.querySelector('.wall')")
    assert page.text("#now h2") == "boat.png"
    assert tiles(page) == 3 and page.text(".wall li p") == "the photograph"
    page.driver.back()
    page.wait_for("document.querySelector('table')")


def test_every_name_links_its_own_file(page: Browser, served: str, home: Path) -> None:
    for name, content in contents(home).items():
        first = content["pieces"][0]
        if first["status"] != "done":
            continue
        open_piece(page, first["id"])
        assert page.text("#viewer-title").split() == f"{name} in {first['style']}".split()
        links = page.run("return [...document.querySelectorAll('.links a')].map((a) => a.href)")
        assert links[0].startswith((home / "outbox").as_uri() + "/")
        assert Path(os.fsdecode(_path_of(links[0]))).is_file()
        assert Path(os.fsdecode(_path_of(links[1]))).is_file()  # its manifest


def _path_of(address: str) -> bytes:
    return unquote_to_bytes(address.removeprefix("file://"))


def test_the_slider_goes_from_the_pastiche_to_the_photograph(page: Browser, home: Path) -> None:
    open_piece(page, piece_id(home, "large.jpg", "ink"))
    clipped = "return getComputedStyle(document.querySelector('.before')).clipPath"
    assert "100%" in page.run(clipped)
    page.run("document.querySelector('.slider input').focus()")
    page.press(*[Keys.ARROW_RIGHT] * 4)
    assert (
        page.run("return document.querySelector('.frame').style.getPropertyValue('--shown')")
        == "2%"
    )
    frame = page.one(".frame")
    ActionChains(page.driver).move_to_element(frame).click_and_hold().move_by_offset(
        round(frame.size["width"] / 4), 0
    ).release().perform()
    value = float(page.run("return document.querySelector('.slider input').value"))
    assert 74 <= value <= 76
    assert "25" in page.run(clipped) or "24" in page.run(clipped)


def test_keys_turn_pages_in_the_picture_and_move_between_tiles(page: Browser, home: Path) -> None:
    page.run("document.querySelector('a.tile.done').focus()")
    first = page.run("return document.activeElement.dataset.piece")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert page.run("return document.activeElement.dataset.piece") == first
    page.press(Keys.ENTER)
    page.wait_for("document.querySelector('.viewer[open] .facts dl')")
    title = page.text("#viewer-title")
    page.press(Keys.ARROW_RIGHT)
    page.wait_for("document.querySelector('#viewer-title').innerText !== arguments[0]", title)
    page.press(Keys.ARROW_LEFT)
    page.wait_for("document.querySelector('#viewer-title').innerText === arguments[0]", title)
    page.press(Keys.ARROW_DOWN)
    page.wait_for("document.querySelector('#viewer-title').innerText !== arguments[0]", title)
    assert page.text("#viewer-title").split(" in ")[-1] == title.split(" in ")[-1]
    here = page.run("return new URLSearchParams(location.hash.slice(1)).get('piece')")
    page.press(Keys.ESCAPE)
    page.wait_for("!document.querySelector('.viewer[open]')")
    assert page.run("return document.activeElement.dataset.piece") == here
    page.press("/")
    assert page.run("return document.activeElement.id") == "search"


def test_a_picture_is_shown_pixel_by_pixel_and_in_the_making(page: Browser, home: Path) -> None:
    open_piece(page, piece_id(home, "large.jpg", "ink"))
    page.wait_for("document.querySelectorAll('.press').length === 2")
    page.press("z")
    page.wait_for("document.querySelector('.zoom img').naturalWidth")
    zoomed = page.run(
        "const i = document.querySelector('.zoom img'); return [i.src, i.width / i.naturalWidth]"
    )
    assert zoomed[0] == (home / "outbox/large-ink.png").as_uri() and zoomed[1] == 1
    page.click(".press")
    assert not page.all(".zoom")
    page.all(".press")[1].click()
    page.wait_for("document.querySelector('.making').complete")
    assert page.one(".making").get_attribute("src") == (home / "outbox/large-ink.webp").as_uri()


def test_all_that_is_known_of_a_picture_is_told(page: Browser, home: Path) -> None:
    open_piece(page, piece_id(home, "boat.png", "ink"))
    page.click(".facts summary")
    told, piece = page.text(".facts"), pieces(home)["boat.png", "ink"]
    for text in ("48 × 36 pixels", "0.5", "fake, fp32", "compact", "3 to 3", "Loss over 1 step",
                 piece["again"], piece["sha256"], piece["key"], piece["content_sha256"],
                 str(home / "inbox/boat.png"), str(home / "outbox/boat-ink.png")):  # fmt: skip
        assert text in told
    recipe, again = (block.get_attribute("textContent") for block in page.all(".block pre"))
    assert recipe.startswith("recipe:\n  name: default\n  size: 32\n") and again == piece["again"]
    assert page.one(".curve svg").get_attribute("aria-label").startswith("The loss over 1 steps")


def test_what_failed_and_what_is_gone_say_so(page: Browser, home: Path) -> None:
    bad = pieces(home)["bad.png", "ink"]
    open_piece(page, bad["id"])
    assert page.text(".controls .reason") == bad["reason"]
    assert page.text(".block pre") == bad["retry"]
    gone = piece_id(home, "boat.png", "oil")
    open_piece(page, gone)
    page.wait_for("document.querySelector('#viewer-title').innerText === 'boat.png in oil'")
    page.wait_for("document.querySelector('.facts .links')")
    assert "taken away" in page.text(".controls")
    assert "The file" not in page.text(".links")
    note = page.one(f"[data-piece='{gone}'] .note")
    assert note.get_attribute("textContent") == "taken away"


def test_filters_and_the_search_leave_what_is_like_that(page: Browser, home: Path) -> None:
    def counts(**wanted: str) -> int:
        page.run(
            "location.hash = arguments[0]", "&".join(f"{k}={quote(v)}" for k, v in wanted.items())
        )
        key = "&".join(wanted.values())
        page.wait_for("decodeURIComponent(location.hash).includes(arguments[0])", key.split("&")[0])
        page.wait_for("document.querySelector('#told').innerText")
        return tiles(page)

    piece = pieces(home)["boat.png", "ink"]
    page.click("#more")
    page.wait_for("document.querySelector('[name=folder]').options.length > 1")
    expected = {
        "style": ("ink", NAMES), "status": ("failed", 4), "folder": ("trip", 3),
        "content": (contents(home)["boat.png"]["id"], 3), "recipe": (piece["recipe"], 3 * NAMES),
        "run": (piece["run"], 3 * NAMES), "from": ("2001-01-01", 3 * NAMES + 1),
    }  # fmt: skip
    for name, (value, number) in expected.items():
        page.run("document.querySelector('[type=reset]').click()")
        page.wait_for("document.querySelector('#told').innerText === ''")
        page.run(
            "const f = document.querySelector(`[name=${arguments[0]}]`); f.value = arguments[1];"
            "f.dispatchEvent(new Event('change', {bubbles: true}))", name, value,
        )  # fmt: skip
        page.wait_for("document.querySelector('#told').innerText !== ''")
        assert tiles(page) == number, name
    assert counts(q="BOAT oil") == 1 and counts(status="gone", style="oil") == 1
    assert counts(to="2001-01-01") == 0 and page.text("#told") == "Nothing is like that."
    page.run("document.querySelector('[type=reset]').click()")
    page.wait_for("document.querySelector('#told').innerText === ''")
    page.one("#search").send_keys("hill")
    page.wait_for("document.querySelector('#told').innerText === '3 pictures'")


def test_what_is_new_since_the_last_visit_is_marked(page: Browser, home: Path) -> None:
    assert not page.all(".dot") and not page.one("#new").is_displayed()
    page.run(
        "sessionStorage.clear();"
        "for (const key of Object.keys(localStorage)) localStorage.setItem(key, '1000')"
    )
    show(page, home)
    assert len(page.all(".dot")) == tiles(page) == 3 * NAMES + 1
    page.click("#new")
    page.wait_for("document.querySelector('#told').innerText")
    show(page, home)  # in the same tab it is the same visit
    assert page.all(".dot")
    page.run("sessionStorage.clear()")
    show(page, home)
    assert not page.all(".dot")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Browser, home: Path, scheme: str) -> None:
    page.prefer(color_scheme=scheme)
    paper = page.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(251, 250, 248)", "dark": "rgb(19, 18, 17)"}[scheme]
    page.click("#more")
    page.wait_for("document.querySelector('[name=folder]').options.length > 1")
    assert page.accessibility_problems() == []
    open_piece(page, piece_id(home, "large.jpg", "ink"))
    page.click(".facts summary")
    assert page.accessibility_problems() == []
    if scheme == "light":
        show(page, home, "style=ink")
        assert page.accessibility_problems() == []


def test_a_person_may_have_it_dark_against_the_system(page: Browser, home: Path) -> None:
    page.prefer(color_scheme="light")
    page.click("#theme")
    dark = "return getComputedStyle(document.body).backgroundColor === 'rgb(19, 18, 17)'"
    assert page.run(dark)
    show(page, home)
    assert page.run(dark)
    page.click("#theme")
    assert not page.run(dark)


@pytest.mark.parametrize("width", [320, 1280, 3840])
def test_nothing_is_wider_than_the_window(page: Browser, home: Path, width: int) -> None:
    page.resize(width)
    show(page, home)
    page.click("#more")
    assert page.overflow() <= 0
    open_piece(page, piece_id(home, "large.jpg", "ink"))
    assert page.overflow() <= 0
    sides = page.run("const b = document.querySelector('.frame').getBoundingClientRect();"
                     "return [b.left, b.right]")  # fmt: skip
    assert sides[0] >= 0 and sides[1] <= width
    show(page, home, "style=ink")
    assert page.overflow() <= 0


def test_who_prefers_no_motion_sees_none(page: Browser, home: Path) -> None:
    page.prefer(reduced_motion="reduce")
    seconds = page.run(
        "return getComputedStyle(document.querySelector('.tile img')).transitionDuration"
    )
    assert float(seconds.removesuffix("s")) < 0.001
