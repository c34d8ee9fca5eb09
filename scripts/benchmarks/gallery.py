"""What a gallery costs: its first update, and one after one more job, of invented records."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from nst_pipeline.config.pipeline import load
from nst_pipeline.digests import bytes_digest
from nst_pipeline.folders import Folders
from nst_pipeline.jobs.ledger import Ledger, ledger_path
from nst_pipeline.jobs.outcome import Failure
from nst_pipeline.jobs.planning import make_plan, make_scanner
from nst_pipeline.manifest import records
from nst_pipeline.manifest.model import CurveRecord, FileRecord, JobRecord, LossRecord
from nst_pipeline.manifest.recorder import Recorder

Row = dict[str, object]

STYLES = 4
SIDE = 192
"""Of contents and outputs, in pixels."""

# A child's maximum that the system tells its parent begins with the parent's own.
MEASURED = """
import time
begun = time.perf_counter()
from pathlib import Path
from nst_pipeline.config.pipeline import load
from nst_pipeline.gallery.site import update
config = load(Path("pipeline.yaml"))
started, busy = time.perf_counter(), time.process_time()
done = update(config)
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
print(time.perf_counter() - started, time.process_time() - busy, started - begun, peak, done.files)
"""


def measure(rounds: int | None = None, quick: bool = False, jobs: int = 10_000) -> list[Row]:
    """Measure in a temporary folder.

    Args:
        rounds: updates after one more content.
        quick: a hundredth of the jobs.
        jobs: of the gallery; a content has four.
    """
    with tempfile.TemporaryDirectory(prefix="nst-bench-") as folder:
        root = Path(folder)
        count = (jobs // 100 if quick else jobs) // STYLES
        make_place(root)
        paint(root, range(count))
        rows = [row(root, f"first update, {count * STYLES:,} jobs")]
        rows.append(row(root, "nothing new"))
        for number in range(rounds or 3):
            paint(root, range(count + number, count + number + 1))
            rows.append(row(root, f"one content more ({STYLES} jobs)"))
        (root / "outbox/000000-s0.jpg").unlink()
        return [*rows, row(root, "an output taken away")]


def row(root: Path, what: str) -> Row:
    """Update the gallery in a process of its own; return what that took."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=root, env=environment, stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    seconds, busy, start, peak, files = done.stdout.split()
    return {
        "what": what,
        "seconds": float(seconds),
        "of a core": float(busy),
        "start": float(start),
        "peak MB": int(peak) / 1024,
        "files": int(files),
    }


def make_place(root: Path) -> None:
    """Write the settings and the styles."""
    (root / "inbox").mkdir()
    styles = {f"s{number}": f"s{number}.jpg" for number in range(STYLES)}
    for number, name in enumerate(styles.values()):
        draw(root / name, -1 - number)
    plain = {"weights": "compact", "recipe": {"size": SIDE}, "styles": styles}
    plain |= {"output": {"format": "jpeg"}, "watch": {"settle_seconds": 0}}
    (root / "pipeline.yaml").write_text(json.dumps(plain))


def paint(root: Path, numbers: range) -> None:
    """Have contents painted by a run that paints nothing, but leaves all that one does."""
    for number in numbers:
        draw(root / f"inbox/{number:06}.jpg", number)
    config = load(root / "pipeline.yaml")
    with Ledger(ledger_path(config.state), is_relaxed=True) as ledger:
        plan = make_plan(config, ledger, make_scanner(config, None, 0))
        recorder = Recorder(
            config.outbox, plan.weights, records.resolved(config), ledger.runs, Folders()
        )
        recorder.begin()
        with ledger.transaction():
            ledger.jobs.add(plan.todo)
            for job in plan.todo:
                entry = ledger.jobs.of_source(job.content.path)[job.style.name, job.key]
                draw(job.output, int(job.key[:8], 16))
                sha256 = bytes_digest(job.output.read_bytes())
                ledger.jobs.start(entry.id)
                ledger.jobs.begin_commit(entry.id, job.output, job.output, sha256)
                ledger.jobs.finish(entry.id)
                recorder.finish(record_of(records.failed(job, Failure("")), job.output, sha256))
        skipped = (records.skipped(one, ledger.jobs.get(one.entry)) for one in plan.done)
        recorder.skip(skipped, len(plan.done))
        recorder.end("finished")


def record_of(bare: JobRecord, output: Path, sha256: str) -> JobRecord:
    """Return the record of a job that was painted in 300 steps."""
    loss = LossRecord(content=1.5, style=2.5, tv=0.25, total=4.25)
    steps = list(range(3, 150, 3))
    curve = [
        CurveRecord(size=(96, 144), steps=steps, losses=[100 / step for step in steps]),
        CurveRecord(size=(128, 192), steps=[150 + s for s in steps], losses=[9.5] * len(steps)),
    ]
    return bare.model_copy(
        update={
            "status": "done", "error": None, "iterations": 300, "stop_reason": "iterations",
            "output": FileRecord.of(output, sha256=sha256, size=(128, 192)), "curve": curve,
            "losses": {"start": loss, "end": loss}, "seconds": 12.5,
        }
    )  # fmt: skip


def draw(path: Path, seed: int) -> None:
    """Write a small picture with some detail, another for each seed."""
    noise = random.Random(seed).randbytes(24 * 16 * 3)
    image = Image.frombytes("RGB", (24, 16), noise)
    path.parent.mkdir(exist_ok=True)
    image.resize((SIDE, SIDE * 2 // 3), Image.Resampling.BICUBIC).save(path, quality=85)
