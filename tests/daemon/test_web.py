"""What a daemon serves, to clients that mean it well and ill; only the painting is left out."""

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlsplit

import pytest
from PIL import Image
from support import (
    Watch,
    command,
    configure,
    draw,
    free_port,
    make_home,
    outputs,
    painted,
    program,
    wait_until,
)

from nst_pipeline.config.sections import HttpSettings
from nst_pipeline.daemon.guard import is_ours
from nst_pipeline.daemon.live import PROGRESS_SECONDS, Live

ADDRESS = "127.0.0.1:0"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home", http=ADDRESS)


class Answer:
    """What was answered to a request."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.data = answer.status, answer.headers, answer.read()


def ask(page: str, target: str = "/", method: str = "GET", **headers: str) -> Answer:
    """Ask for a target as it is, whatever there is in it."""
    host = urlsplit(page).netloc
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": host} | headers).items():
            connection.putheader(name, value)
        connection.endheaders()
        return Answer(connection.getresponse())


class Stream:
    """A stream of events; use it as a context manager."""

    def __init__(self, page: str) -> None:
        host, port = urlsplit(page).netloc.split(":")
        self.socket = socket.create_connection((host, int(port)), 60)
        self.socket.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def next(self) -> tuple[str, dict[str, Any]]:
        """Wait for an event; return its kind and its data. The end of the stream is ``over``."""
        kind = ""
        while line := self._file.readline():
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
            elif line.startswith(b"data: ") and kind != "alive":
                return kind, json.loads(line[6:])
        return "over", {}

    def until(self, wanted: str, condition: Any = lambda _: True) -> dict[str, Any]:
        """Wait for an event of a kind whose data fulfil a condition."""
        while (event := self.next())[0] != wanted or not condition(event[1]):
            assert event[0] != "over"
        return event[1]


# What is served


def test_the_page_and_all_it_loads_are_there_and_may_load_nothing_foreign(home: Path) -> None:
    with Watch(home) as watch:
        page = watch.page()
        for target in ("/", "/live.js", "/live.css", "/style.css", "/icon.svg", "/gallery/"):
            answer = ask(page, target)
            assert answer.status == 200 and answer.data
            assert b"http://" not in answer.data.replace(b"http://www.w3.org/", b"")
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"gallery: true" in ask(page, "/gallery/").data
        assert ask(page, "/gallery").headers["location"] == "/gallery/"


def test_status_json_is_what_the_command_prints(home: Path) -> None:
    draw(home / "inbox/a.png", 1)

    def without_room(text: str | bytes) -> dict[str, Any]:
        return json.loads(text) | {"free_bytes": 0}  # others take from it, too

    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        said = without_room(program(home, "status", "--json").stdout)
        wait_until(lambda: without_room(ask(watch.page(), "/status.json").data) == said)


def test_it_is_only_to_be_read(home: Path) -> None:
    with Watch(home) as watch:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert ask(watch.page(), "/", method).status == 405
        head = ask(watch.page(), "/events", "HEAD")
        assert head.status == 200 and head.data == b""


def test_health_is_told_by_what_the_daemon_does(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch:
        page = watch.page()
        watch.until_painting()
        assert ask(page, "/healthz").status == 200
        assert program(home, "pause").returncode == 0
        (home / "orders/a.png").unlink()
        watch.until_state("paused")
        assert ask(page, "/healthz").status == 200
        (home / "inbox").rename(home / "away")
        assert program(home, "resume").returncode == 0
        watch.until_state("waiting")
        answer = ask(page, "/healthz")
        assert answer.status == 503 and b"for the inbox" in answer.data
        (home / "away").rename(home / "inbox")
        wait_until(lambda: ask(page, "/healthz").status == 200)


def test_a_daemon_that_makes_no_progress_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    live, now = Live(), time.monotonic()
    live.state("painting", "a.png in s")
    assert live.ailment() == ""
    monkeypatch.setattr(time, "monotonic", lambda: now + PROGRESS_SECONDS + 10)
    assert "no sign of life for 6" in live.ailment()
    live.beat()
    assert live.ailment() == ""


# Who may ask


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.1.5", "localhost.evil",
     "", "[::1", "127.0.0.1:80:80", "studio.lan", "user@localhost", "localhost/", "local host"],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_known(host: str) -> None:
    assert not is_ours(host, HttpSettings(address=ADDRESS))


def test_who_asks_by_a_name_that_is_not_ours_is_refused_everything(home: Path) -> None:
    with Watch(home) as watch:
        for target in ("/", "/events", "/status.json", "/metrics", "/a-s.png", "/none"):
            assert ask(watch.page(), target, Host="evil.example").status == 421


def test_own_names_and_addresses_are_let_through(home: Path) -> None:
    configure(home, http={"address": ADDRESS, "names": ["studio.lan"]})
    with Watch(home) as watch:
        for host in ("localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:8080", "Studio.lan"):
            assert ask(watch.page(), Host=host).status == 200
        for two in (b"Host: localhost\r\nHost: localhost\r\n", b""):
            host, port = urlsplit(watch.page()).netloc.split(":")
            with socket.create_connection((host, int(port)), 60) as client:
                client.sendall(b"GET / HTTP/1.1\r\n" + two + b"\r\n")
                assert client.recv(12) == b"HTTP/1.1 400"


def test_where_others_may_ask_a_warning_says_so_and_addresses_are_let_through(home: Path) -> None:
    configure(home, http="0.0.0.0:0")
    with Watch(home) as watch:
        page = watch.page().replace("0.0.0.0", "127.0.0.1")
        assert ask(page, Host="192.168.1.5:8080").status == 200
        assert ask(page, Host=socket.gethostname()).status == 200
        assert ask(page, Host="evil.example").status == 421
        text = watch.log.read_text()
    assert "WARNING http: 0.0.0.0:0: whoever reaches this machine sees the pictures" in text


# What of the disk can be read


def test_results_and_nothing_else_of_the_disk_can_be_read(home: Path) -> None:
    (home / "inbox/sub").mkdir()
    draw(home / "inbox/sub/a b.png", 1)
    with Watch(home) as watch:
        page = watch.page()
        watch.until_outputs("sub/a b-s.png")
        watch.until_idle()
        outbox = home / "outbox"
        result = (outbox / "sub/a b-s.png").read_bytes()
        answer = ask(page, "/sub/a%20b-s.png")
        assert answer.data == result and answer.headers["content-type"] == "image/png"
        again = ask(page, "/sub/a%20b-s.png", **{"If-None-Match": answer.headers["etag"]})
        assert (again.status, again.data) == (304, b"")
        # Beside the results: nobody's picture, hidden, of another kind, behind links, and no file.
        shutil.copy(home / "style.png", outbox / "mine.png")
        shutil.copy(home / "style.png", outbox / ".nst-hidden.png")
        (outbox / "notes.txt").write_text("mine")
        (outbox / "link.png").symlink_to(home / "style.png")
        (outbox / "folder").symlink_to(home)
        (outbox / "made.png").mkdir()
        os.mkfifo(outbox / "fifo.png")
        targets = [
            "mine.png", ".nst-hidden.png", "notes.txt", "link.png", "folder/style.png", "made.png",
            "fifo.png", "sub", "sub/", "../style.png", "sub/../../style.png", "%2e%2e/style.png",
            "..%2fstyle.png", "sub%2f..%2f..%2fstyle.png", "%252e%252e/style.png", "/style.png",
            str(home / "style.png"), f"/{home}/style.png", "sub//a%20b-s.png", "./sub/a%20b-s.png",
            "sub/a%20b-s.png%00", "sub/a%20b-s.png/", "gallery/../style.png", "style2.png",
            "gallery/%2e%2e/%2e%2e/style.png", "gallery/..%2f..%2fstyle.png", "gallery//etc/passwd",
            "..\\style.png", "pipeline.yaml", "../pipeline.yaml", "manifests", "manifests/",
            "manifests/%2e%2e/notes.txt", "a" * 5000, "%ff%fe", "thumbnail?job=99999",
            "thumbnail?job=-1", "thumbnail?job=x", "growing?job=99", "thumbnail", "growing",
        ]  # fmt: skip
        assert {target: ask(page, f"/{target}").status for target in targets} == dict.fromkeys(
            targets, 404
        )
        # Once it is a link, a result is none any more.
        (outbox / "sub/a b-s.png").unlink()
        (outbox / "sub/a b-s.png").symlink_to(home / "style.png")
        assert ask(page, "/sub/a%20b-s.png").status == 404


def test_the_gallery_s_files_can_be_read_and_lead_nowhere_else(home: Path) -> None:
    folder = home / "outbox/gallery"
    (folder / "data").mkdir(parents=True)
    (folder / "index.html").write_text("<p>pictures")
    (folder / "data/1.js").write_text("1")
    (folder / "notes.sh").write_text("mine")
    (folder / ".known.json").write_text("{}")
    (folder / "out.html").symlink_to(home / "pipeline.yaml")
    (folder / "out").symlink_to(home)
    with Watch(home) as watch:
        page = watch.page()
        assert (
            ask(page, "/gallery/").data == ask(page, "/gallery/index.html").data == b"<p>pictures"
        )
        assert ask(page, "/gallery/data/1.js").headers["content-type"].startswith("text/javascript")
        for target in ("notes.sh", ".known.json", "out.html", "out/style.png", "data", "data/"):
            assert ask(page, f"/gallery/{target}").status == 404
        (folder / "index.html").unlink()
        assert b"There is no gallery yet" in ask(page, "/gallery/").data


@pytest.mark.parametrize(("name", "said"), [(b"caf\xe9", "caf\\xe9"), (b"a\nb", "a\\nb")])
def test_names_that_are_no_text_are_read_by_their_bytes(home: Path, name: bytes, said: str) -> None:
    draw(os.fsencode(home / "inbox") + b"/" + name + b".png", 1)
    with Watch(home) as watch, Stream(watch.page()) as stream:
        state = stream.until("state", lambda state: state["results"])
        (result,) = state["results"]
        assert result["content"] == f"{said}.png"
        assert result["href"] == "/" + quote_from_bytes(name + b"-s.png")
        (path,) = (home / "outbox").glob("*.png")
        assert ask(watch.page(), result["href"]).data == path.read_bytes()


def test_a_thumbnail_is_the_gallery_s_or_made_of_the_result(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch, Stream(watch.page()) as stream:
        (result,) = stream.until("state", lambda state: state["results"])["results"]
        target = f"/thumbnail?job={result['job']}"
        made = ask(watch.page(), target)
        assert made.headers["content-type"] == "image/webp"
        with Image.open(io.BytesIO(made.data)) as image:
            assert (image.format, image.size) == ("WEBP", (48, 36))
        assert watch.stop() == 0
    with Watch(home) as watch:
        sha256 = json.loads(next((home / "outbox/manifests").glob("*")).read_text())["jobs"][0][
            "output"
        ]["sha256"]
        place = home / f"outbox/gallery/pictures/{sha256[:2]}/{sha256[:16]}-480.webp"
        place.parent.mkdir(parents=True)
        place.write_bytes(b"the gallery's")
        wait_until(lambda: watch.log.read_text().count("live page at") == 2)
        for more in ("", "&large"):
            assert ask(watch.page(), target + more).data == b"the gallery's"


# Streams


def test_a_stream_tells_of_a_job_from_its_beginning_to_its_result(home: Path) -> None:
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch, Stream(watch.page()) as stream:
        stream.until("state", lambda state: state["state"] == "idle")
        draw(home / "inbox/a.png", 1)
        state = stream.until("state", lambda state: state["at_work"] and state["queue"] == 1)
        (job,) = state["at_work"]
        assert (job["content"], job["style"]) == ("a.png", "s")
        assert job["curve"] and job["loss"] == 2.0
        (job,) = stream.until("state", lambda s: s["at_work"] and s["at_work"][0]["picture"])[
            "at_work"
        ]
        answer = ask(watch.page(), job["picture"])
        with Image.open(io.BytesIO(answer.data)) as image:
            assert (image.format, list(image.size)) == ("JPEG", job["size"])
        (home / "orders/a.png").unlink()
        state = stream.until(
            "state", lambda s: s["results"] and s["done"] == 1 and not s["at_work"]
        )
        assert state["results"][0]["href"] == "/a-s.png"
        assert ask(watch.page(), job["picture"]).status == 404


def test_a_loss_that_is_not_finite_is_told_as_none(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow infinite")
    with Watch(home) as watch, Stream(watch.page()) as stream:
        (job,) = stream.until("state", lambda state: state["at_work"])["at_work"]
        assert job["loss"] is None and job["curve"] == []
        (home / "orders/a.png").unlink()
        stream.until("state", lambda state: state["results"] and not state["at_work"])


def test_no_glimpse_is_asked_for_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    live, now = Live(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert not live.wants_glimpse()
    live.viewers = 2
    assert live.wants_glimpse() and not live.wants_glimpse()
    now[0] += 1.9
    assert not live.wants_glimpse()
    now[0] += 0.2
    assert live.wants_glimpse()
    live.viewers = 0
    now[0] += 100
    assert not live.wants_glimpse()


def test_failures_are_told_with_reason_and_command_and_hostile_names_are_only_text(
    home: Path,
) -> None:
    name = "<img src=x onerror=alert(1)>\x1b[2J\u202e'\".png"
    (home / "inbox" / name).write_text("no picture")
    with Watch(home) as watch, Stream(watch.page()) as stream:
        state = stream.until("state", lambda state: state["failures"])
        (failure,) = state["failures"]
    assert "\x1b" not in json.dumps(failure, ensure_ascii=False)
    assert "\u202e" not in json.dumps(failure, ensure_ascii=False)
    assert "\\x1b[2J\\u202e" in failure["source"] and failure["source"] in failure["reason"]
    assert failure["retry"].startswith("nst-pipeline retry '") and "-c" in failure["retry"]
    assert failure["place"] and failure["place"].startswith(str(home / "failed"))


def test_a_stop_ends_the_streams_at_once_and_lets_the_job_at_work_end(home: Path) -> None:
    draw(home / "inbox/a.png", 1)
    (home / "orders/a.png").write_text("slow")
    with Watch(home) as watch, Stream(watch.page()) as stream:
        stream.until("state", lambda state: state["at_work"])
        watch.send(signal.SIGTERM)
        assert stream.until("end")["why"] == "stopping"
        assert stream.next() == ("over", {})
        assert watch.process.poll() is None
        with Stream(watch.page()) as late:
            assert late.until("end")["why"] == "stopping"
        assert ask(watch.page(), "/metrics").status == 200
        (home / "orders/a.png").unlink()
        watch.until_outputs("a-s.png")
        assert watch.process.wait(30) == 0


def test_a_daemon_that_ends_by_itself_says_so(home: Path) -> None:
    with Watch(home) as watch, Stream(watch.page()) as stream:
        stream.until("state")
        shutil.rmtree(home / "state")
        assert stream.until("end")["why"] == "failed"
        assert watch.process.wait(30) == 74


def test_two_hundred_streams_and_half_open_sockets_keep_nobody_out_and_end_no_work(
    home: Path,
) -> None:
    with Watch(home) as watch, ExitStack() as stack:
        page = watch.page()
        streams = [stack.enter_context(Stream(page)) for _ in range(200)]
        assert [stream.next()[0] for stream in streams] == ["state"] * 200
        host, port = urlsplit(page).netloc.split(":")
        for _ in range(100):
            client = stack.enter_context(socket.create_connection((host, int(port)), 60))
            client.sendall(b"GET /")
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")
        for stream in streams:
            stream.until("state", lambda state: state["results"])
        assert ask(page, "/healthz").status == 200
        assert watch.stop() == 0
        assert {stream.until("end")["why"] for stream in streams} <= {"stopping", "stopped"}
    assert "ERROR" not in watch.log.read_text()


# The settings


def test_a_port_that_is_taken_ends_it_before_any_picture_is_touched(home: Path) -> None:
    configure(home, on_success="delete")
    draw(home / "inbox/a.png", 1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = program(home, "watch", "--http", address)
    assert done.returncode == 69
    assert f"http: {address}: Address already in use; stop the program" in done.stderr
    assert (home / "inbox/a.png").exists() and painted(home) == [] and outputs(home) == []


def test_the_command_line_s_address_goes_above_the_file_s(home: Path) -> None:
    configure(home, http=None)
    with Watch(home, "--http", ADDRESS) as watch:
        assert ask(watch.page()).status == 200
        watch.send(signal.SIGHUP)
        wait_until(lambda: "read again" in watch.log.read_text())
        assert ask(watch.page()).status == 200
    done = program(home, "watch", "--http", "nowhere")
    assert done.returncode == 64 and "--http: 'nowhere' is no address" in done.stderr


def test_without_the_extra_it_says_what_to_install(home: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        f"sys.argv = {command('watch')[1:]!r}\n"
        "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 69
    assert "pip install 'nst-pipeline[web]'" in done.stderr and "Traceback" not in done.stderr


def test_settings_that_change_move_the_page_or_switch_it_off(home: Path) -> None:
    with Watch(home) as watch, Stream(watch.page()) as stream:
        first = watch.page()
        stream.until("state")
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            # To where another is: all stays as it was, and is told.
            configure(home, http=f"127.0.0.1:{other.getsockname()[1]}")
            watch.send(signal.SIGHUP)
            wait_until(lambda: "the settings stay as they were: http" in watch.log.read_text())
            assert ask(first).status == 200
        # Another name, and the same address: the streams go on.
        configure(home, http={"address": ADDRESS, "names": ["studio.lan"]})
        watch.send(signal.SIGHUP)
        wait_until(lambda: ask(first, Host="studio.lan").status == 200)
        configure(home, http="localhost:0")
        watch.send(signal.SIGHUP)
        assert stream.until("end")["why"] == "moved"
        wait_until(lambda: watch.page() != first)
        assert ask(watch.page()).status == 200
        wait_until(lambda: is_refused(first))
        configure(home, http=None)
        watch.send(signal.SIGHUP)
        wait_until(lambda: is_refused(watch.page()))
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")
        assert watch.stop() == 0


def test_the_page_moves_to_another_address_of_its_port_and_back_where_it_cannot(
    home: Path,
) -> None:
    port = free_port()
    configure(home, http=f"127.0.0.1:{port}")
    with Watch(home) as watch, Stream(watch.page()) as stream:
        first = watch.page()
        stream.until("state")
        with socket.create_server(("127.0.0.2", port)):
            configure(home, http=f"0.0.0.0:{port}")  # which is another's in part
            watch.send(signal.SIGHUP)
            wait_until(lambda: "the settings stay as they were: http" in watch.log.read_text())
            assert stream.until("end")["why"] == "moved"
            assert ask(first).status == 200
        watch.send(signal.SIGHUP)
        wait_until(lambda: watch.page() == f"http://0.0.0.0:{port}/")
        wait_until(lambda: "the settings were read again" in watch.log.read_text())
        assert ask(first).status == 200
        assert ask(f"http://127.0.0.2:{port}/").status == 200
        assert watch.stop() == 0


def is_refused(page: str) -> bool:
    try:
        ask(page)
    except ConnectionError:
        return True
    return False


def test_the_page_and_figures_need_no_escape_of_the_log(home: Path) -> None:
    """A name in an address is answered, and never logged."""
    with Watch(home) as watch:
        ask(watch.page(), "/" + quote("\x1b[2J\n"))
        assert ask(watch.page()).status == 200
        assert "\x1b" not in watch.log.read_text()
