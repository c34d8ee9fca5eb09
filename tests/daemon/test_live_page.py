"""The live page in a real browser."""

import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import Browser
from support import Watch, configure, draw, make_home, program, wait_until

HOSTILE = "<img src=x onerror=document.title='taken'>\u202e'\".png"

TWO_FRAMES = """
const end = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(end));
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home", http="127.0.0.1:0")


def has_text(browser: Browser, text: str) -> None:
    """Wait until the page shows a text."""
    browser.wait_for("document.body.innerText.includes(arguments[0])", text)


def test_a_picture_is_seen_from_the_drop_to_the_result(home: Path, browser: Browser) -> None:
    recipe = {"size": 96, "iterations": 400, "scales": 1}
    configure(home, http="127.0.0.1:0", recipe=recipe)
    with Watch(home, paints=True) as watch:
        browser.open(watch.page())
        has_text(browser, "Waiting for pictures")
        has_text(browser, "Put pictures into the inbox")
        assert browser.accessibility_problems() == []
        draw(home / "inbox/boat.png", 1)
        has_text(browser, "Painting")
        first = browser.wait_for("document.querySelector('.frame.hung img')?.src")
        assert "/growing?" in first and "boat.png" in browser.text(".caption h2")
        assert "in s" in browser.text(".caption h2")
        assert "of 400 steps" in browser.text(".facts-line")
        assert browser.run("return document.querySelector('progress').value") > 0
        browser.wait_for("document.querySelector('.losses path').getAttribute('d')")
        assert "%" in browser.driver.title
        browser.wait_for(
            "document.querySelector('.frame img').src.replace(arguments[0], '').includes('growi')",
            first,
        )
        assert browser.accessibility_problems() == []
        browser.wait_for("document.querySelector('#strip img')?.naturalWidth")
        has_text(browser, "Painted just now")
        assert browser.one("#strip a").get_attribute("href") == f"{watch.page()}boat-s.png"
        assert browser.errors() == [] and browser.foreign() == []
        browser.open(f"{watch.page()}boat-s.png")
        assert browser.run("return document.images[0].naturalWidth") == 96
        browser.open(f"{watch.page()}gallery/")
        assert "There is no gallery yet" in browser.text("h1")
        assert browser.accessibility_problems() == [] and browser.foreign() == []


def test_a_daemon_that_is_killed_is_told_in_plain_words_and_found_again(
    home: Path, browser: Browser
) -> None:
    with Watch(home) as watch:
        page = watch.page()
        browser.open(page)
        has_text(browser, "Waiting for pictures")
        watch.send(signal.SIGKILL)
        has_text(browser, "The daemon has not answered since")
        assert browser.text("#state-text") == "No connection"
        assert browser.one("#notice").get_attribute("role") == "alert"
        assert browser.accessibility_problems() == []
    with Watch(home, "--http", urlsplit(page).netloc):
        has_text(browser, "Waiting for pictures")
        browser.wait_for("document.getElementById('notice').hidden")


def test_a_clean_stop_says_so(home: Path, browser: Browser) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        browser.open(watch.page())
        has_text(browser, "Painting")
        watch.send(signal.SIGTERM)
        has_text(browser, "The daemon was told to stop at")
        (home / "orders/a.png").unlink()
        assert watch.process.wait(30) == 0
        has_text(browser, "and has ended. What was not done is still in the queue")
        assert browser.text("#state-text") == "Stopped"


def test_a_result_is_shown_alone_without_an_error(home: Path, browser: Browser) -> None:
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        browser.open(watch.page() + "a-s.png")
        browser.wait_for("document.images[0].naturalWidth === 48")
        assert browser.errors() == []


def test_a_loss_that_is_not_finite_stops_no_page(home: Path, browser: Browser) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow infinite")
    with Watch(home) as watch:
        browser.open(watch.page())
        has_text(browser, "no finite loss")
        (home / "orders/a.png").unlink()
        has_text(browser, "Painted just now")
        assert browser.errors() == []


def test_pauses_failures_and_hostile_names_in_any_light_and_width(
    home: Path, browser: Browser
) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "inbox" / HOSTILE).write_text("no picture")
    with Watch(home) as watch:
        browser.open(watch.page())
        browser.wait_for("document.querySelectorAll('#failures li').length === 1")
        browser.wait_for("document.querySelectorAll('#strip li').length === 1")
        assert program(home, "pause").returncode == 0
        has_text(browser, "Paused: nothing is begun.")
        reason = browser.text("#failures .reason")
        assert "<img src=x" in reason and "\\u202e" in reason and "\u202e" not in reason
        assert browser.text("#failures code").startswith("nst-pipeline retry ")
        for width in (320, 768, 3840):
            browser.resize(width)
            assert browser.overflow() <= 0
            for light in ("light", "dark"):
                browser.prefer(color_scheme=light, reduced_motion="reduce")
                assert browser.run("return document.getAnimations().length") == 0
                browser.driver.execute_async_script(TWO_FRAMES)  # until it is drawn so
                assert browser.accessibility_problems() == []
        dark = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert max(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 60
        assert "taken" not in browser.driver.title
        assert browser.errors() == [] and browser.foreign() == []
        # Nobody looks at a page in the background.
        browser.run(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        assert browser.run("return source === null")
        browser.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        wait_until(lambda: browser.run("return source !== null && source.readyState === 1"))
