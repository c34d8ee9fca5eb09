"""What a plan holds, and what it costs."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from PIL import Image
from support import (
    configure,
    draw,
    home_of,
    observed_run,
    plan_of,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import ConfigError, UnreadableError
from nst_pipeline.inbox.patience import Patience
from nst_pipeline.inbox.scanner import find
from nst_pipeline.jobs import file_table, looking
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import WATCH, make_plan, make_scanner


def test_known_files_are_not_read_again(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    (config.inbox / "bad.png").write_text("hello")
    observed_run(config)
    reads: list[str] = []
    monkeypatch.setattr(looking, "read", lambda path, *_: reads.append(path.name))
    plan = plan_of(config, ledger)
    assert reads == [] and len(plan.done) == 1 and "known format" in plan.broken[0].reason


# Refusals


def pixels(config: Config, path: Path, allowed: int) -> Config:
    """Return the settings with so many pixels allowed, and with a style."""
    styles = {"s": str(path)}
    limits = {"min_free_bytes": 0, "max_pixels": allowed}
    return configure(home_of(config), styles=styles, limits=limits, watch={"settle_seconds": 0})


@pytest.mark.parametrize("bad", ["content", "companion"])
def test_a_refusal_is_forgotten_with_the_limit_that_it_was_for(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    name = "b.png" if bad == "content" else "a.mask.png"
    Image.new("RGB", (65, 49)).save(config.inbox / name)
    style = home_of(config) / "style.png"
    (broken,) = plan_of(pixels(config, style, 3072), ledger).broken
    assert "65 x 49 pixels; limits.max_pixels allows 3,072" in broken.reason
    assert not plan_of(pixels(config, style, 65 * 49), ledger).broken


def test_a_refused_style_is_looked_at_again_under_another_limit(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    large = home_of(config) / "large.png"
    Image.new("RGB", (65, 49)).save(large)
    with pytest.raises(ConfigError, match=r"styles.s: .*65 x 49 pixels"):
        plan_of(pixels(config, large, 3072), ledger)
    assert len(plan_of(pixels(config, large, 65 * 49), ledger).todo) == 1


def test_a_larger_file_is_taken_once_it_may_be_so_large(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    Image.new("RGB", (640, 480)).save(config.inbox / "a.bmp")
    size = (config.inbox / "a.bmp").stat().st_size
    for allowed, broken in ((size - 1, 1), (size, 0)):
        limits = config.limits.model_copy(update={"max_bytes": allowed})
        plan = plan_of(config.model_copy(update={"limits": limits}), ledger)
        assert len(plan.broken) == broken


@pytest.mark.parametrize("change", ["codec", "program"])
def test_a_refusal_is_forgotten_when_what_decodes_changes(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 48)).save(config.inbox / "b.heic")

    def is_missing(name: str) -> str:
        if name == "pillow-heif":
            raise PackageNotFoundError
        return version(name)

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        if change == "codec":
            without.setattr(looking, "version", is_missing)
        else:
            without.setattr(looking, "_program", lambda: "an older one's")
        (broken,) = plan_of(config, ledger).broken
        assert "nst-pipeline[heif]" in broken.reason
    assert not plan_of(config, ledger).broken


def test_sources_that_were_accepted_are_not_read_again_under_other_limits(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    observed_run(config)
    monkeypatch.setattr(looking, "read", lambda path, *_: pytest.fail(f"{path} is read"))
    assert len(plan_of(pixels(config, home_of(config) / "style.png", 10**7), ledger).done) == 1


# What is nobody's fault


def test_a_file_that_an_error_comes_of_is_looked_at_max_attempts_times(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(config.inbox / "b.png", 2)
    identify = looking.identify

    def fails(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
        if name.endswith("b.png"):
            raise MemoryError
        return identify(data, name, max_pixels)

    monkeypatch.setattr(looking, "identify", fails)
    patience, scanner = Patience(0), make_scanner(config, None, 0)
    for attempt in (1, 2, 3):
        plan = make_plan(config, ledger, scanner, WATCH, patience=patience)
        assert [job.content.path.name for job in plan.todo] == ["a.png"]
        assert [one.is_final for one in plan.broken] == ([] if attempt < 3 else [True])
    assert "b.png: MemoryError" in plan.broken[0].reason
    # Without patience, it is told at once.
    assert len(plan_of(config, ledger).broken) == 1


def test_a_file_that_is_refused_is_read_anew_before_it_is_given_up(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "RACY_NS", 0)
    (config.inbox / "a.png").write_text("hello")
    patience, scanner = Patience(0), make_scanner(config, None, 0)
    for _ in range(2):
        plan = make_plan(config, ledger, scanner, WATCH, patience=patience)
        assert "known format" in plan.broken[0].reason
    # The bytes were others for a moment, and the disk says of no change.
    monkeypatch.setattr(looking, "identify", lambda *_: (48, 64))
    assert not make_plan(config, ledger, scanner, WATCH, patience=patience).broken


def test_a_style_that_cannot_be_read_is_no_mistake_of_the_settings(
    config: Config, ledger: Ledger
) -> None:
    config.styles["s"].image.unlink()
    with pytest.raises(UnreadableError, match=r"styles\.s: .*No such file"):
        plan_of(config, ledger)


def test_what_errors_came_of_and_what_was_looked_at_outlive_the_process(
    config: Config, tmp_path: Path
) -> None:
    memory, (found,) = tmp_path / "looks.json", find([config.inbox])
    first = Patience(60, memory)
    first.put_off(found, "no luck", "error")
    first.begin_look(found)
    second = Patience(60, memory)  # the process ended
    assert second.tries(found, "error") == 2 and not second.take_up(found)
    assert Patience(60, memory).tries(found, "error") == 2
    second.begin_look(found)
    second.end_look()
    assert Patience(60, memory).tries(found, "error") == 2
    memory.write_text("[")
    assert Patience(60, memory).tries(found, "error") == 0
