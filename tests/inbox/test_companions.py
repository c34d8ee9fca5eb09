"""Masks and starting pictures beside a picture."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from support import (
    FakeExecutor,
    Silent,
    Watch,
    configure,
    draw,
    make_home,
    outputs,
    painted,
    program,
    wait_until,
)

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.weights import resolve
from nst_pipeline.digests import bytes_digest
from nst_pipeline.files import signature
from nst_pipeline.inbox import scanner
from nst_pipeline.inbox.companions import role
from nst_pipeline.inbox.scanner import Scanner
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import EncodedResult, Failure
from nst_pipeline.jobs.planning import Plan, ledger_path, make_plan
from nst_pipeline.manifest.model import JobRecord
from nst_pipeline.runner import moves
from nst_pipeline.runner.runner import run_once
from nst_pipeline.workers.engine_thread import EngineThread
from nst_pipeline.workers.local import LocalExecutor
from nst_pipeline.workers.protocol import Task


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = make_home(tmp_path / "home", watch={"settle_seconds": 0})
    draw(home / "inbox/a.png", 1)
    return load(home / "pipeline.yaml")


def plan(config: Config, paths: list[Path] | None = None) -> Plan:
    with Ledger(None) as ledger:
        return make_plan(config, ledger, paths)


def run(config: Config) -> list[JobRecord]:
    listener = Silent()
    run_once(config, FakeExecutor, listener)
    return listener.records


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.mask.png", ("photo", "mask")),
        ("photo.MASK.Sky.JPG", ("photo", "mask.sky")),
        ("my.photo.init.tif", ("my.photo", "init")),
        ("photo.mask.txt", None),
        ("photo.png", None),
        ("mask.png", None),
        (".mask.png", None),
        ("photo-mask.png", None),
        ("photo.mask", None),
        ("photo.mask.a.b.png", None),
    ],
)
def test_a_name_tells_whose_companion_a_file_is(name: str, expected: object) -> None:
    assert role(name) == expected


def test_companions_come_with_their_picture_and_are_none(config: Config) -> None:
    (config.inbox / "sub").mkdir()
    for name in ("a.mask.jpg", "a.Mask.Sky.png", "a.init.png", "b.png", "sub/a.png"):
        draw(config.inbox / name)
    found = {str(one.folder / one.path.name): one for one in scanner.find([config.inbox])}
    assert found.keys() == {"a.png", "b.png", "sub/a.png"}
    kinds = {one.kind: one.path.name for one in found["a.png"].companions}
    assert kinds == {"mask": "a.mask.jpg", "mask.sky": "a.Mask.Sky.png", "init": "a.init.png"}
    assert not found["b.png"].companions and not found["sub/a.png"].companions


def test_a_named_picture_brings_its_companions_and_a_named_companion_nothing(
    config: Config,
) -> None:
    draw(config.inbox / "a.mask.png", 2)
    for paths in ([config.inbox / "a.png"], [*config.inbox.iterdir()], [config.inbox]):
        (job,) = plan(config, paths).todo
        assert job.content.companions.keys() == {"mask"}
    assert not plan(config, [config.inbox / "a.mask.png"]).todo


def test_a_companion_without_its_picture_is_told_and_not_painted(config: Config) -> None:
    draw(config.inbox / "gone.mask.png", 2)
    for paths in (None, [config.inbox / "gone.mask.png"]):
        (broken,) = plan(config, paths).broken
        assert "gone.mask.png: is the mask of a picture gone that is not there" in broken.reason


def test_two_masks_are_one_too_many(config: Config) -> None:
    draw(config.inbox / "a.mask.png", 2)
    draw(config.inbox / "a.mask.jpg", 2)
    (broken,) = plan(config).broken
    assert broken.found.path.name == "a.png" and "a second mask of a.png" in broken.reason


def test_a_companion_that_is_no_picture_fails_its_picture_by_its_own_name(config: Config) -> None:
    (config.inbox / "a.mask.png").write_text("hello")
    draw(config.inbox / "b.png", 3)
    records = {Path(r.content.path).name: r for r in run(config)}
    assert records["b.png"].status == "done"
    assert records["a.png"].error and "a.mask.png: not an image" in records["a.png"].error.reason


def test_companions_decide_the_key_and_only_where_there_are_any(config: Config) -> None:
    def key() -> str:
        (job,) = plan(config).todo
        return job.key

    (alone,) = plan(config).todo
    assert alone.content.digest == alone.content.sha256 and "companions" not in alone.made_by()
    keys = [key()]
    draw(config.inbox / "a.mask.png", 2)
    keys.append(key())
    draw(config.inbox / "a.mask.png", 3)
    keys.append(key())
    (config.inbox / "a.mask.png").rename(config.inbox / "a.init.png")
    keys.append(key())
    (config.inbox / "a.init.png").unlink()
    assert len(set(keys)) == 4 and key() == keys[0]


def test_the_manifest_and_the_metadata_tell_of_companions(config: Config) -> None:
    draw(config.inbox / "a.mask.sky.png", 2)
    sha256 = bytes_digest((config.inbox / "a.mask.sky.png").read_bytes())
    (record,) = run(config)
    assert record.content.companions["mask.sky"].sha256 == sha256
    (job,) = plan(config).todo
    assert job.made_by()["companions"] == {"mask.sky": sha256}


def test_an_output_never_takes_the_place_of_a_companion(config: Config) -> None:
    settings = config.output.model_copy(update={"name": "{content}.mask"})
    draw(config.inbox / "a.mask.png", 2)
    changed = config.model_copy(update={"outbox": config.inbox, "output": settings})
    with pytest.raises(Exception, match=r"a\.mask\.png: would overwrite an input"):
        plan(changed)


def test_a_finished_picture_with_companions_is_left_out_of_no_plan(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nst_pipeline.jobs.ledger.RACY_NS", 0)
    draw(config.inbox / "b.png", 2)
    draw(config.inbox / "a.mask.png", 3)
    for _ in range(2):
        run(config)
        with Ledger(ledger_path(config)) as ledger:
            assert [Path(path).name for path in ledger.settled(plan(config).digest)] == ["b.png"]


def test_a_picture_is_settled_when_its_companions_are(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    look = Scanner([tmp_path], (), (), 0.3)
    wait_until(lambda: look.scan().settled)
    draw(tmp_path / "a.mask.png")
    assert [one.path.name for one in look.scan().waiting] == ["a.png"]
    wait_until(lambda: look.scan().settled)


def test_a_finished_picture_is_looked_at_again_when_a_companion_changes(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    look = Scanner([tmp_path], (), (), 0)
    for change in (draw, draw, Path.unlink):
        (found,) = look.scan().settled
        look.finish(found)
        assert not look.scan().settled
        change(tmp_path / "a.mask.png")
    assert look.scan().settled


# The engine


class Engine:
    """Remembers what it was asked to paint."""

    batch = 8

    def paint(
        self, content: Image.Image, styles: list[Any], watcher: object, **given: Any
    ) -> list[object]:
        self.given, self.styles = given, styles
        raise ValueError("enough")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    engine = Engine()
    monkeypatch.setattr(EngineThread, "_transfer", lambda *_: engine)
    yield engine


def paint(config: Config) -> EncodedResult | Failure:
    local = LocalExecutor(config, resolve("compact"), lambda *_: None)
    (job,) = plan(config).todo
    local.submit(Task(job.content, (job,)))
    (outcome,) = local.poll()
    local.close()
    assert outcome.outcome
    return outcome.outcome


def test_the_engine_gets_masks_as_grey_and_the_start_as_it_is(
    config: Config, engine: Engine
) -> None:
    half = Image.new("L", (64, 48))
    half.paste(255, (32, 0, 64, 48))
    half.save(config.inbox / "a.mask.png")
    half.convert("RGBA").save(config.inbox / "a.mask.sky.png")
    picture().save(config.inbox / "a.init.png")
    paint(config)
    masks = engine.given["masks"]
    assert masks.keys() == {"", "sky"}
    for mask in masks.values():
        assert mask.dtype == np.uint8 and np.array_equal(mask, np.asarray(half))
    assert np.array_equal(engine.given["init"], np.asarray(picture()))


def test_the_engine_is_asked_for_nothing_new_without_companions(
    config: Config, engine: Engine
) -> None:
    paint(config)
    assert not engine.given


def test_a_mask_of_another_shape_is_refused(config: Config, engine: Engine) -> None:
    picture(48, 64).save(config.inbox / "a.mask.png")
    outcome = paint(config)
    assert isinstance(outcome, Failure) and outcome.kind == "input"
    assert "a.mask.png: 48 x 64 pixels, not of the shape of a.png (64 x 48)" in outcome.reason
    picture(128, 96).save(config.inbox / "a.mask.png")
    assert "enough" in str(paint(config))


def test_a_style_of_regions_needs_their_masks(config: Config, engine: Engine) -> None:
    home = config.inbox.parent
    config = configure(
        home, watch={"settle_seconds": 0}, styles={"s": {"regions": {"Sky": "style.png"}}}
    )
    outcome = paint(config)
    assert isinstance(outcome, Failure) and outcome.kind == "input"
    assert "a.png in s: there is no mask of the region sky; put a.mask.sky.png" in outcome.reason
    draw(config.inbox / "a.mask.SKY.png", 2)
    assert "enough" in str(paint(config))
    assert engine.given["masks"].keys() == engine.styles[0].keys() == {"sky"}


# Where they go


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize("policy", ["keep", "move", "delete"])
def test_companions_go_where_their_picture_goes(config: Config, policy: str) -> None:
    draw(config.inbox / "a.mask.png", 2)
    draw(config.inbox / "a.init.png", 3)
    both = {"a.png", "a.mask.png", "a.init.png"}
    changed = config.model_copy(update={"on_success": policy})
    assert [record.status for record in run(changed)] == ["done"]
    assert names(config.inbox) == (both if policy == "keep" else set())
    assert names(config.processed) == (both if policy == "move" else set())


def test_companions_stay_for_another_picture_of_the_same_stem(config: Config) -> None:
    draw(config.inbox / "a.jpg", 4)
    draw(config.inbox / "a.mask.png", 2)
    run(config.model_copy(update={"on_success": "move"}))
    assert names(config.inbox) == set()
    assert names(config.processed) == {"a.png", "a.jpg", "a.mask.png"}
    draw(config.inbox / "a.png", 5)
    draw(config.inbox / "a.jpg", 6)
    draw(config.inbox / "a.mask.png", 7)
    (config.inbox.parent / "orders/a.jpg").write_text("fail")
    run(config.model_copy(update={"on_success": "move"}))
    assert names(config.inbox) == {"a.jpg", "a.mask.png"}


@pytest.mark.parametrize("kind", ["move", "delete"])
@pytest.mark.parametrize("done", [0, 1])
def test_a_kill_between_a_picture_and_its_companions_is_made_good(
    config: Config, monkeypatch: pytest.MonkeyPatch, kind: str, done: int
) -> None:
    draw(config.inbox / "a.mask.png", 2)
    moves = []
    for name in ("a.png", "a.mask.png"):
        path = config.inbox / name
        known = signature(path.stat())
        target = config.processed / name
        moves.append(
            moves.Move(path, target, known, "move")
            if kind == "move"
            else moves.deletion(path, known)
        )
    carry_out, carried = moves._carry_out, []

    def killed(ledger: Ledger, move: moves.Move) -> Path | None:
        if len(carried) == done:
            raise KeyboardInterrupt
        carried.append(move)
        return carry_out(ledger, move)

    with Ledger(ledger_path(config)) as ledger:
        monkeypatch.setattr(moves, "_carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            moves.dispose(ledger, moves[0], moves[1:])
        monkeypatch.undo()
        assert len(moves.pending(ledger)) == 2 - done
        moves.recover(ledger)
        assert not moves.pending(ledger)
    assert names(config.inbox) == set()
    assert names(config.processed) == ({"a.png", "a.mask.png"} if kind == "move" else set())


def test_a_companion_that_changed_stays_and_a_changed_picture_keeps_its_companions(
    config: Config,
) -> None:
    draw(config.inbox / "a.mask.png", 2)
    moves = [
        moves.Move(path, config.processed / path.name, signature(path.stat()), "move")
        for path in (config.inbox / "a.png", config.inbox / "a.mask.png")
    ]
    with Ledger(ledger_path(config)) as ledger:
        os.utime(config.inbox / "a.png", ns=(1, 1))
        assert moves.dispose(ledger, moves[0], moves[1:]) is None
        assert names(config.inbox) == {"a.png", "a.mask.png"} and not moves.pending(ledger)
        path = config.inbox / "a.png"
        moves[0] = moves.Move(path, config.processed / "a.png", signature(path.stat()), "move")
        os.utime(config.inbox / "a.mask.png", ns=(1, 1))
        assert moves.dispose(ledger, moves[0], moves[1:]) == config.processed / "a.png"
        assert names(config.inbox) == {"a.mask.png"} and not moves.pending(ledger)


def test_watch_paints_anew_when_a_mask_comes_changes_or_goes(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png")
        watch.until_idle()
        for number, change in enumerate((2, 3), 2):
            draw(home / "inbox/a.mask.png", change)
            wait_until(lambda number=number: len(painted(home)) == number)
            watch.until_idle()
        watch.stop()
    (home / "inbox/a.mask.png").unlink()
    with Watch(home) as watch:
        wait_until(lambda: len(painted(home)) == 4)
        watch.until_idle()
    assert outputs(home) == ["a-s.png"]


def test_watch_gives_a_picture_up_with_its_companions_and_retry_brings_both_back(
    tmp_path: Path,
) -> None:
    home = make_home(tmp_path / "home")
    configure(home, on_success="move")
    draw(home / "inbox/a.mask.png", 2)
    (home / "orders/a.png").write_text("fail")
    draw(home / "inbox/a.png", 1)
    with Watch(home) as watch:
        wait_until((home / "failed/a.mask.png").exists)
        watch.until_idle()
        report = json.loads((home / "failed/a.mask.png.error.json").read_text())
        assert "goes with a.png" in report["reason"]
        assert "nst-pipeline retry a.png" in report["retry"]
        (home / "orders/a.png").unlink()
        assert program(home, "retry", "a.png").returncode == 0
        watch.until_outputs("a-s.png")
        wait_until((home / "processed/a.mask.png").exists)
        watch.until_idle()
    assert names(home / "processed") == {"a.png", "a.mask.png"}
    assert not names(home / "failed") and not names(home / "inbox")
    assert painted(home) == ["a.png"]
