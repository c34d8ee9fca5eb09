"""The service: its unit, its help, and what costs nothing to start."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import configure, draw, make_home, program

from nst_pipeline.config.pipeline import load, parse
from nst_pipeline.daemon import service
from nst_pipeline.daemon.access import Account, barrier
from nst_pipeline.daemon.ending import end_seconds
from nst_pipeline.errors import CannotCreateError, ConfigError
from nst_pipeline.workers import cluster

SCRIPT = Path(__file__).parents[2] / "scripts" / service.UNIT_NAME
ANALYZE = shutil.which("systemd-analyze")
SYSTEMD = shutil.which("systemd", path="/usr/lib/systemd:/lib/systemd")


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
    assert float(found[1]) <= 1.0


def test_the_shipped_unit_is_what_the_program_writes(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    folder = Path("/var/lib/nst-pipeline")
    configure_text = (
        f"inbox: {folder}/inbox\noutbox: {folder}/outbox\nstate: {folder}/state\n"
        f"processed: {folder}/processed\nfailed: {folder}/failed\nstyles: {{s: /etc/passwd}}\n"
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


def test_the_live_page_keeps_the_network(home: Path, tmp_path: Path) -> None:
    assert "\nPrivateNetwork=yes" in unit_of(home, tmp_path).read_text()
    configure(home, http=9464)
    assert "\nPrivateNetwork" not in unit_of(home, tmp_path).read_text()


def test_the_url_of_a_hook_keeps_the_network_and_a_command_does_not(
    home: Path, tmp_path: Path
) -> None:
    configure(home, on_failed={"command": ["true"]})
    assert "\nPrivateNetwork=yes" in unit_of(home, tmp_path).read_text()
    configure(home, on_failed={"url": "https://example.org/x"})
    assert "\nPrivateNetwork" not in unit_of(home, tmp_path).read_text()


@pytest.mark.parametrize(("address", "hides"), [("auto", "no"), ("local", "yes")])
def test_the_unit_lets_a_cluster_be_reached_and_its_workers_end(address: str, hides: str) -> None:
    data = {
        "styles": {"s": "/etc/passwd"},
        "watch": {"stop_seconds": 5},
        "cluster": {"address": address},
    }
    where = Path("/srv/pictures/pipeline.yaml")
    unit = service.render(parse(data, where.parent), where, command="/opt/bin/nst")
    assert "PrivateNetwork" not in unit and "IPAddressDeny" not in unit
    assert ("-/tmp" in unit) == (hides == "no")
    assert setting_of(f"PrivateTmp={hides}", unit) and setting_of("KillMode=mixed", unit)
    assert setting_of("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", unit)
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
    longest = cluster.HALTED_SECONDS + cluster.CLOSE_SECONDS + cluster.LOST_SECONDS
    assert 5 + longest < int(seconds) == end_seconds(parse(data, where.parent))


def test_the_unit_hides_no_hook_and_the_service_must_reach_it(
    anybodys_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, secret = anybodys_folder / "notify", anybodys_folder / "secret"
    for path in (program, secret):
        path.touch(0o755)
    data = {
        "styles": {"s": "/etc/passwd"},
        "on_done": {"command": [str(program)], "url": "https://h/", "secret_file": str(secret)},
    }
    monkeypatch.setattr(service, "_programs", lambda: [Path("/usr/bin/env")])
    where = Path("/srv/pictures/pipeline.yaml")
    config = parse(data, where.parent)
    assert setting_of("PrivateTmp=no", service.render(config, where, command="/opt/bin/nst"))
    assert service.barriers(config, where) == []
    secret.chmod(0o600)
    program.chmod(0o744)
    found = {line.split(":")[0] for line in service.barriers(config, where)}
    assert found == {str(secret), str(program)}


def test_wrong_settings_end_the_daemon_at_once_with_78(home: Path) -> None:
    (home / "style.png").write_text("no picture")
    done = program(home, "watch")
    assert done.returncode == 78 and "styles.s" in done.stderr
    with pytest.raises(ConfigError, match="no address"):
        configure(home, http="nowhere")


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


# What the unit must let the service see

ODD = 'it\'s a\ttab "q" b\\s 100% $HOME @TMP@ é'


def parsed(unit: str, folder: Path) -> dict[str, set[str]]:
    """Return a unit's settings as systemd understands them."""
    if SYSTEMD is None:
        pytest.skip("needs systemd (apt-get install systemd)")
    (folder / service.UNIT_NAME).write_text(unit)
    done = subprocess.run(
        # Not as root: then it would look for the machine's own boot.
        ["setpriv", "--reuid=65534", "--clear-groups", SYSTEMD, "--test", "--system",
         f"--unit={service.UNIT_NAME}"],
        env={"SYSTEMD_UNIT_PATH": f"{folder}:"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[str, set[str]] = {}
    text = done.stdout.partition(f"Unit {service.UNIT_NAME}:")[2].partition("-> Unit ")[0]
    for line in text.splitlines():
        name, _, value = line.strip().partition(": ")
        found.setdefault(name, set()).add(value.removesuffix(" (origin-file)"))
    return found


def test_systemd_reads_any_path_as_it_is(
    anybodys_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(anybodys_folder / ODD)
    monkeypatch.setattr(sys, "executable", f"/opt/{ODD}/bin/python")
    unit = service.render(load(home / "pipeline.yaml"), home / "pipeline.yaml")
    found = parsed(unit, anybodys_folder)
    assert found["ReadWritePaths"] == {f"-{home}"}
    assert {f"{home}/inbox", f"{home}/outbox"} <= found["RequiresMountsFor"]
    (start,) = [line for line in found["Command Line"] if "watch" in line]
    # It prints a command line as a unit file has it; no program has a quote in its name.
    words = shlex.split(start.replace("\\t", "\t").replace("\\$\\$", "$"))
    assert words == ["/usr/bin/env", sys.executable, "-m", "nst_pipeline", "watch", "-c",
                     f"{home}/pipeline.yaml"]  # fmt: skip


def test_a_program_with_such_a_name_is_started_by_env(tmp_path: Path) -> None:
    program = tmp_path / ODD
    program.write_text('#!/bin/sh\nprintf %s "$1"\n')
    program.chmod(0o755)
    done = subprocess.run(["/usr/bin/env", program, "x"], capture_output=True, text=True)
    assert done.stdout == "x"
    with pytest.raises(CannotCreateError, match="no unit can start"):
        service._program("/opt/a=b's/python")


@pytest.mark.parametrize("name", ["a\nExecStartPre=forged", "a\rb", "a\x1bb", "a\x85b", b"a\xff"])
def test_a_path_that_no_unit_can_hold_is_refused(tmp_path: Path, name: str | bytes) -> None:
    home = make_home(tmp_path / os.fsdecode(name))
    with pytest.raises(CannotCreateError, match="a unit cannot hold this name"):
        service.render(load(home / "pipeline.yaml"), home / "pipeline.yaml", user=True)


@pytest.mark.parametrize(
    ("below", "setting"),
    [("/tmp", "PrivateTmp=no"), ("/var/tmp", "PrivateTmp=no"), ("/home", "ProtectHome=read-only"),
     ("/root", "ProtectHome=read-only")],
)  # fmt: skip
@pytest.mark.parametrize("what", ["inbox", "styles", "folder", "python", "link"])
def test_the_unit_hides_nothing_that_the_service_needs(
    below: str, setting: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path("/srv/pictures/pipeline.yaml")
    changes: dict[str, object] = {"styles": {"s": "/etc/passwd"}}
    command: str | None = "/opt/bin/nst-pipeline"
    monkeypatch.setattr(sys, "executable", "/usr/bin/python")
    monkeypatch.setattr(service, "_programs", lambda: [Path(f"{below}/python3.11")])

    def unit() -> str:
        return service.render(parse(changes, plain.parent), plain, command=command)

    assert not setting_of(setting, unit())
    if what == "inbox":
        changes["inbox"] = f"{below}/inbox"
    elif what == "python":
        command = None
    else:
        try:
            folder = Path(tempfile.mkdtemp(dir=below))
        except OSError as error:
            pytest.skip(f"no folder can be made in {below}: {error}")
        (folder / "style.png").touch()
        (folder / "inbox").mkdir()
        if what == "styles":
            changes["styles"] = {"s": f"{folder}/style.png"}
        elif what == "folder":
            changes["styles"] = f"{folder}/*.png"
        else:
            link = Path("/dev/shm") / folder.name  # noqa: S108 - hidden by nothing
            link.symlink_to(folder / "inbox")
            changes["inbox"] = str(link)
    try:
        text = unit()
        assert setting_of(setting, text)
        if what == "link":
            assert f" -{folder}" in re.findall("ReadWritePaths=(.*)", text)[0]
            assert str(folder / "inbox") in re.findall("RequiresMountsFor=(.*)", text)[0]
    finally:
        if what in ("styles", "folder", "link"):
            shutil.rmtree(folder)
        if what == "link":
            link.unlink()


def setting_of(setting: str, unit: str) -> bool:
    return setting in unit.splitlines()


def test_every_link_to_this_python_is_looked_at() -> None:
    programs = service._programs()
    assert programs[0] == Path(sys.executable)
    assert Path(sys.executable).resolve() in [path.resolve() for path in programs]
    assert Path(os.__file__) in programs


def test_a_service_whose_user_cannot_reach_what_it_needs_is_not_installed(
    anybodys_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(anybodys_folder / "home")
    config, units = load(home / "pipeline.yaml"), anybodys_folder / "units"
    monkeypatch.setattr(service, "SYSTEM_FOLDER", units)
    monkeypatch.setattr(service, "_programs", lambda: [Path("/usr/bin/env")])
    assert service.barriers(config, home / "pipeline.yaml") == []
    (home / "style.png").chmod(0o600)
    with pytest.raises(CannotCreateError, match=r"style.png: .* cannot pass .*mode 0600, of root"):
        service.install(config, home / "pipeline.yaml", user=False)
    (home / "style.png").chmod(0o644)
    (home / "paintings").mkdir(mode=0o711)
    (found,) = service.barriers(configure(home, styles="paintings"), home / "pipeline.yaml")
    assert f"cannot pass {home}/paintings (mode 0711, of root)" in found
    home.chmod(0o700)
    (found,) = service.barriers(config, home / "pipeline.yaml")
    assert f"cannot pass {home} (mode 0700, of root)" in found
    assert not units.exists()
    home.chmod(0o711)
    assert service.install(config, home / "pipeline.yaml", user=False).is_file()


@pytest.mark.parametrize(
    ("mode", "account", "may"),
    [
        (0o700, Account(0, frozenset()), True),
        (0o077, Account(0, frozenset((0,))), False),
        (0o750, Account(1, frozenset((0,))), True),
        (0o707, Account(1, frozenset((0,))), False),
        (0o705, Account(None, frozenset()), True),
        (0o770, Account(None, frozenset()), False),
    ],
)
def test_an_account_may_what_the_first_that_fits_of_owner_group_and_others_grants(
    anybodys_folder: Path, mode: int, account: Account, may: bool
) -> None:
    file = anybodys_folder / "file"
    file.touch()
    os.chown(file, 0, 0)
    file.chmod(mode)
    assert account.may(file, os.R_OK | os.X_OK) == may
    assert barrier(file, account, os.R_OK) == (None if may else file)
