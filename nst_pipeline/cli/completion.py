"""What a shell completes the values of options with."""

from collections.abc import Callable
from pathlib import Path

import typer

from nst_pipeline import CONFIG_NAME

# Imports of more than a few milliseconds stand inside the functions, so that --help is instant.

Complete = Callable[[str], list[str]]


def one_of(*words: str) -> Complete:
    """Return what completes with one of ``words``."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def style_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the settings' styles that begin so; none if the settings cannot be read."""
    from nst_pipeline.config.pipeline import load
    from nst_pipeline.errors import ConfigError, UnreadableError
    from nst_pipeline.inbox.style_folders import StyleFolders

    try:
        config = load(context.params.get("config_path") or Path(CONFIG_NAME), with_images=False)
        styles = StyleFolders(config, 0).find().config.styles
    except (ConfigError, UnreadableError):
        return []
    return [name for name in styles if name.startswith(incomplete)]


devices = one_of("auto", "cpu", "cuda", "mps", "xpu")
weights = one_of("auto", "imagenet", "vgg16", "compact")
