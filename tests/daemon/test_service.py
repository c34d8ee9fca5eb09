"""The service: its unit, its help, and what costs nothing to start."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import configure, draw, make_home, program

from nst_pipeline.config.pipeline import load
from nst_pipeline.daemon import service
from nst_pipeline.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "scripts" / service.UNIT_NAME
ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


def unit_of(home: Path, folder: Path, *arguments: str) -> Path:
    """Return the file that `install-service --print` would make."""
    done = program(home, "install-service", "--print", *arguments)
    assert done.returncode == 0, done.stderr
    path = folder / service.UNIT_NAME
    path.write_text(done.stdout)
    return path


@pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (apt-get install systemd)")
@pytest.mark.parametrize("arguments", [[], ["--user"]])
def test_the_unit_has_no_mistakes(home: Path, tmp_path: Path, arguments: list[str]) -> None:
    path = unit_of(home, tmp_path, *arguments)
    mode = ["--user"] if arguments else []
    done = subprocess.run(
        [str(ANALYZE), *mode, "--man=no", "verify", path],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if service.UNIT_NAME in line]
    assert done.returncode == 0 and not ours, done.stderr


@pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (apt-get install systemd)")
def test_the_unit_exposes_little(home: Path, tmp_path: Path) -> None:
    path = unit_of(home, tmp_path)
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--no-pager", path],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level.*: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.5


def test_the_shipped_unit_is_what_the_program_writes(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    folder = Path("/var/lib/nst-pipeline")
    (tmp_path / "style.png").touch()
    configure_text = (
        f"inbox: {folder}/inbox\noutbox: {folder}/outbox\nstate: {folder}/state\n"
        f"processed: {folder}/processed\nfailed: {folder}/failed\nstyles: {{s: style.png}}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(configure_text)
    made = service.render(
        load(tmp_path / "pipeline.yaml"),
        Path("/etc/nst-pipeline/pipeline.yaml"),
        command="/opt/nst-pipeline/bin/nst-pipeline",
    )
    assert text == made


def test_nothing_that_breaks_the_gpu_is_set(home: Path, tmp_path: Path) -> None:
    lines = unit_of(home, tmp_path).read_text().splitlines()
    for setting in ("PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset"):
        assert not any(line.startswith(setting) for line in lines)


def test_metrics_over_http_keep_the_network(home: Path, tmp_path: Path) -> None:
    assert "\nPrivateNetwork=yes" in unit_of(home, tmp_path).read_text()
    configure(home, metrics={"http": 9464})
    assert "\nPrivateNetwork" not in unit_of(home, tmp_path).read_text()


def test_wrong_settings_end_the_daemon_at_once_with_78(home: Path) -> None:
    (home / "style.png").write_text("no picture")
    done = program(home, "watch")
    assert done.returncode == 78 and "styles.s" in done.stderr
    with pytest.raises(ConfigError, match="no address"):
        configure(home, metrics={"http": "nowhere"})


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["status"], ["pause"], ["resume"], ["cancel", "a.png"], ["retry", "a.png"]],
)
def test_what_controls_the_daemon_imports_no_torch(home: Path, arguments: list[str]) -> None:
    draw(home / "inbox/a.png")
    code = (
        "import sys; from nst_pipeline.cli import main\n"
        f"sys.argv = ['nst-pipeline', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retry"], "name files, or give --all-failed"),
        (["retry", "x.png"], "no ledger yet"),
        (["cancel", "x.png"], "no ledger yet"),
        (["watch", "--log-format", "xml"], "auto, human, json or journald"),
    ],
)
def test_wrong_usage_says_what_is_right(home: Path, arguments: list[str], message: str) -> None:
    done = program(home, *arguments)
    assert done.returncode == 64 and message in done.stderr


def test_a_name_begins_no_setting_of_the_unit(tmp_path: Path) -> None:
    home = make_home(tmp_path / "a\nExecStartPre=forged\x85 b\\c")
    text = service.render(load(home / "pipeline.yaml"), home / "pipeline.yaml", user=True)
    assert not [line for line in text.splitlines() if line.startswith("ExecStartPre=forged")]
    assert r"a\nExecStartPre=forged\x85 b\\c/pipeline.yaml" in text
