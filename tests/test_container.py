"""The container's files, as far as they can be tried without one."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml
from support import Watch, make_home

from nst_pipeline.config.pipeline import WatchSettings
from nst_pipeline.daemon.ending import STEP_SECONDS

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def instructions(kind: str) -> list[str]:
    """Return what stands behind each instruction of a kind, on one line."""
    return re.findall(rf"^{kind} +(.*)", LINES, re.MULTILINE)


def test_the_image_is_built_from_all_that_the_package_needs(tmp_path: Path) -> None:
    source = tmp_path / "src"
    sent = set((ROOT / ".dockerignore").read_text().split("\n"))
    for line in instructions("COPY"):
        *names, target = line.split()
        if names[0].startswith("--from"):
            continue
        for name in names:
            assert f"!{name}" in sent
            place = Path(str(source) + target.removeprefix("/src"))
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        check=True, capture_output=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {name.partition("/")[2] for name in wheel.namelist()}
    assert "data/share/man/man1/nst-pipeline.1" in held
    tracked = subprocess.run(
        ["git", "ls-files", "nst_pipeline"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name.partition("/")[2] for name in tracked.stdout.splitlines()} <= held


def test_nobody_special_runs_the_program_and_watches_by_default() -> None:
    (user,) = instructions("USER")
    assert user.isdecimal() and int(user) > 0
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["nst-pipeline"]
    assert json.loads(instructions("CMD")[0]) == ["watch"]


def test_a_container_is_healthy_while_the_daemon_lives(tmp_path: Path) -> None:
    check = json.loads(LINES[LINES.index("HEALTHCHECK") :].partition("CMD ")[2].split("\n")[0])
    home, program = make_home(tmp_path / "home"), tmp_path / "nst-pipeline"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nst_pipeline "$@"\n')
    program.chmod(0o755)
    settings = {
        "NST_PIPELINE_CONFIG": str(home / "pipeline.yaml"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def healthy() -> bool:
        return not subprocess.run(check, env={**os.environ, **settings}, check=False).returncode

    assert not healthy()
    with Watch(home) as watch:
        watch.until_idle()
        assert healthy()
        assert watch.stop() == 0
    assert not healthy()


def test_compose_confines_each_variant_and_lets_it_stop_in_time() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"cpu", "cuda"}
    for variant, service in services.items():
        assert service["build"]["args"] == {"VARIANT": variant}
        assert f"FROM base AS torch-{variant}" in LINES
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["tmpfs"] == ["/tmp"] and service["volumes"][0].endswith(":/data")
        grace = int(service["stop_grace_period"].rstrip("s"))
        assert grace >= WatchSettings().stop_seconds + STEP_SECONDS
