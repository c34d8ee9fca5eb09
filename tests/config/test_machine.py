"""What torch said of the processor is remembered, as long as it holds."""

import os
import time
from pathlib import Path

import pytest

from nst_pipeline.config import machine
from nst_pipeline.config.machine import TRUSTED_SECONDS, Memo

pytestmark = pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine._conditions.cache_clear()
    return tmp_path / "nst-pipeline"


def test_an_answer_is_remembered_for_its_own_question() -> None:
    assert Memo("pace", "cpu").recall() is None
    Memo("pace", "cpu").remember("0.25", "ä")
    assert Memo("pace", "cpu").recall() == ["0.25", "ä"]
    assert Memo("pace", "auto").recall() is None and Memo("device", "cpu").recall() is None


def test_an_answer_holds_for_a_day(cache: Path) -> None:
    Memo("pace").remember("1")
    (path,) = cache.iterdir()
    for age, answer in ((60, ["1"]), (TRUSTED_SECONDS + 60, None), (-3600, None)):
        then = time.time() - age
        os.utime(path, (then, then))
        assert Memo("pace").recall() == answer


@pytest.mark.parametrize("text", ["", "{", "7", '["a", 7]', "\x00"])
def test_a_damaged_answer_is_none(text: str, cache: Path) -> None:
    Memo("pace").remember("1")
    (path,) = cache.iterdir()
    path.write_text(text)
    assert Memo("pace").recall() is None
    Memo("pace").remember("2")
    assert Memo("pace").recall() == ["2"]


def test_other_threads_another_torch_or_a_device_make_another_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memo("pace").remember("1")

    def is_known() -> bool:
        machine._conditions.cache_clear()
        return Memo("pace").recall() is not None

    assert is_known()
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        assert not is_known()
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {77})
        assert not is_known()
    with monkeypatch.context() as patch:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").touch()
        (tmp_path / "torch" / "version.py").write_text("__version__ = '99'")
        patch.setattr("importlib.util.find_spec", lambda _: FoundTorch(tmp_path))
        assert not is_known()
    with monkeypatch.context() as patch:
        patch.setattr(machine, "DEVICES", ("null",))  # as if it were a GPU that was put in
        assert not is_known()
    assert is_known()


class FoundTorch:
    def __init__(self, folder: Path) -> None:
        self.origin = str(folder / "torch" / "__init__.py")


def test_without_a_place_for_it_nothing_is_remembered_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Memo("pace").remember("1")
    assert Memo("pace").recall() is None
