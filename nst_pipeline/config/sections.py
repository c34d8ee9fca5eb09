"""Sections of pipeline.yaml: limits, what is kept, watching, the live page, metrics, a cluster."""

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nst_pipeline.config.memory import machine_bytes
from nst_pipeline.config.recipe import Settings
from nst_pipeline.config.settings import absolute_path


def _as_switch(value: Any) -> Any:
    """Take true and false too."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


SwitchName = Literal["auto", "on", "off"]
Switch = Annotated[
    SwitchName, BeforeValidator(_as_switch, json_schema_input_type=SwitchName | bool)
]


class Limits(Settings):
    """Bounds on what is accepted and kept."""

    max_pixels: int = Field(100_000_000, ge=1, description="Largest input, in pixels.")
    max_bytes: int = Field(256 * 2**20, ge=1, description="Largest input file, in bytes.")
    max_memory_bytes: Annotated[int, Field(ge=2**26)] | Literal["auto"] = Field(
        "auto",
        description="The most memory that a picture, its masks and a style may take to be decoded; "
        "auto: half of the machine's; of a cluster, each worker's part of that of its machine.",
    )
    cache_bytes: int = Field(
        512 * 2**20, ge=0, description="Style targets kept in the device's memory, in bytes."
    )
    min_free_bytes: int = Field(
        128 * 2**20, ge=0, description="Nothing is begun while the outbox has less room."
    )
    batch: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="Styles of one content painted together; auto: 1 on CPU, 8 on a GPU."
    )

    @property
    def memory_bytes(self) -> int:
        """The value of `max_memory_bytes`, with what ``auto`` stands for."""
        given = self.max_memory_bytes
        return machine_bytes() // 2 if given == "auto" else given

    def shared_by(self, workers: int) -> "Limits":
        """Return the limits of each of so many workers of this machine."""
        if self.max_memory_bytes != "auto":
            return self
        return self.model_copy(update={"max_memory_bytes": self.memory_bytes // workers})


class KeepSettings(Settings):
    """How much is kept of what piles up; the oldest is deleted first, after each run."""

    targets_bytes: int = Field(
        2**30, ge=0, description="Style targets kept on disk, in bytes; others are computed anew."
    )
    checkpoint_days: float = Field(
        7.0, ge=0, le=36_500,
        description="How long work in the middle is kept whose job does not wait to go on, such "
        "as one that was cancelled.",
    )  # fmt: skip
    manifests: int = Field(
        1000, ge=1,
        description="Manifests kept in the outbox, of all pipelines that share it; a daemon makes "
        "one a burst of work.",
    )  # fmt: skip


class WatchSettings(Settings):
    """How `watch` sees that a picture is complete, and how long things may take."""

    settle_seconds: float = Field(
        2.0, ge=0, le=3600, description="A file is ready once it did not change for so long."
    )
    grace_seconds: float = Field(
        60.0, ge=0, le=86400,
        description="How long what is empty, cut short or no image may still become one.",
    )  # fmt: skip
    rescan_seconds: float = Field(
        60.0, gt=0, le=86400, description="The inbox is read anew at least this often."
    )
    polling: Switch = Field(
        "auto",
        description="Whether to do without the file system's events; auto: where it sends none.",
    )
    poll_seconds: float = Field(
        5.0, gt=0, le=86400, description="How often the inbox is read without events."
    )
    urgent: str = Field(
        "urgent", description="Subfolder whose pictures come first; empty text: none."
    )
    stop_seconds: float = Field(
        60.0, ge=0, le=86400, description="How long a job may go on when told to stop."
    )
    max_attempts: int = Field(3, ge=1, le=1_000_000, description="Attempts at a job.")
    retry_seconds: float = Field(
        30.0, ge=0, le=86400, description="Before the second attempt; doubled for each further."
    )


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{address!r} is no address; give a port or HOST:PORT")
    return f"{host or LOOPBACK}:{port}"


def _check_host_name(name: str) -> str:
    if not re.fullmatch(HOST_NAME, name):
        raise ValueError(f"{name!r} is no host's name; write it as it stands in an address")
    return name.lower()


LOOPBACK = "127.0.0.1"
HOST_NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?"
Port = Annotated[int, Field(ge=0, le=65535)]
Address = Annotated[
    str,
    BeforeValidator(
        _as_text,
        json_schema_input_type=Port
        | Annotated[str, Field(json_schema_extra={"pattern": r"^(.*:)?[0-9]{1,5}$"})],
    ),
    AfterValidator(_check_address),
]
HostName = Annotated[
    str,
    AfterValidator(_check_host_name),
    Field(json_schema_extra={"pattern": f"^{HOST_NAME}$"}),
]


class HttpSettings(Settings):
    """Where `watch` serves the live page, the gallery, and its figures for Prometheus."""

    address: Address = Field(
        f"{LOOPBACK}:8080",
        description="PORT (on this machine alone) or HOST:PORT; port 0: any that is free.",
    )
    names: tuple[HostName, ...] = Field(
        (),
        description="Names that this machine is asked for by, besides its own and its addresses; "
        "whoever asks for another is refused.",
        examples=[["studio.lan"]],
    )

    @property
    def host(self) -> str:
        """The host of the address, without the brackets of IPv6."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of the address; 0: any."""
        return int(self.address.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can ask."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


def as_http(value: Any) -> Any:
    """Return the live page's settings that are given as its address alone."""
    return {"address": value} if isinstance(value, int | str) else value


HttpField = Annotated[
    HttpSettings, BeforeValidator(as_http, json_schema_input_type=Address | HttpSettings)
]
"""What pipeline.yaml holds as `http`: its settings, or an address alone."""


def _check_cluster(address: str) -> str:
    if not re.fullmatch(CLUSTER, address):
        raise ValueError(
            f"{address!r} is no cluster; give local, auto, HOST:PORT or ray://HOST:PORT"
        )
    return address


CLUSTER = r"local|auto|(ray://)?[^\s/:]+:[0-9]{1,5}"
ClusterAddress = Annotated[
    str,
    AfterValidator(_check_cluster),
    Field(json_schema_extra={"pattern": f"^({CLUSTER})$"}),
]


class ClusterSettings(Settings):
    """Which cluster of Ray paints, if one does, and with how many workers."""

    address: ClusterAddress | None = Field(
        None,
        description="local (one that is begun on this machine), auto (the one that this machine "
        "is a part of), HOST:PORT of its head (likewise), or ray://HOST:PORT (from any machine, by "
        "Ray's client); null: this process paints.",
    )
    workers: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = Field(
        "auto",
        description="How many workers; auto: as many as there is room for, as nodes come and go.",
    )
    gpus_per_worker: float = Field(
        1.0, gt=0, le=1, description="Of a GPU, what a worker has; 0.5: two share one."
    )
    cpus_per_worker: int = Field(
        1, ge=1, le=1024,
        description="Cores of a worker. Where there are no GPUs, it paints with so many threads.",
    )  # fmt: skip


class MetricsSettings(Settings):
    """Where `watch` leaves its figures for Prometheus; over HTTP, `http` serves them."""

    textfile: Annotated[Path, AfterValidator(absolute_path)] | None = Field(
        None,
        description="File for the node exporter's textfile collector.",
        examples=["/var/lib/node_exporter/textfile/nst_pipeline.prom"],
    )
