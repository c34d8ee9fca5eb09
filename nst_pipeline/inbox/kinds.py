"""What a name alone says: folders that the system keeps for itself, and files that are no pictures.

What has another suffix, or none, is looked at by its content.
"""

import contextlib
import re
from collections.abc import Container
from pathlib import Path

from nst_pipeline.folders import Folders

SYSTEM_FOLDERS = frozenset(
    (
        "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot",  # of NAS
        "$recycle.bin", "recycler", "system volume information",  # of Windows
        ".trashes", "__macosx",  # of macOS
        "lost+found",  # of Linux
    )
)  # fmt: skip
"""Names in lower case."""

STATE_NAME = ".nst-pipeline"
"""The state folder in the outbox of a run without settings."""
MANIFESTS_NAME = "manifests"
"""The folder in an outbox for what tells of each run."""
MANIFEST = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\.json")

OTHER_KINDS = frozenset(
    (
        # beside photographs: edits, thumbnails, previews of videos, colours
        "aae", "xmp", "pp3", "dop", "cos", "cosessiondb", "on1", "thm", "lrv", "icc", "icm", "cube",
        "lrcat", "lrdata",
        # videos
        "mov", "mp4", "m4v", "avi", "mkv", "webm", "mpg", "mpeg", "mts", "m2ts", "3gp", "3g2",
        "wmv", "flv", "ogv", "vob", "insv", "srt",
        # sound
        "mp3", "m4a", "wav", "flac", "aac", "ogg", "opus", "wma", "aif", "aiff", "amr", "mid",
        # texts, tables, slides
        "txt", "md", "rtf", "pdf", "doc", "docx", "odt", "pages", "tex", "epub", "htm", "html",
        "eml", "xls", "xlsx", "ods", "numbers", "csv", "tsv", "ppt", "pptx", "odp", "log", "nfo",
        # data and programs
        "json", "yaml", "yml", "toml", "xml", "ini", "cfg", "conf", "db", "sqlite", "gpx", "kml",
        "sh", "bat", "cmd", "ps1", "py", "js", "css", "php", "exe", "msi", "dll", "so", "apk",
        "sha1", "sha256", "md5", "par2", "torrent", "bak",
        # links and archives
        "lnk", "url", "webloc", "desktop",
        "zip", "rar", "7z", "gz", "tgz", "bz2", "xz", "zst", "tar", "iso", "dmg",
    )
)  # fmt: skip
"""Suffixes in lower case, without their dot."""


def is_no_picture(name: str) -> bool:
    """Tell whether a file of this name is of a kind that is no picture."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and suffix.lower() in OTHER_KINDS


def is_outbox(folder: Path, names: Container[str], folders: Folders) -> bool:
    """Tell whether a folder, by the names of what is in it, is the outbox of an earlier run."""
    if STATE_NAME in names:
        return True
    if MANIFESTS_NAME in names:
        with contextlib.suppress(OSError):
            return any(map(MANIFEST.fullmatch, folders.names(folder / MANIFESTS_NAME)))
    return False
