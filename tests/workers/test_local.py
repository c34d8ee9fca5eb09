"""The local executor: what is painted in the engine's thread, and what the caller sees of it."""

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from support import plan_of

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.config.recipe import Bounds
from nst_pipeline.config.settings import StyleSettings
from nst_pipeline.config.weights import resolve
from nst_pipeline.engine import Callbacks, Result, StyleTransfer, batch, transfer
from nst_pipeline.engine.batch import Batch
from nst_pipeline.engine.scene import Scene, make_scene
from nst_pipeline.errors import Abandoned, NotReadyError, UnavailableError
from nst_pipeline.images.decoding import Decoded, decode
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Outcome
from nst_pipeline.runner.observer import Observer
from nst_pipeline.workers import callbacks
from nst_pipeline.workers.local import LocalExecutor
from nst_pipeline.workers.memory import Budget, longest_side
from nst_pipeline.workers.protocol import Glimpse, Task
from nst_pipeline.workers.supply import Disk


@pytest.fixture
def config(project: Path) -> Config:
    return load(project / "pipeline.yaml")


def tasks(config: Config) -> list[Task]:
    """Return a task for each of the two contents, with both styles."""
    with Ledger(None) as ledger:
        todo = plan_of(config, ledger).todo
    return [task_of(jobs) for jobs in (todo[:2], todo[2:])]


def task_of(jobs: list[Job]) -> Task:
    return Task(jobs[0].content, tuple(jobs), jobs[0].content.path.read_bytes())


def executor(config: Config) -> LocalExecutor:
    return LocalExecutor(config, resolve(config.weights))


def names(outcomes: list[Outcome]) -> list[str]:
    return [f"{o.job.content.path.stem}-{o.job.style.name}" for o in outcomes]


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine"]


def endless(config: Config) -> Config:
    """Return the settings with recipes that nobody waits for."""
    return with_steps(config, 100_000)


def with_steps(config: Config, steps: int) -> Config:
    recipe = config.styles["ink"].recipe.model_copy(update={"iterations": steps, "scales": 1})
    styles = {n: s.model_copy(update={"recipe": recipe}) for n, s in config.styles.items()}
    return config.model_copy(update={"styles": styles})


ALL = ["boat-ink", "boat-oil", "hill-ink", "hill-oil"]


LOADING = """
import sys
from pathlib import Path
from nst_pipeline.config.pipeline import load
from nst_pipeline.config.weights import resolve
from nst_pipeline.workers.local import LocalExecutor
executor = LocalExecutor(load(Path("pipeline.yaml")), resolve("compact"))
executor._engine.close()
print("nst_pipeline.engine" in sys.modules)
"""


def test_the_engine_is_loaded_while_the_first_task_is_made_ready(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_two_tasks_are_taken_and_come_back_in_order(config: Config) -> None:
    callers: set[threading.Thread] = set()

    class Callers(Observer):
        def stepped(self, *_: object) -> None:
            callers.add(threading.current_thread())

        def check(self) -> None:
            callers.add(threading.current_thread())

    local = executor(config)
    for task in tasks(config):
        assert local.capacity
        local.submit(task)
    assert not local.capacity and local.machine() is None
    outcomes = list(local.drain(Callers()))
    assert names(outcomes) == ALL and local.capacity == 2
    assert all(isinstance(outcome.outcome, EncodedResult) for outcome in outcomes)
    assert callers == {threading.current_thread()}
    machine = local.machine()
    assert machine is not None and machine.cache_misses == 2
    assert machine.threads == torch.get_num_threads()
    local.close()
    assert not engine_threads()


def test_a_glimpse_is_taken_of_each_job_at_work_and_only_while_somebody_looks(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    finished = batch._ScaleReporter._finished

    def counted(*arguments: Any) -> torch.Tensor:
        taken.append(1)
        return finished(*arguments)

    monkeypatch.setattr(batch._ScaleReporter, "_finished", counted)
    monkeypatch.setattr(callbacks, "GLIMPSE_SHARE", 0)

    class Onlooker(Observer):
        def __init__(self, looks: bool) -> None:
            self.looks, self.seen = looks, list[tuple[str, int]]()

        def wants_glimpse(self) -> bool:
            return self.looks

        def glimpsed(self, job: Job, glimpse: Glimpse) -> None:
            assert glimpse.picture.size == (48, 36)
            self.seen.append((job.style.name, glimpse.done))

    made = []
    for onlooker in (nobody := Onlooker(False), somebody := Onlooker(True)):
        local = executor(with_steps(config, 200))
        local.submit(tasks(with_steps(config, 200))[0])
        made.append([outcome.outcome for outcome in local.drain(onlooker)])
        local.close()
        if onlooker is nobody:
            assert not taken and not nobody.seen
    assert {style for style, _ in somebody.seen} == {"ink", "oil"}
    assert len(taken) == len(somebody.seen)
    data = [[one.data for one in some if isinstance(one, EncodedResult)] for some in made]
    assert data[0] == data[1] and len(data[0]) == 2


def test_an_abandoned_task_is_ended_and_the_next_is_painted(config: Config) -> None:
    first, _ = tasks(endless(config))
    _, second = tasks(config)

    class Abandoning(Observer):
        def stepped(self, job: Job, *_: object) -> None:
            if job.content == first.content:
                raise Abandoned

    local = executor(config)
    local.submit(first)
    local.submit(second)
    outcomes = list(local.drain(Abandoning()))
    local.close()
    assert names(outcomes) == ALL
    assert [outcome.outcome is None for outcome in outcomes] == [True, True, False, False]


def test_closing_ends_what_is_at_work(config: Config) -> None:
    task, _ = tasks(endless(config))

    class Enough(Exception):
        pass

    class Raising(Observer):
        def stepped(self, *_: object) -> None:
            raise Enough

    local = executor(config)
    local.submit(task)
    with pytest.raises(Enough):
        list(local.poll(Raising()))
    assert engine_threads()
    local.close()
    assert not engine_threads() and local.capacity == 2


def test_a_content_that_is_no_picture_any_more_fails_and_the_next_is_painted(
    config: Config,
) -> None:
    first, second = tasks(config)
    local = executor(config)
    local.submit(replace(first, data=b"hello"))
    local.submit(second)
    outcomes = list(local.drain(Observer()))
    local.close()
    assert names(outcomes) == ALL
    assert {o.outcome.kind for o in outcomes if isinstance(o.outcome, Failure)} == {"input"}
    assert [isinstance(o.outcome, EncodedResult) for o in outcomes] == [False, False, True, True]


def test_a_style_that_is_no_picture_any_more_fails_its_own_jobs(config: Config) -> None:
    todo = tasks(config)
    config.styles["ink"].image.write_text("hello")
    limits = config.limits.model_copy(update={"batch": 2})
    local = executor(config.model_copy(update={"limits": limits}))
    local.submit(todo[0])
    outcomes = list(local.drain(Observer()))
    local.close()
    assert [isinstance(o.outcome, EncodedResult) for o in outcomes] == [False, True]


@pytest.mark.parametrize(("what", "kind"), [("replaced", "changed"), ("deleted", "system")])
def test_a_style_that_is_another_or_gone_since_the_plan_is_not_the_contents_fault(
    config: Config, what: str, kind: str
) -> None:
    todo = tasks(config)
    if what == "replaced":
        picture(seed=7).save(config.styles["ink"].image)
    else:
        config.styles["ink"].image.unlink()
    local = executor(config)
    local.submit(todo[0])
    wrong, fine = (one.outcome for one in local.drain(Observer()))
    local.close()
    assert isinstance(wrong, Failure) and wrong.kind == kind and isinstance(fine, EncodedResult)


@pytest.mark.parametrize("where", ["companions", "style", "engine"])
def test_an_error_that_nobody_foresaw_fails_what_it_came_of_and_no_other(
    config: Config, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    first, second = tasks(config)
    raised = []

    def once(*_: object, **__: object) -> object:
        raised.append(where)
        monkeypatch.undo()
        raise MemoryError

    local = executor(config)
    if where == "companions":
        monkeypatch.setattr(LocalExecutor, "_companions", once)
    else:
        monkeypatch.setattr(
            local._engine, "_read_style_image" if where == "style" else "_transfer", once
        )
        monkeypatch.setattr(local._engine, "_style_image", once)
    local.submit(first)
    local.submit(second)
    outcomes = list(local.drain(Observer()))
    local.close()
    failures = [one.outcome for one in outcomes if isinstance(one.outcome, Failure)]
    assert raised == [where] and names(outcomes) == ALL
    assert len(failures) == (1 if where == "style" else 2)
    # That there is no engine is no content's fault.
    assert {one.kind for one in failures} == {"system" if where == "engine" else "passing"}
    assert all(isinstance(one.outcome, EncodedResult) for one in outcomes[2:])


def test_a_style_is_read_and_prepared_for_the_first_content_alone(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def decoded(data: bytes, name: str, max_pixels: int) -> Decoded:
        read.append(Path(name).stem)
        return decode(data, name, max_pixels)

    monkeypatch.setattr("nst_pipeline.workers.engine_thread.decode", decoded)
    monkeypatch.setattr("nst_pipeline.workers.engine_thread.STYLE_BYTES_KEPT", 0)
    first, second = tasks(config)
    local = executor(config)
    local.submit(first)
    outcomes = list(local.drain(Observer()))
    assert {"boat", "ink", "oil"} == set(read)
    read.clear()
    local.submit(second)
    outcomes += local.drain(Observer())
    local.close()
    assert read == ["hill"]
    assert all(isinstance(outcome.outcome, EncodedResult) for outcome in outcomes)


def test_a_content_is_looked_at_once_for_all_its_styles(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes: list[object] = []

    def scene(*given: Any) -> Scene:
        scenes.append(given)
        return make_scene(*given)

    monkeypatch.setattr(transfer, "make_scene", scene)
    local = executor(config)
    for task in tasks(config):
        local.submit(task)
    assert names(list(local.drain(Observer()))) == ALL and len(scenes) == 2
    local.close()


@pytest.mark.parametrize(("batch", "fails"), [(1, {1}), (2, {0, 1}), (3, {0, 1, 2})])
def test_what_goes_wrong_fails_what_is_painted_together_alone(
    config: Config, monkeypatch: pytest.MonkeyPatch, batch: int, fails: set[int]
) -> None:
    limits = config.limits.model_copy(update={"batch": batch})
    styles = {f"s{number}": config.styles["ink"] for number in range(4)}
    config = config.model_copy(update={"styles": styles, "limits": limits})
    failed: list[range] = []
    paint = Batch.paint

    def painted(self: Batch, callbacks: Callbacks) -> list[Result]:
        if 1 in self.indices and not failed:
            failed.append(self.indices)
            raise ValueError("no luck")
        return paint(self, callbacks)

    monkeypatch.setattr(Batch, "paint", painted)
    stepped: set[str] = set()

    class Steps(Observer):
        def stepped(self, job: Job, *_: object) -> None:
            stepped.add(job.style.name)

    local = executor(config)
    with Ledger(None) as ledger:
        todo = plan_of(config, ledger).todo[:4]
    local.submit(task_of(todo))
    outcomes = list(local.drain(Steps()))
    local.close()
    wrong = {n for n, one in enumerate(outcomes) if isinstance(one.outcome, Failure)}
    assert wrong == fails and [one.job for one in outcomes] == todo
    assert stepped == {f"s{number}" for number in range(4)} - {f"s{number}" for number in fails}


def test_a_pastiche_whose_loss_is_not_finite_fails_its_job(config: Config) -> None:
    ink, oil = (config.styles[name] for name in ("ink", "oil"))
    steep = ink.recipe.model_copy(update={"style_weight": 1e300})
    config = config.model_copy(
        update={"styles": {"ink": ink.model_copy(update={"recipe": steep}), "oil": oil}}
    )
    painter = executor(config)
    painter.submit(tasks(config)[0])
    refused, made = (one.outcome for one in painter.drain(Observer()))
    painter.close()
    assert isinstance(refused, Failure) and "boat.jpg in ink: the loss is inf" in refused.reason
    assert refused.kind == "job" and isinstance(made, EncodedResult)


def test_an_error_of_the_engine_reaches_the_caller(config: Config) -> None:
    todo = tasks(config)
    broken = config.model_copy(update={"device": "cuda:99"})
    local = executor(broken)
    local.submit(todo[0])
    with pytest.raises(UnavailableError, match="cuda:99"):
        list(local.poll(Observer()))
    local.close()
    assert not engine_threads()


def test_no_sign_of_life_is_passed_on_while_the_engine_makes_no_step(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, checks = threading.Event(), []

    def hang(self: Batch, callbacks: Callbacks) -> list[Result]:
        callbacks.check()
        hanging.wait(0.5)  # many looks of the other thread long
        raise ValueError("no luck")

    class Checks(Observer):
        def check(self) -> None:
            checks.append(1)

    monkeypatch.setattr(Batch, "paint", hang)
    monkeypatch.setattr("nst_pipeline.workers.local.LOOK_SECONDS", 0.005)
    local = executor(config)
    first, _ = tasks(config)
    local.submit(replace(first, jobs=first.jobs[:1]))
    outcomes = list(local.drain(Checks()))
    local.close()
    assert len(outcomes) == 1 and 1 <= len(checks) <= 3


# Companions


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments that the engine was given last; it paints nothing."""
    given: dict[str, Any] = {}

    def paint(
        self: StyleTransfer, content: object, styles: list[Any], *_: object, **arguments: Any
    ) -> Iterator[tuple[range, Exception]]:
        given.clear()
        given.update(arguments)
        yield range(len(styles)), ValueError("enough")

    monkeypatch.setattr(StyleTransfer, "paint", paint)
    return given


def reasons(config: Config) -> list[tuple[str, str]]:
    """Paint boat.jpg; return the kind and the reason of each failure."""
    (task,) = (task for task in tasks(config) if task.content.path.name == "boat.jpg")
    local = executor(config)
    local.submit(task)
    outcomes = [outcome.outcome for outcome in local.drain(Observer())]
    local.close()
    return [(one.kind, one.reason) for one in outcomes if isinstance(one, Failure)]


def of_regions(config: Config, *names: str) -> Config:
    """Return the settings with a style of these regions in place of the first."""
    ink = config.styles["ink"].image
    style = StyleSettings(regions=dict.fromkeys(names, {"image": ink}))
    return config.model_copy(update={"styles": {"ink": style, "oil": config.styles["oil"]}})


def test_masks_that_no_style_takes_anything_of_are_not_decoded(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sky", "sea", "sand"):
        Image.new("L", (64, 48), 255).save(config.inbox / f"boat.mask.{name}.png")
    read: list[str] = []

    def decoded(data: bytes, name: str, max_pixels: int) -> Decoded:
        read.append(Path(name).name)
        return decode(data, name, max_pixels)

    monkeypatch.setattr("nst_pipeline.workers.engine_thread.decode", decoded)
    assert not reasons(of_regions(config, "sky"))
    assert sorted(set(read)) == ["boat.jpg", "boat.mask.sky.png", "ink.png", "oil.png"]


def test_masks_much_finer_than_the_pastiche_are_made_smaller(
    config: Config, arguments: dict[str, Any]
) -> None:
    fine = Image.new("L", (1024, 768))
    fine.paste(255, (512, 0, 1024, 768))
    fine.save(config.inbox / "boat.mask.png")
    reasons(config)
    mask = arguments["masks"][""]
    assert mask.shape == (154, 205)  # of a pastiche of 48 pixels, at least four times as fine
    assert not mask[:, :100].any() and (mask[:, 104:] == 255).all()


def sized(config: Config, **limits: int) -> Config:
    return config.model_copy(update={"limits": config.limits.model_copy(update=limits)})


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("boat.jpg", 2400, 1800), ("boat.mask.png", 2400, 1800), ("boat.init.png", 2400, 1800)],
)
def test_a_content_that_takes_too_much_memory_fails_by_name_before_it_is_decoded(
    config: Config, monkeypatch: pytest.MonkeyPatch, name: str, width: int, height: int
) -> None:
    Image.new("RGB", (width, height), "white").save(config.inbox / name)

    def decoded(*_: object) -> Decoded:
        raise AssertionError("was decoded")

    (task,) = (task for task in tasks(config) if task.content.path.name == "boat.jpg")
    small = executor(sized(config, max_memory_bytes=30_000_000))
    monkeypatch.setattr("nst_pipeline.workers.engine_thread.decode", decoded)
    small.submit(task)
    outcomes = [one.outcome for one in small.drain(Observer())]
    small.close()
    for outcome in outcomes:
        assert isinstance(outcome, Failure) and outcome.kind == "input"
        assert "boat.jpg: takes 0.0" in outcome.reason
        assert "limits.max_memory_bytes allows 0.03 GB" in outcome.reason


def test_a_style_that_takes_too_much_memory_fails_its_own_jobs(config: Config) -> None:
    Image.new("RGB", (2400, 1800), "white").save(config.inbox.parent / "styles/ink.png")
    first, _ = tasks(config)
    small = executor(sized(config, max_memory_bytes=30_000_000))
    small.submit(first)
    outcomes = [one.outcome for one in small.drain(Observer())]
    small.close()
    failed, done = outcomes
    assert isinstance(failed, Failure) and failed.kind == "job"
    assert "ink.png: takes" in failed.reason
    assert isinstance(done, EncodedResult)


def test_the_engine_gets_the_masks_and_the_start_of_a_content(
    config: Config, arguments: dict[str, Any]
) -> None:
    half = Image.new("L", (64, 48))
    half.paste(255, (32, 0, 64, 48))
    half.save(config.inbox / "boat.mask.png")
    half.convert("RGBA").save(config.inbox / "boat.mask.Sky.png")
    (config.inbox / "boat.mask.sea.png").write_bytes((config.inbox / "boat.mask.png").read_bytes())
    picture(seed=5).save(config.inbox / "boat.init.png")
    assert "enough" in str(reasons(of_regions(config, "sky")))
    masks = arguments["masks"]
    assert masks.keys() == {"", "sky"} and arguments.keys() == {"masks", "init"}
    for mask in masks.values():
        assert np.array_equal(mask, np.asarray(half))
    assert np.array_equal(arguments["init"].pixels, np.asarray(picture(seed=5)))


def test_the_engine_is_asked_for_nothing_more_without_companions(
    config: Config, arguments: dict[str, Any]
) -> None:
    assert "enough" in str(reasons(config))
    assert arguments == {}


def pictures(config: Config, name: str) -> list[np.ndarray]:
    """Paint a content; return the pixels of each result, with their alpha."""
    results = encoded(config, name)
    return [np.asarray(Image.open(io.BytesIO(one.data)).convert("RGBA")) for one in results]


def encoded(config: Config, name: str) -> list[EncodedResult]:
    """Paint a content; return each result."""
    (task,) = (task for task in tasks(config) if task.content.path.name == name)
    local = executor(config)
    local.submit(task)
    outcomes = [one.outcome for one in local.drain(Observer())]
    local.close()
    results = [one for one in outcomes if isinstance(one, EncodedResult)]
    assert len(results) == len(outcomes), outcomes
    return results


def save_cut_out(path: Path, hidden: str, seed: int) -> None:
    """Write a picture of which the left half is seen, over hidden pixels of some colour."""
    below = picture(seed=99) if hidden == "noise" else Image.new("RGB", (64, 48), hidden)
    below.paste(picture(seed=seed).crop((0, 0, 32, 48)), (0, 0))
    alpha = Image.new("L", (64, 48))
    alpha.paste(255, (0, 0, 32, 48))
    below.putalpha(alpha)
    below.save(path, lossless=True, exact=True)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_hidden_colours_of_contents_styles_and_starts_decide_nothing(
    config: Config, suffix: str
) -> None:
    (config.inbox / "hill.png").unlink()
    content, start = config.inbox / f"hill{suffix}", config.inbox / f"hill.init{suffix}"
    style = config.styles["ink"].model_copy(update={"image": config.inbox.parent / f"cut{suffix}"})
    config = config.model_copy(update={"styles": config.styles | {"ink": style}})
    painted = []
    for hidden in ("black", "white", "lime", "noise"):
        save_cut_out(content, hidden, 2)
        save_cut_out(start, hidden, 6)
        save_cut_out(config.inbox.parent / f"cut{suffix}", hidden, 3)
        painted.append(pictures(config, content.name))
    for other in painted[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(painted[0], other, strict=True))
    assert (painted[0][0][:, :23, 3] == 255).all() and (painted[0][0][:, 25:, 3] == 0).all()


def test_alpha_and_snapshots_are_cut_off_as_the_content_is(config: Config) -> None:
    save_cut_out(config.inbox / "hill.png", "black", 2)
    exact = config.recipe.model_copy(update={"size": Bounds(width=40, height=48)})
    output = config.output.model_copy(update={"snapshots": 1})
    config = config.model_copy(update={"recipe": exact, "output": output})
    for result in encoded(config, "hill.png"):
        assert len(result.extras) == 3 and result.size == (48, 40)
        for data in (result.data, *result.extras.values()):
            alpha = np.asarray(Image.open(io.BytesIO(data)).getchannel("A"))
            assert alpha.shape == (48, 40)
            assert (alpha[:, :20] == 255).all() and (alpha[:, 20:] == 0).all()


def test_masks_are_fine_enough_for_a_pastiche_that_shows_a_part(config: Config) -> None:
    picture(640, 64, seed=1).save(config.inbox / "boat.jpg")
    Image.new("L", (6400, 640), 255).save(config.inbox / "boat.mask.png")
    exact = config.recipe.model_copy(update={"size": Bounds(width=64, height=64)})
    given = config.model_copy(update={"recipe": exact})
    task = next(t for t in tasks(given) if t.content.path.name == "boat.jpg")
    assert longest_side(task.jobs, (64, 640)) == 640
    assert longest_side(task.jobs) > 16384


def test_a_white_mask_with_alpha_paints_what_its_alpha_lets_it(config: Config) -> None:
    half = Image.new("L", (64, 48))
    half.paste(255, (32, 0, 64, 48))
    half.save(config.inbox / "boat.mask.png")
    opaque = pictures(config, "boat.jpg")
    white = Image.new("RGB", (64, 48), "white")
    white.putalpha(half)
    white.save(config.inbox / "boat.mask.png")
    for ours, wanted in zip(pictures(config, "boat.jpg"), opaque, strict=True):
        assert np.array_equal(ours, wanted)


def test_a_mask_of_no_visible_pixel_and_a_style_of_none_are_said(config: Config) -> None:
    Image.new("RGBA", (64, 48), (255, 255, 255, 0)).save(config.inbox / "boat.mask.png")
    for kind, reason in (failed := reasons(config)):
        assert kind == "input" and "boat.mask.png: a mask without a visible pixel" in reason
    assert len(failed) == 2
    (config.inbox / "boat.mask.png").unlink()
    Image.new("RGBA", (64, 48), (9, 9, 9, 0)).save(config.inbox.parent / "styles" / "ink.png")
    ((kind, reason),) = reasons(config)
    assert kind == "job" and reason.partition("ink.png")[2] == (
        ": nothing is visible, all pixels are transparent; save it without alpha"
    )


def test_a_companion_of_another_shape_fails_all_jobs_of_its_content(
    config: Config, arguments: dict[str, Any]
) -> None:
    picture(48, 64).save(config.inbox / "boat.mask.png")
    failed = reasons(config)
    assert [kind for kind, _ in failed] == ["input", "input"]
    assert "boat.mask.png: 48 x 64 pixels, not of the shape of boat.jpg" in failed[0][1]


@pytest.mark.parametrize(
    ("style", "recipe", "name", "said"),
    [
        ({"regions": {"Sky": "ink.png"}}, {}, "boat.mask.SKY.png", "no mask of the region sky"),
        ({"image": "ink.png"}, {"init": "image"}, "boat.init.png", "init: image needs a picture"),
    ],
)
def test_a_companion_that_is_needed_and_missing_fails_the_jobs_that_need_it(
    config: Config,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    style: dict[str, Any],
    recipe: dict[str, Any],
    name: str,
    said: str,
) -> None:
    monkeypatch.chdir(config.styles["ink"].paths()[0].parent)
    needs = StyleSettings.model_validate(style | {"recipe": recipe})
    config = config.model_copy(update={"styles": {"needs": needs, "ink": config.styles["ink"]}})
    (kind, reason), (_, other) = reasons(config)
    assert kind == "input" and "enough" in other
    assert f"boat.jpg in needs: {said}" in reason.replace("there is ", "")
    assert name.lower() in reason
    picture(seed=5).save(config.inbox / name)
    assert all("enough" in reason for _, reason in reasons(config))


def test_what_a_mask_takes_is_not_read_through_a_folder_that_became_a_link(
    config: Config, tmp_path: Path
) -> None:
    folder = config.inbox / "trip"
    folder.mkdir()
    for name in ("boat.png", "boat.mask.png"):
        Image.new("RGB", (64, 48), "white").save(folder / name)
    with Ledger(None) as ledger:
        todo = [job for job in plan_of(config, ledger).todo if job.content.path.parent == folder]
    task = task_of(todo)
    Budget(config.limits, Disk(config)).of_content(task)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotReadyError, match="a link where none is followed"):
        Budget(config.limits, Disk(config)).of_content(task)


def test_a_result_of_adam_tells_of_no_history_that_memory_shortened(config: Config) -> None:
    adam = config.recipe.model_copy(update={"optimizer": "adam"})
    config = config.model_copy(update={"recipe": adam})
    for result in encoded(config, "hill.png"):
        assert result.history_size is None and result.iterations == 3
