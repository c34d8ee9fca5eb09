"""The manifest's records of single jobs."""

from typing import Any, Literal

from nst_pipeline.config.pipeline import Config
from nst_pipeline.files import as_text
from nst_pipeline.jobs.job import Content, Job, PlannedStyle
from nst_pipeline.jobs.outcome import EncodedResult, Failure, Machine
from nst_pipeline.jobs.planning import Broken, Done
from nst_pipeline.jobs.state import Entry
from nst_pipeline.manifest.model import (
    ContentRecord,
    CurveRecord,
    ErrorRecord,
    FileRecord,
    JobRecord,
    LossRecord,
    SourceRecord,
    StyleRecord,
)


def done(
    job: Job,
    result: EncodedResult,
    output: FileRecord,
    extras: list[str],
    machine: Machine | None = None,
) -> JobRecord:
    """Return the record of a job that made ``output``, and ``extras`` beside it, on a machine."""
    return _record(job, "done", output, result.content_size).model_copy(
        update={
            "iterations": result.iterations,
            "stop_reason": result.stop_reason,
            "history_size": result.history_size,
            "losses": {
                "start": LossRecord(**result.start),
                "end": LossRecord(**result.end),
            },
            "curve": [
                CurveRecord(size=size, steps=steps, losses=losses)
                for size, steps, losses in result.curve
            ],
            "seconds": result.seconds,
            "extras": extras,
            "notes": list(result.notes),
            "node": (machine and machine.node) or None,
            "device": machine and machine.device,
        }
    )


def duplicate(job: Job, original: Entry, output: FileRecord, extras: list[str]) -> JobRecord:
    """Return the record of a job whose output, and extras, were made before, for another place."""
    return _record(job, "done", output).model_copy(
        update={"duplicate_of": as_text(original.final), "seconds": 0.0, "extras": extras}
    )


def skipped(job: Done, entry: Entry) -> JobRecord:
    """Return the record of a job whose output is there already."""
    return JobRecord(
        status="skipped",
        content=_content(job.content),
        style=_style(job.style),
        output=FileRecord.of(entry.final, sha256=entry.sha256),
        key=entry.key,
    )


def failed(job: Job, failure: Failure) -> JobRecord:
    """Return the record of a job that came to nothing."""
    error = ErrorRecord(reason=failure.reason, trace=failure.trace)
    return _record(job, "failed", None).model_copy(update={"error": error})


def lost(entry: Entry, reason: str) -> JobRecord:
    """Return the record of a job that ended the process, and of its style only the name is left."""
    return JobRecord(
        status="failed",
        content=ContentRecord.of(entry.source, sha256=entry.content),
        style=StyleRecord(name=entry.style, path="", sha256=""),
        key=entry.key,
        error=ErrorRecord(reason=reason),
    )


def broken(file: Broken, style: PlannedStyle) -> JobRecord:
    """Return the record of a file that no job could be made of."""
    return JobRecord(
        status="failed",
        content=ContentRecord.of(file.found.path),
        style=_style(style),
        error=ErrorRecord(reason=file.reason),
    )


def _record(
    job: Job,
    status: Literal["done", "failed"],
    output: FileRecord | None,
    content_size: tuple[int, int] | None = None,
) -> JobRecord:
    return JobRecord(
        status=status,
        content=_content(job.content, content_size),
        style=_style(job.style),
        output=output,
        key=job.key,
    )


def _content(content: Content, size: tuple[int, int] | None = None) -> ContentRecord:
    return ContentRecord.of(
        content.path,
        sha256=content.sha256,
        size=size,
        companions={
            kind: FileRecord.of(path, sha256=sha256)
            for kind, (path, sha256) in content.companions.items()
        },
    )


def _style(style: PlannedStyle) -> StyleRecord:
    images = [
        SourceRecord(region=region, path=as_text(path), sha256=sha256, weight=share)
        for region, sources in style.sources.items()
        for path, sha256, share in sources
    ]
    return StyleRecord(
        name=style.name,
        path=as_text(style.path),
        sha256=style.sha256,
        images=[] if style.is_plain else images,
    )


def resolved(config: Config) -> dict[str, Any]:
    """Return the whole configuration as plain data, each style with its complete recipe.

    Those of the inbox's folders have them, too: of each of their styles.
    """
    plain = config.model_dump(mode="json", exclude={"recipe"})
    for name, recipe in config.recipes().items():
        plain["styles"][name]["recipe"] = recipe.model_dump(mode="json")
    for folder in plain["folders"]:
        recipes = config.recipes(folder).items()
        plain["folders"][folder] = {
            "styles": {name: {"recipe": recipe.model_dump(mode="json")} for name, recipe in recipes}
        }
    return plain
