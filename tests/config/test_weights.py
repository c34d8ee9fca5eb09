"""Which weights are used, and their download."""

import hashlib
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Program

from nst_pipeline.config import weights
from nst_pipeline.engine import vgg
from nst_pipeline.errors import CannotCreateError, DiskFullError, UnavailableError

FILE = b"as good as the weights " * 5000


@dataclass
class Server:
    """An HTTP server on loopback with a fault to choose."""

    fault: str = ""
    requests: list[str] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            if state.fault == "404":
                self.send_error(404)
                return
            if state.fault == "silent":
                state.released.wait(30)
                return
            data = FILE[::-1] if state.fault == "wrong" else FILE
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            half = state.fault in ("truncated", "stalled")
            self.wfile.write(data[: len(data) // 2] if half else data)
            if state.fault == "stalled":
                self.wfile.flush()
                state.released.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{httpd.server_port}/{weights.IMAGENET_FILE}"
        yield state
        state.released.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _digest_of_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(FILE).hexdigest()[:8]
    monkeypatch.setattr(vgg, "IMAGENET_DIGEST", digest)
    monkeypatch.setattr(weights, "IMAGENET_DIGEST", digest)
    monkeypatch.setattr(vgg, "TIMEOUT_SECONDS", 0.5)


def test_a_good_download_is_kept_and_not_made_twice(server: Server) -> None:
    path = vgg.fetch_imagenet(server.url)
    assert path == weights.imagenet_path() and path.read_bytes() == FILE
    vgg.fetch_imagenet(server.url)
    assert len(server.requests) == 1
    assert weights.resolve("auto").id == "imagenet"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("truncated", "ends after 57,500 of 115,000 bytes"),
        ("wrong", r"another file than expected \(its SHA-256 starts with .*\)"),
        ("404", "Not Found"),
        ("stalled", "timed out"),
        ("silent", "timed out"),
    ],
)
def test_a_download_that_goes_wrong_is_told_and_nothing_is_kept(
    fault: str, said: str, server: Server
) -> None:
    server.fault = fault
    with pytest.raises(UnavailableError, match=f"{said}; nothing was kept") as caught:
        vgg.fetch_imagenet(server.url)
    assert str(caught.value).startswith(f"weights: {server.url}: ")
    assert "--url" not in str(caught.value)
    assert list(weights.imagenet_path().parent.iterdir()) == []
    assert weights.resolve("auto").id == "compact"


@pytest.mark.parametrize(
    ("url", "said"), [("http://127.0.0.1:1/none.pth", "refused"), ("none.pth", "unknown url type")]
)
def test_an_address_that_does_not_answer_is_told(url: str, said: str) -> None:
    with pytest.raises(UnavailableError, match=said):
        vgg.fetch_imagenet(url)


def test_the_progress_of_a_download_is_told(server: Server) -> None:
    told: list[tuple[int, int | None]] = []
    vgg.fetch_imagenet(server.url, lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (len(FILE), len(FILE))


def test_a_cache_that_cannot_be_made_is_told_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(CannotCreateError) as caught:
        vgg.fetch_imagenet(server.url)
    assert str(caught.value) == (
        f"{tmp_path}/file/hub/checkpoints: no files can be created here: File exists; "
        "check its permissions and free space, or set TORCH_HOME to another folder"
    )
    assert not server.requests


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Return a function that keeps the cache on a file system with options, if it can be made."""
    home = tmp_path / "disk"
    home.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(home))

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(home)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
        return home

    yield mount
    subprocess.run(["umount", home], capture_output=True)


def test_a_cache_on_a_read_only_disk_is_told(
    server: Server, mounted: Callable[[str], Path]
) -> None:
    home = mounted("ro")
    with pytest.raises(CannotCreateError, match=f"{home}/hub.*Read-only.*TORCH_HOME"):
        vgg.fetch_imagenet(server.url)


def test_a_full_disk_is_told_and_nothing_is_kept(
    server: Server, mounted: Callable[[str], Path]
) -> None:
    home = mounted("size=64k")
    with pytest.raises(DiskFullError, match=f"{home}/hub/.*No space left"):
        vgg.fetch_imagenet(server.url)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_weights_fetch_ends_with_exit_73_where_the_cache_cannot_be_made(
    server: Server, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    done = program("weights", "fetch", "--url", server.url, TORCH_HOME=str(tmp_path / "file"))
    assert done.returncode == 73
    assert done.stderr.startswith(f"{tmp_path}/file/hub/checkpoints: no files can be created here")
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_file_in_the_cache_is_replaced_by_the_download(server: Server) -> None:
    weights.imagenet_path().parent.mkdir(parents=True)
    weights.imagenet_path().write_bytes(b"damaged")
    with pytest.raises(UnavailableError, match="damaged"):
        weights.resolve("imagenet")
    assert vgg.fetch_imagenet(server.url).read_bytes() == FILE


def test_auto_takes_the_compact_network_and_says_how_to_get_the_better_one() -> None:
    found = weights.resolve("auto")
    assert found.id == "compact" and found.path == weights.COMPACT_PATH
    assert "nst-pipeline weights fetch" in found.note
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert "weights fetch" not in weights.resolve("compact").note


def test_imagenet_without_its_file_is_an_error_that_tells_the_cure() -> None:
    with pytest.raises(UnavailableError, match="nst-pipeline weights fetch"):
        weights.resolve("imagenet")


def test_the_address_is_that_of_torchvision() -> None:
    assert vgg.imagenet_url().endswith(f"/{weights.IMAGENET_FILE}")
    assert weights.IMAGENET_FILE == "vgg19-dcbb9e9d.pth"


def test_weights_fetch_ends_with_exit_69_when_the_file_is_not_the_one_expected(
    server: Server, program: Program
) -> None:
    done = program("weights", "fetch", "--url", server.url)
    assert done.returncode == 69
    assert "another file than expected" in done.stderr and "Traceback" not in done.stderr
    assert "`nst-pipeline weights fetch --url URL` loads it from a mirror" in done.stderr
    assert "not there" in program("weights").stdout


def test_run_with_imagenet_weights_tries_the_download_and_tells_when_it_fails(
    project: Path, program: Program
) -> None:
    done = program("run", "--weights", "imagenet", HTTPS_PROXY="http://127.0.0.1:1")
    assert done.returncode == 69
    assert "refused" in done.stderr and "--url" in done.stderr
