"""A real browser for the tests: Chromium without a window, its console, and all that it asks for.

`scripts/test` installs Chromium where it may; without it, the tests that ask for one are skipped.
"""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from support import wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

LACK = "needs Chromium, chromedriver and selenium: `apt-get install chromium chromium-driver`"
SERIOUS = ("serious", "critical")
SCREEN = (1280, 900)


class Browser:
    """A browser with one tab.

    Attributes:
        driver: selenium's.
    """

    def __init__(self, driver: "Chrome") -> None:
        self.driver = driver
        self._heard: list[str] = []
        self._asked: list[str] = []

    def open(self, address: str | Path) -> None:
        """Load a page, given its address or a file's path, and wait until all of it is there."""
        self.driver.get(address.absolute().as_uri() if isinstance(address, Path) else address)

    def run(self, script: str, *arguments: object) -> Any:
        """Return what the body of a function in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, *arguments: object) -> Any:
        """Wait until an expression in the page is true; return its value."""
        found: list[Any] = []
        wait_until(lambda: found.append(self.run(f"return ({script})", *arguments)) or found[-1])
        return found[-1]

    def all(self, selector: str) -> list[Any]:
        """Return the elements of a CSS selector, those that are hidden too."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """Return the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """Return the text of the first element of a CSS selector, as it is seen."""
        return str(self.one(selector).text)

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def press(self, *keys: str) -> None:
        """Press keys, ``"a"`` or those of selenium's ``Keys``, at whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def resize(self, width: int, height: int = SCREEN[1], scale: float = 1.0) -> None:
        """Show pages in so many CSS pixels, each ``scale`` pixels wide."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip

    def prefer(self, **features: str) -> None:
        """Prefer what CSS asks by ``prefers-...``: ``color_scheme="dark"``, and nothing else."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self._devtools("Emulation.setEmulatedMedia", features=wanted)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what is seen, or the ``whole`` page, as a PNG."""
        import base64

        taken = self._devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self.run("let d = document.documentElement; return d.scrollWidth - innerWidth"))

    def errors(self) -> list[str]:
        """Return what the console heard of errors and warnings since `reset`."""
        self._heard += [
            f"{line['level']}: {line['message']}"
            for line in self.driver.get_log("browser")
            if line["level"] in ("SEVERE", "WARNING") and "/favicon.ico" not in line["message"]
        ]
        return self._heard

    def requests(self) -> list[str]:
        """Return the addresses of all that was asked for since `reset`, answered or not."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._asked.append(message["params"]["request"]["url"])
        return self._asked

    def foreign(self, *hosts: str) -> list[str]:
        """Return what was asked of others than files, the page's host and ``hosts``."""
        own = {urlsplit(self.driver.current_url).netloc, "", *hosts}
        return [url for url in self.requests() if urlsplit(url).netloc not in own]

    def accessibility_problems(self) -> list[str]:
        """Return what axe finds serious or critical in the page as it is now."""
        # Through the debugger, for a page's own policy may forbid any script but its own.
        self._devtools("Runtime.evaluate", expression=axe_script())
        options = {"resultTypes": ["violations"]}
        found = self.driver.execute_async_script(
            "const end = arguments[1]; axe.run(document, arguments[0]).then(end, e => end(`${e}`))",
            options,
        )
        assert isinstance(found, dict), found
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:5]]}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]

    def reset(self) -> None:
        """Forget what was asked for and heard, what pages stored, and what was preferred."""
        self.driver.get("about:blank")
        self._devtools("Storage.clearDataForOrigin", origin="*", storageTypes="all")
        self.prefer()
        self.resize(*SCREEN)
        self.errors()
        self.requests()
        self._heard, self._asked = [], []

    def _devtools(self, command: str, **arguments: object) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)


def axe_script() -> str:
    """Return axe-core, as the wheel of axe-playwright-python holds it."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("needs axe-playwright-python, of which it takes axe.min.js alone")
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def is_there() -> bool:
    """Tell whether there is a browser to test with."""
    programs = all(map(shutil.which, ("chromium", "chromedriver")))
    return programs and importlib.util.find_spec("selenium") is not None


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Browser]:
    """Start one browser for all tests."""
    if not is_there():
        pytest.skip(LACK)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        "--hide-scrollbars", "--force-color-profile=srgb",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"), log_output=subprocess.DEVNULL)
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture
def browser(shared_browser: Browser) -> Browser:
    """Return the browser as if it had only just been started."""
    shared_browser.reset()
    return shared_browser
