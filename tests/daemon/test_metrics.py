"""Figures for Prometheus."""

import resource
import socket
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import (
    Watch,
    configure,
    draw,
    make_home,
    program,
)

from nst_pipeline.config.sections import MetricsSettings
from nst_pipeline.daemon.metrics import Metrics
from nst_pipeline.workers.protocol import WorkerState


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_metrics_stand_in_a_file_and_are_served_where_asked(home: Path) -> None:
    configure(home, metrics={"textfile": str(home / "m/nst.prom")}, http="127.0.0.1:0")
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        served = urllib.request.urlopen(f"{watch.page()}metrics").read().decode()
        assert watch.stop() == 0
    written = (home / "m/nst.prom").read_text()
    for text in (served, written):
        assert 'nst_pipeline_jobs_total{outcome="done"} 1.0' in text
        assert 'nst_pipeline_stage_seconds_count{stage="paint"} 1.0' in text


def test_clients_that_never_finish_take_no_descriptor_from_the_work(home: Path) -> None:
    configure(home, http="127.0.0.1:0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            watch = stack.enter_context(Watch(home))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        watch.until_idle()
        address = urlsplit(watch.page())
        for _ in range(200):
            client = socket.create_connection((address.hostname, address.port), 60)
            stack.enter_context(client).sendall(b"GET /")
        draw(home / "inbox/a.png", 1)
        watch.until_outputs("a-s.png")
        served = urllib.request.urlopen(f"{watch.page()}metrics", timeout=60).read()
        assert b"nst_pipeline_up" in served
        assert watch.stop() == 0
    assert "ERROR" not in watch.log.read_text()


def test_the_queue_is_what_the_ledger_holds(home: Path) -> None:
    configure(home, metrics={"textfile": str(home / "nst.prom")})
    for name in ("a.png", "b.png", "c.png"):
        draw(home / "inbox" / name, ord(name[0]))
    (home / "orders/a.png").write_text("slow")
    (home / "orders/b.png").write_text("pass")
    configure(home, metrics={"textfile": str(home / "nst.prom")}, watch={"retry_seconds": 3600})
    with Watch(home) as watch:
        watch.until_painting()
        assert program(home, "cancel", "c.png").returncode == 0
        (home / "orders/a.png").unlink()
        watch.until_outputs("a-s.png")
        watch.until_idle()
        assert watch.status()["queue"] == 1  # b.png, which waits for its second attempt
        assert watch.stop() == 0
    assert "nst_pipeline_queue_jobs 1.0" in (home / "nst.prom").read_text()


def test_each_worker_has_figures_as_long_as_it_is_there() -> None:
    metrics = Metrics(MetricsSettings())
    crew = [WorkerState(f"w{n}", "n0", "cuda:0", 5, None, 3, 9, n) for n in range(2)]
    metrics.workers(crew)
    text = metrics.text().decode()
    labels = '{device="cuda:0",node="n0",worker="w1"}'
    assert f"nst_pipeline_worker_jobs_done{labels} 1.0" in text
    assert f"nst_pipeline_worker_iteration{labels} 3.0" in text
    assert f"nst_pipeline_worker_at_work{labels} 0.0" in text
    assert f"nst_pipeline_worker_memory_bytes{labels} 5.0" in text
    metrics.workers(crew[:1])
    assert 'worker="w1"' not in metrics.text().decode()
