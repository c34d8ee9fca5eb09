"""Fixtures: small real pictures, and the program as a real process."""

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Pictures this small gain nothing from threads, and processes side by side lose by them.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import support  # noqa: E402
import torch  # noqa: E402
from browser import browser, shared_browser  # noqa: E402, F401 - fixtures
from clusters import two  # noqa: E402, F401 - a fixture
from PIL import Image  # noqa: E402

from nst_pipeline import cli  # noqa: E402
from nst_pipeline.config.pipeline import Config, load  # noqa: E402
from nst_pipeline.jobs.ledger import Ledger, ledger_path  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"
SHARED_IMAGES = SHARED / "images"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seconds", type=float, default=0.0, help="how long to look for files that break us"
    )
    parser.addoption(
        "--fuzz-from", type=int, default=1_000_000, help="the number of the first of these files"
    )
    parser.addoption(
        "--worker-kills", type=int, default=3, help="how many of a cluster's workers are killed"
    )
    parser.addoption(
        "--worker-jobs", type=int, default=6, help="how many jobs they paint meanwhile"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Return a seeded picture with soft colours, edges and a little texture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [
        np.sin(random.uniform(4, 30) * x + random.uniform(4, 30) * y + random.uniform(0, 6))
        for _ in range(3)
    ]
    pixels = 0.5 + 0.3 * np.stack(waves, 2) + 0.2 * (x > y)[..., None]
    pixels += random.normal(0, 0.02, pixels.shape)
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def wave(width: int = 64, height: int = 48, seed: int = 0) -> torch.Tensor:
    """Return `picture` as a (1, 3, H, W) tensor in [0, 1]."""
    pixels = torch.from_numpy(np.array(picture(width, height, seed)))
    return pixels.permute(2, 0, 1)[None].contiguous().float() / 255


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is in this machine's torch hub cache, and its settings, out of the tests."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch-home")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("NST_PIPELINE_CONFIG", raising=False)


@pytest.fixture
def deep_tmp_path() -> Iterator[Path]:
    """Return a folder for folders nested so deep that pytest could not remove them."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "r")
        root.mkdir()
        yield root
        subprocess.run(["rm", "-r", root], check=True)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the settings of a home with one picture, ``a.png``, for an executor that is a fake."""
    home = support.make_home(tmp_path / "home", watch={"settle_seconds": 0})
    support.draw(home / "inbox/a.png", 1)
    return load(home / "pipeline.yaml")


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    """Return the ledger of ``config``."""
    with Ledger(ledger_path(config.state)) as ledger:
        yield ledger


@pytest.fixture
def anybodys_folder() -> Iterator[Path]:
    """Return a folder that every user can enter, and only its owner write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with two contents, two styles and a pipeline.yaml that is quickly run."""
    for name in ("inbox", "styles"):
        (tmp_path / name).mkdir()
    picture(seed=1).save(tmp_path / "inbox" / "boat.jpg")
    picture(seed=2).save(tmp_path / "inbox" / "hill.png")
    picture(seed=3).save(tmp_path / "styles" / "ink.png")
    picture(seed=4).save(tmp_path / "styles" / "oil.png")
    (tmp_path / "pipeline.yaml").write_text(
        "weights: compact\n"
        "device: cpu\n"
        "recipe: {size: 48, iterations: 3}\n"
        "watch: {settle_seconds: 0}\n"
        "styles:\n"
        "  ink: styles/ink.png\n"
        "  oil: styles/oil.png\n"
    )
    return tmp_path


Program = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    """Return the command line that starts the program with ``arguments``."""
    return [sys.executable, "-m", "nst_pipeline", *map(str, arguments)]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return a function that runs the program in ``tmp_path`` and gives what it printed."""

    def start(*arguments: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return start


@pytest.fixture
def here(tmp_path: Path) -> Program:
    """Return what `program` does, but in this process, which has imported all that it needs.

    For what the program says and does; how it starts, is signalled and ends, a process shows.
    """

    def call(*arguments: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess:
        words = ["nst-pipeline", *map(str, arguments)]
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                with pytest.raises(SystemExit) as stop:
                    cli.main()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read())
        return subprocess.CompletedProcess(words, int(stop.value.code or 0), *said)

    return call
