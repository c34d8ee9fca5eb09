"""Figures for Prometheus."""

import socket
import urllib.request
from pathlib import Path

import pytest
from support import (
    Watch,
    configure,
    draw,
    make_home,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def test_metrics_stand_in_a_file_and_are_served_where_asked(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configure(home, metrics={"textfile": str(home / "m/nst.prom"), "http": port})
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        served = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert watch.stop() == 0
    written = (home / "m/nst.prom").read_text()
    for text in (served, written):
        assert 'nst_pipeline_jobs_total{outcome="done"} 1.0' in text
        assert 'nst_pipeline_stage_seconds_count{stage="paint"} 1.0' in text
