"""The commit protocol and the way back in: every state that a kill can leave."""

import io
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import support
from conftest import Program
from PIL import Image
from support import (
    FakeExecutor,
    SilentObserver,
    Watch,
    configure,
    draw,
    home_of,
    observed_run,
    outputs,
    painted,
    plan_of,
    program,
    run_once,
)

from nst_pipeline.config.pipeline import Config
from nst_pipeline.digests import bytes_digest
from nst_pipeline.errors import Abandoned, ImageError
from nst_pipeline.files import numbered
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.job import Job
from nst_pipeline.jobs.job_table import JobTable
from nst_pipeline.jobs.ledger import Ledger
from nst_pipeline.jobs.planning import make_scanner
from nst_pipeline.jobs.state import Entry
from nst_pipeline.runner import intake, publishing
from nst_pipeline.runner.runner import Runner, folders_of


def queue(config: Config, ledger: Ledger) -> Entry:
    """Queue and start the only job, as if a process then had been killed."""
    plan_of(config, ledger)
    (entry,) = ledger.jobs.all()
    ledger.jobs.start(entry.id)
    ledger.set_fact("clean", "no")
    entry.output.parent.mkdir(exist_ok=True)
    return ledger.jobs.get(entry.id)


def result(home: Path) -> bytes:
    draw(home / "result.png", 77)
    return (home / "result.png").read_bytes()


# Recovery, state by state


def test_a_published_result_that_was_not_noted_is_noted_not_painted_again(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    data = result(home_of(config))
    entry.output.write_bytes(data)
    ledger.jobs.begin_commit(
        entry.id, entry.output, entry.output.with_name(".nst-x"), bytes_digest(data)
    )
    observed_run(config)
    assert ledger.jobs.get(entry.id).state == "done" and painted(home_of(config)) == []
    assert entry.output.read_bytes() == data


@pytest.mark.parametrize("on_success", ["keep", "move"])
def test_a_finished_temporary_file_is_published_not_painted_again(
    config: Config, ledger: Ledger, on_success: str
) -> None:
    config = configure(home_of(config), on_success=on_success, watch={"settle_seconds": 0})
    entry = queue(config, ledger)
    data = result(home_of(config))
    temporary = entry.output.with_name(".nst-x")
    temporary.write_bytes(data)
    ledger.jobs.begin_commit(entry.id, entry.output, temporary, bytes_digest(data))
    observed_run(config)
    assert entry.output.read_bytes() == data and painted(home_of(config)) == []
    assert outputs(home_of(config)) == ["a-s.png"]


def test_half_a_temporary_file_is_removed_and_the_job_done_again(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    data = result(home_of(config))
    temporary = entry.output.with_name(".nst-x")
    temporary.write_bytes(data[:100])
    ledger.jobs.begin_commit(entry.id, entry.output, temporary, bytes_digest(data))
    observed_run(config)
    assert painted(home_of(config)) == ["a.png"] and outputs(home_of(config)) == ["a-s.png"]
    assert ledger.jobs.get(entry.id).state == "done"


def test_another_file_under_the_final_name_is_not_taken_for_the_result(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    entry.output.write_bytes(b"somebody else's")
    ledger.jobs.begin_commit(entry.id, entry.output, entry.output.with_name(".nst-x"), "0" * 64)
    observed_run(config)
    assert painted(home_of(config)) == ["a.png"]


def test_a_job_that_was_at_work_is_queued_until_it_killed_too_often(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    for attempt in (1, 2):
        publishing.recover(ledger.jobs, Folders(), "replace", 3, lambda _: None)
        assert ledger.jobs.get(entry.id).state == "queued"
        assert ledger.jobs.get(entry.id).attempts == attempt
        ledger.jobs.start(entry.id)
    publishing.recover(ledger.jobs, Folders(), "replace", 3, lambda _: None)
    assert ledger.jobs.get(entry.id).state == "failed" and ledger.jobs.get(entry.id).poison
    observer = observed_run(config)
    assert [record.status for record in observer.records] == ["failed"]
    assert painted(home_of(config)) == []


def test_a_job_whose_result_is_lost_with_the_process_again_and_again_is_given_up(
    config: Config, ledger: Ledger
) -> None:
    entry = queue(config, ledger)
    for attempt in (1, 2, 3):
        assert ledger.jobs.get(entry.id).attempts == attempt
        ledger.jobs.begin_commit(entry.id, entry.output, entry.output.with_name(".nst-x"), "0")
        publishing.recover(ledger.jobs, folders_of(config, ledger), "replace", 3, lambda _: None)
        if attempt < 3:
            ledger.jobs.start(entry.id)
    assert ledger.jobs.get(entry.id).state == "failed" and ledger.jobs.get(entry.id).poison


def test_an_interrupt_in_good_order_counts_as_no_attempt(config: Config, ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_once(config, FakeExecutor({"a": KeyboardInterrupt()}))
    (entry,) = ledger.jobs.all()
    assert (entry.state, entry.attempts) == ("queued", 0)


def test_a_job_that_is_abandoned_goes_back_and_the_next_one_is_painted(
    config: Config, ledger: Ledger
) -> None:
    draw(config.inbox / "b.png", 2)

    class Picky(SilentObserver):
        def stepped(self, job: Job, done: int, total: int, loss: float) -> None:
            if job.content.path.name == "a.png":
                raise Abandoned

    run_once(config, None, Picky())
    assert outputs(home_of(config)) == ["b-s.png"]
    assert {e.source.name: e.state for e in ledger.jobs.all()} == {
        "a.png": "queued", "b.png": "done",
    }  # fmt: skip


def test_a_result_that_cannot_be_decoded_is_never_published(config: Config, ledger: Ledger) -> None:
    entry = queue(config, ledger)
    with pytest.raises(ImageError):
        publishing.publish_result(ledger.jobs, Folders(), entry, b"no picture", "replace")
    assert not list(config.outbox.iterdir())


# Names that are taken


def test_no_file_is_ever_replaced_by_chance(config: Config, ledger: Ledger) -> None:
    entry = queue(config, ledger)
    entry.output.write_bytes(b"theirs")
    data = result(home_of(config))
    with pytest.raises(publishing.ConflictError):
        publishing.publish_result(ledger.jobs, Folders(), entry, data, "fail")
    final = publishing.publish_result(ledger.jobs, Folders(), entry, data, "suffix")
    assert final == numbered(entry.output, 2) and final.read_bytes() == data
    assert entry.output.read_bytes() == b"theirs"
    assert ledger.jobs.get(entry.id).final == final


def test_older_outputs_that_were_written_over_are_no_longer_done(
    config: Config, ledger: Ledger
) -> None:
    observed_run(config)
    first = (config.inbox / "a.png").read_bytes()
    draw(config.inbox / "a.png", 2)
    observed_run(config)
    assert sorted(entry.state for entry in ledger.jobs.all()) == ["done", "replaced"]
    (config.inbox / "a.png").write_bytes(first)
    observed_run(config)
    assert painted(home_of(config)) == ["a.png"] * 3


# Duplicates


def test_a_duplicate_is_a_hard_link_and_an_edited_output_is_no_source_of_them(
    config: Config, ledger: Ledger
) -> None:
    shutil.copy(config.inbox / "a.png", config.inbox / "b.png")
    observed_run(config)
    assert (config.outbox / "a-s.png").samefile(config.outbox / "b-s.png")
    (config.outbox / "a-s.png").unlink()
    (config.outbox / "b-s.png").write_bytes(b"edited")
    shutil.copy(config.inbox / "a.png", config.inbox / "c.png")
    observed_run(config, paths=[config.inbox / "c.png"])
    assert painted(home_of(config)) == ["a.png", "c.png"]


def test_where_links_are_impossible_a_duplicate_is_a_copy(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    shutil.copy(config.inbox / "a.png", config.inbox / "b.png")
    monkeypatch.setattr(Folders, "link", refuse)
    observed_run(config)
    assert painted(home_of(config)) == ["a.png"]
    assert not (config.outbox / "a-s.png").samefile(config.outbox / "b-s.png")
    assert (config.outbox / "a-s.png").read_bytes() == (config.outbox / "b-s.png").read_bytes()


@pytest.mark.parametrize("standing", [False, True])
def test_a_name_that_is_taken_in_the_last_moment_is_numbered(
    config: Config, monkeypatch: pytest.MonkeyPatch, standing: bool
) -> None:
    config = configure(home_of(config), on_conflict="suffix", watch={"settle_seconds": 0})
    rename = Folders.rename_new

    def race(folders: Folders, source: Path, target: Path, durably: bool = True) -> None:
        if not target.exists() and target.name == "a-s.png":
            target.write_bytes(b"theirs")
        rename(folders, source, target, durably)

    monkeypatch.setattr(Folders, "rename_new", race)
    if standing:
        with Runner(config, FakeExecutor(), SilentObserver()) as runner:
            runner.run_standing(make_scanner(config))
    else:
        observed_run(config)
    assert outputs(home_of(config)) == ["a-s-2.png", "a-s.png"]
    assert (config.outbox / "a-s.png").read_bytes() == b"theirs"


@pytest.mark.parametrize("links", [True, False])
def test_a_duplicate_that_is_cancelled_meanwhile_is_neither_made_nor_recorded(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    observed_run(config)
    shutil.copy(config.inbox / "a.png", config.inbox / "b.png")
    rename = publishing._rename

    def cancelled(jobs: JobTable, folders: Folders, whole: Any, *rest: Any) -> Any:
        jobs.cancel(whole[0].entry.source)
        return rename(jobs, folders, whole, *rest)

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(publishing, "_rename", cancelled)
    if not links:
        monkeypatch.setattr(Folders, "link", refuse)
    observer = observed_run(config)
    assert outputs(home_of(config)) == ["a-s.png"] and observer.records == []
    (entry,) = ledger.jobs.of_source(config.inbox / "b.png").values()
    assert entry.state == "cancelled"


def test_an_end_while_a_result_is_published_is_no_attempt(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise SystemExit(130)

    monkeypatch.setattr(intake, "publish_results", interrupt)
    with pytest.raises(SystemExit):
        observed_run(config)
    (entry,) = ledger.jobs.all()
    assert (entry.state, entry.attempts) == ("queued", 0)


@pytest.mark.parametrize("point", ["before", "committing"])
def test_a_kill_while_a_duplicate_is_published_is_no_attempt_at_painting_it(
    config: Config, point: str
) -> None:
    home = home_of(config)
    configure(home, watch={"settle_seconds": 0, "max_attempts": 1})
    assert program(home, "run").returncode == 0
    shutil.copy(home / "inbox/a.png", home / "inbox/b.png")
    killed = f"""
import os, sys
sys.path.insert(0, {str(Path(support.__file__).parent)!r})
from nst_pipeline.runner import intake, publishing
def kill(*_):
    os.kill(os.getpid(), 9)
if {point == "before"}:
    intake.publish_duplicate = kill
else:
    publishing.Folders.replace = kill
import support
sys.argv = ["nst-pipeline", "run"]
support.main()
"""
    done = subprocess.run([sys.executable, "-c", killed], cwd=home, check=False)
    assert done.returncode == -9
    done = program(home, "run")
    assert done.returncode == 0, done.stdout
    assert outputs(home) == ["a-s.png", "b-s.png"] and painted(home) == ["a.png"]


# Another place


def elsewhere(config: Config, **changes: object) -> Config:
    return configure(home_of(config), watch={"settle_seconds": 0}, **changes)


def pictures(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"outbox": "other"}, "a-s.png"),
        ({"outbox": "other", "output": {"name": "{style}/{content}"}}, "s/a.png"),
        ({"outbox": "outbox/deeper"}, "a-s.png"),
        ({"output": {"name": "{content} as {style}"}}, "a as s.png"),
    ],
)
def test_a_result_is_copied_to_where_new_settings_say_and_not_painted_again(
    config: Config, changes: dict[str, object], name: str
) -> None:
    observed_run(config)
    painted_bytes = pictures(config.outbox)["a-s.png"]
    config = elsewhere(config, **changes)
    (record,) = observed_run(config).records
    assert record.status == "done" and record.duplicate_of and record.output
    assert record.output.path == str(config.outbox / name)
    assert pictures(config.outbox)[name] == painted_bytes
    assert painted(home_of(config)) == ["a.png"]
    assert observed_run(config).records == []


def test_what_is_lost_is_painted_for_the_new_place(config: Config) -> None:
    observed_run(config)
    (config.outbox / "a-s.png").write_bytes(b"somebody else's by now")
    config = elsewhere(config, outbox="other")
    observed_run(config)
    assert painted(home_of(config)) == ["a.png", "a.png"]
    assert list(pictures(config.outbox)) == ["a-s.png"]


def test_force_paints_to_the_new_place_and_leaves_the_old_result(config: Config) -> None:
    observed_run(config)
    before = config.outbox / "a-s.png"
    inode = before.stat().st_ino
    config = elsewhere(config, outbox="other")
    observed_run(config, force=True)
    assert painted(home_of(config)) == ["a.png", "a.png"]
    assert before.stat().st_ino == inode and list(pictures(config.outbox)) == ["a-s.png"]


def test_a_way_back_costs_nothing(config: Config) -> None:
    for outbox in ("other", "outbox", "other"):
        observed_run(elsewhere(config, outbox=outbox))
    assert painted(home_of(config)) == ["a.png"]


@pytest.mark.parametrize("force", [False, True])
def test_a_numbered_name_is_the_place_that_the_settings_say(config: Config, force: bool) -> None:
    config = elsewhere(config, on_conflict="suffix")
    config.outbox.mkdir()
    (config.outbox / "a-s.png").write_bytes(b"somebody else's")
    observed_run(config)
    assert sorted(pictures(config.outbox)) == ["a-s-2.png", "a-s.png"]
    assert len(observed_run(config, force=force).records) == force
    assert sorted(pictures(config.outbox)) == ["a-s-2.png", "a-s.png"]


def test_neighbours_and_named_paths_make_no_result_anew(config: Config) -> None:
    (config.inbox / "sub").mkdir()
    draw(config.inbox / "sub/a.png", 2)
    observed_run(config, paths=[config.inbox / "sub/a.png"])
    assert list(pictures(config.outbox)) == ["a-s.png"]
    config = elsewhere(config, on_conflict="suffix")
    observed_run(config)
    (config.inbox / "a.bmp").write_bytes((home_of(config) / "style.png").read_bytes())
    observed_run(config)
    assert sorted(painted(home_of(config))) == ["a.bmp", "a.png", "a.png"]
    assert outputs(home_of(config)) == ["a-s-2.png", "a-s.png", "a.bmp-s.png"]
    assert observed_run(config).records == []


def test_snapshots_and_animations_go_along(config: Config) -> None:
    making = {"making": "gif", "snapshots": 1}
    observed_run(elsewhere(config, output=making))
    extras = pictures(config.outbox)
    assert sorted(extras) == ["a-s.gif", "a-s.png", "a-s.steps/00001.png"]
    config = elsewhere(config, output=making, outbox="other")
    (record,) = observed_run(config).records
    assert pictures(config.outbox) == extras and painted(home_of(config)) == ["a.png"]
    assert record.extras == [
        str(config.outbox / name) for name in ("a-s.gif", "a-s.steps/00001.png")
    ]


def test_a_dry_run_tells_what_is_only_copied(config: Config, here: Program) -> None:
    observed_run(config)
    draw(config.inbox / "b.png", 2)
    elsewhere(config, outbox="other")
    done = here("run", "--dry-run", cwd=home_of(config))
    assert "copy    " in done.stdout and "would paint 1, copy 1, skip 0" in done.stdout
    assert "1 to paint, 1 to copy, 0 done" in here("check", cwd=home_of(config)).stdout


def test_watch_copies_what_is_in_the_inbox_to_a_new_outbox_and_repaints_nothing_taken(
    config: Config,
) -> None:
    home = home_of(config)
    draw(config.inbox / "b.png", 2)
    with Watch(home) as watch:
        watch.until_outputs("a-s.png", "b-s.png")
        watch.until_idle()
        (config.outbox / "b-s.png").rename(home / "taken.png")
        new = elsewhere(config, output={"name": "{style}/{content}"})
        watch.send(signal.SIGHUP)
        watch.until_outputs("a-s.png", "s/a.png", "s/b.png")
        watch.until_idle()
        assert painted(home) == ["a.png", "b.png", "b.png"]  # the bytes of b are not known
        (config.outbox / "s/a.png").unlink()
        draw(config.inbox / "c.png", 3)
        watch.until_outputs("a-s.png", "s/b.png", "s/c.png")
        watch.stop()
    with Watch(home) as watch:
        watch.until_idle()
    assert outputs(home) == ["a-s.png", "s/b.png", "s/c.png"]
    observed_run(new)
    assert outputs(home) == ["a-s.png", "s/a.png", "s/b.png", "s/c.png"]


def test_a_name_that_is_taken_in_the_last_moment_is_refused_where_nothing_may_be_replaced(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, data = queue(config, ledger), result(home_of(config))
    rename_new = Folders.rename_new

    def faster(folders: Folders, source: Path, target: Path, durably: bool = True) -> None:
        if target == entry.output:
            target.write_bytes(b"theirs")
        rename_new(folders, source, target, durably)

    monkeypatch.setattr(Folders, "rename_new", faster)
    with pytest.raises(publishing.ConflictError, match="exists already"):
        publishing.publish_result(ledger.jobs, Folders(), entry, data, "fail")
    assert list(config.outbox.iterdir()) == [entry.output]
    assert entry.output.read_bytes() == b"theirs"


# Several at a time


def together(config: Config, ledger: Ledger, names: list[str]) -> list[Entry]:
    """Return the entries of some jobs, begun, with their own result in each name's place."""
    for number, name in enumerate(names):
        draw(config.inbox / name, number)
    plan_of(config, ledger)
    config.outbox.mkdir(exist_ok=True)
    entries = {entry.source.name: entry for entry in ledger.jobs.all()}
    for entry in entries.values():
        ledger.jobs.start(entry.id)
    return [entries[name] for name in names]


def test_what_becomes_of_one_result_of_several_stops_no_other(
    config: Config, ledger: Ledger
) -> None:
    names = ["b.png", "c.png", "d.png", "e.png", "f.png"]
    entries, data = together(config, ledger, names), result(home_of(config))
    entries[0].output.write_bytes(b"theirs")
    ledger.jobs.cancel(entries[2].source)
    results = [(entry, b"none" if entry is entries[1] else data) for entry in entries]
    done = publishing.publish_results(ledger.jobs, Folders(), results, "fail")
    assert isinstance(done[0], publishing.ConflictError) and isinstance(done[1], ImageError)
    assert done[2:] == [None, entries[3].output, entries[4].output]
    states = [ledger.jobs.state(entry.id) for entry in entries]
    assert states == ["running", "running", "cancelled", "done", "done"]
    assert outputs(home_of(config)) == ["b-s.png", "e-s.png", "f-s.png"]  # and nothing hidden


def test_of_several_results_for_one_name_each_gets_a_number(config: Config, ledger: Ledger) -> None:
    entries, data = together(config, ledger, ["b.png", "c.png", "d.png"]), result(home_of(config))
    place = entries[0].output
    same = [(replace(entry, output=place), data) for entry in entries]
    done = publishing.publish_results(ledger.jobs, Folders(), same, "suffix")
    assert done == [place, numbered(place, 2), numbered(place, 3)]
    assert [ledger.jobs.get(entry.id).final for entry in entries] == done


def test_results_of_a_group_that_replace_one_name_do_so_one_after_the_other(
    config: Config, ledger: Ledger
) -> None:
    first, second = together(config, ledger, ["b.png", "c.png"])
    draw(home_of(config) / "second.png", 78)
    place, data = first.output, (home_of(config) / "second.png").read_bytes()
    same = [(first, result(home_of(config))), (replace(second, output=place), data)]
    done = publishing.publish_results(ledger.jobs, Folders(), same, "replace")
    assert done == [place, place] and place.read_bytes() == data
    assert [ledger.jobs.state(one.id) for one in (first, second)] == ["replaced", "done"]


@pytest.mark.parametrize("side", [64, 2000])
def test_results_of_many_pixels_are_decoded_one_at_a_time_however_small_their_files(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    entries = together(config, ledger, ["b.png", "c.png", "d.png"])
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    data = buffer.getvalue()
    assert len(data) < 2**16
    threads: list[int] = []
    monkeypatch.setattr(publishing, "_verify", lambda *_: threads.append(threading.get_ident()))
    publishing.publish_results(ledger.jobs, Folders(), [(e, data) for e in entries], "fail")
    assert len(threads) == 3
    assert (set(threads) == {threading.get_ident()}) == (side == 2000)


def test_a_group_costs_the_ledger_and_the_folder_one_sync_each(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, data = together(config, ledger, ["b.png", "c.png", "d.png"]), result(home_of(config))
    synced: list[Path] = []
    monkeypatch.setattr(Folders, "sync", lambda _, folder: synced.append(folder))
    commits: list[str] = []
    ledger._database.set_trace_callback(commits.append)
    publishing.publish_results(ledger.jobs, Folders(), [(e, data) for e in entries], "fail")
    ledger._database.set_trace_callback(None)
    assert synced == [config.outbox]
    assert commits.count("PRAGMA synchronous = FULL") == 1 and commits.count("COMMIT") == 2
