"""The systemd unit, made to fit the settings."""

import os
import sys
from pathlib import Path

from nst_pipeline.config.pipeline import Config
from nst_pipeline.errors import CannotCreateError
from nst_pipeline.files import publish, shown
from nst_pipeline.folders import make_folder

UNIT_NAME = "nst-pipeline.service"
TEMPLATE = Path(__file__).with_name(UNIT_NAME)
SYSTEM_FOLDER = Path("/etc/systemd/system")
STOP_MARGIN_SECONDS = 30
WATCHDOG_SECONDS = 600
HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))

IDENTITY = """User=nst-pipeline
StateDirectory=nst-pipeline
CacheDirectory=nst-pipeline
LogsDirectory=nst-pipeline
RuntimeDirectory=nst-pipeline
ConfigurationDirectory=nst-pipeline
WorkingDirectory=%S/nst-pipeline
# Where the ImageNet weights are looked for, and where libraries may leave things.
Environment=XDG_CACHE_HOME=%C/nst-pipeline HOME=%S/nst-pipeline
UMask=0022
"""

USER_HARDENING = """NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""

HARDENING = """ProtectHome=@HOME@
PrivateTmp=yes
PrivateIPC=yes
PrivateUsers=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
@NETWORK@
# The GPU. Every one of these is needed; a missing one looks like a missing GPU.
DevicePolicy=closed
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidiactl rw
DeviceAllow=char-nvidia-uvm rw
DeviceAllow=char-nvidia-caps rw
"""

NO_NETWORK = """# Nothing is fetched. (With metrics.http, `install-service` leaves this out.)
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=AF_UNIX"""

LOCAL_NETWORK = """# For metrics.http.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"""


def render(
    config: Config, config_path: Path, user: bool = False, command: str | None = None
) -> str:
    """Return the unit's text.

    Args:
        config: the settings.
        config_path: where they stand.
        user: for the user's own service manager, which cannot protect as much.
        command: what starts nst-pipeline; this very Python if not given.
    """
    command = command or f"{_escaped(sys.executable)} -m nst_pipeline"
    folders = (config.inbox, config.outbox, config.state, config.processed, config.failed)
    paths = _covering(list(folders))
    if config.metrics.textfile is not None:
        paths.append(config.metrics.textfile.parent)
    in_home = any(
        path.is_relative_to(home)
        for path in (*paths, config_path.absolute(), Path(command.split(" ")[0]))
        for home in HOMES
    )
    hardening = USER_HARDENING if user else HARDENING
    network = LOCAL_NETWORK if config.metrics.http else NO_NETWORK
    watch = config.watch
    values = {
        "HARDENING": hardening.rstrip("\n"),
        "IDENTITY": "" if user else IDENTITY.rstrip("\n"),
        "NETWORK": network,
        "HOME": "read-only" if in_home else "yes",
        "USERFLAG": "--user " if user else "",
        "EXEC": command,
        "CONFIG": _escaped(str(config_path.absolute())),
        "FOLDERS": " ".join(_escaped(str(f)) for f in (config.inbox, config.outbox)),
        "PATHS": " ".join(f"-{_escaped(str(path))}" for path in paths),
        "STOP": f"{watch.stop_seconds + STOP_MARGIN_SECONDS:.0f}s",
        "WATCHDOG": f"{max(WATCHDOG_SECONDS, 3 * watch.rescan_seconds):.0f}s",
        "TARGET": "default.target" if user else "multi-user.target",
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def install(config: Config, config_path: Path, user: bool) -> Path:
    """Write the unit to where systemd looks for it; return its path.

    Raises:
        CannotCreateError: that, or one of the settings' folders, cannot be made.
    """
    path = unit_path(user)
    try:
        for folder in (config.inbox, config.outbox, config.state):
            make_folder(folder)
    except OSError as error:
        raise CannotCreateError(f"{shown(error.filename)}: {error.strerror}") from error
    publish(path, render(config, config_path, user).encode())
    return path


def unit_path(user: bool) -> Path:
    """Return where the unit goes."""
    if not user:
        return SYSTEM_FOLDER / UNIT_NAME
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "systemd" / "user" / UNIT_NAME


def _covering(folders: list[Path]) -> list[Path]:
    """Return few paths that hold all folders, none of them at the top of the file system."""
    parents = {f.parent if len(f.parent.parts) > 2 else f for f in folders}
    return sorted(p for p in parents if not any(p != q and p.is_relative_to(q) for q in parents))


def _escaped(text: str) -> str:
    """Return a path as a unit file holds it."""
    # What `shown` escapes, systemd reads: a line's end in a name must not begin a setting.
    text = shown(text.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"'))
    return f'"{text}"' if {" ", "\\"} & set(text) else text
