"""The systemd unit, made to fit the settings."""

import os
import re
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

import nst_pipeline
from nst_pipeline.config.pipeline import Config
from nst_pipeline.daemon.access import Account, barrier
from nst_pipeline.daemon.ending import end_seconds
from nst_pipeline.errors import CannotCreateError
from nst_pipeline.files import cause, owner, publish, shown
from nst_pipeline.folders import make_folder
from nst_pipeline.inbox.style_folders import searched_folders
from nst_pipeline.runner.commands import find

UNIT_NAME = "nst-pipeline.service"
TEMPLATE = Path(__file__).with_name(UNIT_NAME)
SYSTEM_FOLDER = Path("/etc/systemd/system")
WATCHDOG_SECONDS = 600
HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
"""Hidden by ProtectHome=yes."""
TEMPORARY = tuple(map(Path, ("/tmp", "/var/tmp")))  # noqa: S108 - it is asked what lies there
"""Hidden by PrivateTmp=yes."""
USER = "nst-pipeline"

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
PrivateTmp=@TMP@
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

NO_NETWORK = """\
# Nothing is fetched. (With http, a hook's url or a cluster, `install-service` leaves this out. The
# command of a hook that needs the network gets it by a drop-in with PrivateNetwork=no,
# IPAddressDeny= and RestrictAddressFamilies=AF_INET AF_INET6.)
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=AF_UNIX"""

NETWORK = """# For http, the url of a hook, or a cluster.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"""

CLUSTER_NETWORK = """# For the cluster, whose library looks up the addresses of this machine, too.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"""


def render(
    config: Config, config_path: Path, user: bool = False, command: str | None = None
) -> str:
    """Return the unit's text.

    Args:
        config: the settings.
        config_path: where they stand.
        user: for the user's own service manager, which cannot protect as much.
        command: what starts nst-pipeline; this very Python if not given.

    Raises:
        CannotCreateError: a unit cannot hold one of the paths.
    """
    config_path = config_path.absolute()
    written = _covering(_with_real([*folders(config), config.processed, config.failed]))
    if config.metrics.textfile is not None:
        written.append(config.metrics.textfile.parent)
    programs = [Path(command.split(" ")[0])] if command else _programs()
    programs += _hook_programs(config)
    paths = _with_real([*written, *programs, *_files(config, config_path)])
    shares_tmp = _are_below(TEMPORARY, paths) or _joins_cluster(config)
    if shares_tmp and config.cluster.address:
        written.append(TEMPORARY[0])
    values = {
        "IDENTITY": "" if user else IDENTITY.rstrip("\n"),
        "NETWORK": _network(config),
        "HOME": "read-only" if _are_below(HOMES, paths) else "yes",
        "TMP": "no" if shares_tmp else "yes",
        "USERFLAG": "--user " if user else "",
        "EXEC": command or f"{_program(sys.executable)} -m nst_pipeline",
        "CONFIG": _argument(config_path),
        "FOLDERS": " ".join(map(_quoted, _with_real([config.inbox, config.outbox]))),
        "PATHS": " ".join(f"-{_quoted(path)}" for path in written),
        "STOP": f"{end_seconds(config):.0f}s",
        "WATCHDOG": f"{WATCHDOG_SECONDS}s",
        "TARGET": "default.target" if user else "multi-user.target",
    }
    hardening = (USER_HARDENING if user else HARDENING).rstrip("\n")
    text = TEMPLATE.read_text(encoding="utf-8").replace("@HARDENING@", hardening)
    # All at once, for a path may hold what looks like a place for another value.
    return re.sub("@([A-Z]+)@", lambda match: values[match[1]], text)


def install(config: Config, config_path: Path, user: bool) -> Path:
    """Write the unit to where systemd looks for it; return its path.

    Raises:
        CannotCreateError: that, or one of the settings' folders, cannot be made, or the service
            could not start.
    """
    path = unit_path(user)
    text = render(config, config_path, user)
    if not user and (problems := barriers(config, config_path)):
        raise CannotCreateError("\n".join([*problems, f"{shown(path)}: not written"]))
    for folder in folders(config):
        try:
            make_folder(folder)
        except OSError as error:
            raise CannotCreateError(f"{shown(folder)}: {cause(folder, error)}") from error
    publish(path, text.encode())
    return path


def barriers(config: Config, config_path: Path) -> list[str]:
    """Return what keeps the service's user from what the service needs, a line each."""
    account = Account.named(USER)
    files = [*_programs(), *_files(config, config_path.absolute())]
    found = [(path, barrier(path, account, os.R_OK)) for path in files]
    found += [(path, barrier(path, account, os.X_OK)) for path in _hook_programs(config)]
    # The folders themselves are given to the user.
    found += [(path, barrier(path.parent, account, os.X_OK)) for path in folders(config)]
    firsts = {place: path for path, place in reversed(found) if place}
    return [
        f"{shown(path)}: the service's user {USER} cannot pass {shown(place)} (mode "
        f"{stat.S_IMODE(place.stat().st_mode):04o}, of {owner(place)}); put the file elsewhere, "
        "such as below /opt or /srv, or give --user"
        for place, path in firsts.items()
    ]


def unit_path(user: bool) -> Path:
    """Return where the unit goes."""
    if not user:
        return SYSTEM_FOLDER / UNIT_NAME
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "systemd" / "user" / UNIT_NAME


def folders(config: Config) -> tuple[Path, ...]:
    """Return the folders of the settings that must be there, and be the service's own."""
    return config.inbox, config.outbox, config.state


def _programs() -> list[Path]:
    """Return what must be seen to start this Python: each link to it, its library, and ours."""
    found = [Path(sys.executable).absolute()]
    while found[-1].is_symlink() and len(found) < 40:  # the kernel follows no more either
        found.append(found[-1].parent / found[-1].readlink())
    library = Path(os.__file__)
    return [*found, Path(sys.prefix), library, Path(str(nst_pipeline.__file__))]


def _files(config: Config, config_path: Path) -> list[Path]:
    """Return the files that the service reads."""
    images = [path for style in config.styles.values() for path in style.paths()]
    weights = [Path(config.weights)] if Path(config.weights).is_absolute() else []
    secrets = [hook.secret_file for hook in config.hooks.values() if hook.secret_file]
    return [config_path, *images, *searched_folders(config), *weights, *secrets]


def _hook_programs(config: Config) -> list[Path]:
    """Return the programs that hooks start, as far as they are there."""
    commands = (hook.command for hook in config.hooks.values() if hook.command)
    return [Path(path) for command in commands if (path := find(command[0]))]


def _network(config: Config) -> str:
    if config.cluster.address:
        return CLUSTER_NETWORK
    return NETWORK if config.http or _has_urls(config) else NO_NETWORK


def _joins_cluster(config: Config) -> bool:
    """Tell whether the service uses a node that others began, whose sockets lie in /tmp/ray."""
    return config.cluster.address not in (None, "local")


def _has_urls(config: Config) -> bool:
    return any(hook.url for hook in config.hooks.values())


def _with_real(paths: list[Path]) -> list[Path]:
    """Return some paths, and those that they lead to by links, each once."""
    return list(dict.fromkeys((*paths, *(Path(os.path.realpath(path)) for path in paths))))


def _are_below(folders: Iterable[Path], paths: Iterable[Path]) -> bool:
    """Tell whether a path lies in one of some folders."""
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _covering(folders: list[Path]) -> list[Path]:
    """Return few paths that hold all folders, none of them at the top of the file system."""
    parents = {f.parent if len(f.parent.parts) > 2 else f for f in folders}
    return sorted(p for p in parents if not any(p != q and p.is_relative_to(q) for q in parents))


def _program(path: str) -> str:
    """Return a program as a command line begins with it."""
    # systemd takes none with such characters for a program, but `env` does.
    prefix = "/usr/bin/env " if set("\"'\\\t$") & set(path) else ""
    if prefix and "=" in path:
        raise CannotCreateError(f"{shown(path)}: no unit can start a program of this name")
    return prefix + _argument(path)


def _argument(path: object) -> str:
    return _quoted(path).replace("$", "$$")


def _quoted(path: object) -> str:
    """Return a path as a unit file holds it.

    Raises:
        CannotCreateError: it cannot: the path is no text, or holds control characters.
    """
    text = str(path)
    if shown(text.replace("\t", "")) != text.replace("\t", ""):
        raise CannotCreateError(
            f"{shown(text)}: a unit cannot hold this name: rename what has control characters in it"
        )
    text = text.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return text if re.fullmatch(r"[\w/.,:@%+=~-]+", text) else f'"{text}"'
