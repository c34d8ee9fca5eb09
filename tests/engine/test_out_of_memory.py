"""What happens where memory does not suffice, and where a device breaks."""

from pathlib import Path

import pytest
import torch
from conftest import picture

from nst_pipeline.engine import Recipe, StyleTransfer
from nst_pipeline.engine import batch as batch_module
from nst_pipeline.engine.devices import broken_device_told
from nst_pipeline.errors import DeviceLostError

RECIPE = Recipe(
    size=32, iterations=2, pooling="average", history_size=8, style_layers={"relu1_1": 1.0}
)


def scarce(monkeypatch: pytest.MonkeyPatch, batch: int, history_size: int) -> list[tuple[int, int]]:
    """Have the device run out of memory above these sizes; return what was tried."""
    real, tried = batch_module.minimise, []

    def minimise(objective, start, iterations, history, **options):  # type: ignore[no-untyped-def]
        tried.append((len(start), history))
        if len(start) > batch or history > history_size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(objective, start, iterations, history, **options)

    monkeypatch.setattr(batch_module, "minimise", minimise)
    return tried


def test_less_memory_means_a_smaller_batch_then_a_shorter_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = scarce(monkeypatch, batch=1, history_size=2)
    transfer = StyleTransfer(RECIPE, device="cpu", weights="compact", batch=4)
    results = transfer.run(picture(), [picture(seed=seed) for seed in range(4)])
    assert [result.history_size for result in results] == [2] * 4
    assert tried == [(4, 8), (2, 8), (1, 8), (1, 4), *[(1, 2)] * 4]


def test_no_memory_at_all_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = scarce(monkeypatch, batch=0, history_size=0)
    transfer = StyleTransfer(RECIPE, device="cpu", weights="compact")
    with pytest.raises(torch.OutOfMemoryError):
        transfer.run(picture(), [picture(seed=1)])
    assert tried[-1] == (1, 1)


def test_a_job_that_ran_out_of_memory_may_be_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import Silent

    from nst_pipeline.config.pipeline import load
    from nst_pipeline.jobs.ledger import Ledger
    from nst_pipeline.jobs.planning import ledger_path
    from nst_pipeline.runner.runner import run_once
    from nst_pipeline.workers.local import LocalExecutor

    scarce(monkeypatch, batch=0, history_size=0)
    config = load(project / "pipeline.yaml")
    listener = Silent()
    run_once(config, LocalExecutor, listener)
    assert {record.status for record in listener.records} == {"failed"}
    with Ledger(ledger_path(config)) as ledger:
        assert {(e.state, e.attempts) for e in ledger.entries()} == {("queued", 1)}


def test_a_check_can_end_a_transfer_at_any_step() -> None:
    class Enough(Exception):
        pass

    steps: list[int] = []

    def check() -> None:
        steps.append(1)
        if len(steps) == 2:
            raise Enough

    transfer = StyleTransfer(RECIPE, device="cpu", weights="compact")
    with pytest.raises(Enough):
        transfer.run(picture(), [picture(seed=1)], check=check)
    assert transfer.run(picture(), [picture(seed=1)])  # and it can go on afterwards


def test_a_broken_device_is_told_from_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with (
        pytest.raises(DeviceLostError, match="illegal memory access"),
        broken_device_told(device),
    ):
        broken()
    with pytest.raises(torch.OutOfMemoryError), broken_device_told(device):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_whole_daemon_paints_with_the_network(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys

    from PIL import Image
    from support import draw, make_home, manifests, wait_until

    home = make_home(tmp_path / "home", on_success="move", recipe={"size": 64, "iterations": 3})
    draw(home / "inbox/a.png", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "nst_pipeline", "watch"], cwd=home, stderr=subprocess.DEVNULL
    )
    try:
        wait_until((home / "processed/a.png").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    with Image.open(home / "outbox/a-s.png") as output:
        assert output.size == (64, 48)
    (manifest,) = manifests(home)
    job = manifest["jobs"][0]
    assert job["losses"]["end"]["total"] < job["losses"]["start"]["total"]
    assert manifest["run"]["status"] == "finished" and manifest["device"]["name"].startswith("cpu")
