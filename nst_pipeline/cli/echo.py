"""Text for people, on standard output and standard error."""

import typer

from nst_pipeline.files import shown


def say(text: str, err: bool = False) -> None:
    """Print lines that end and move nothing but themselves, whoever wrote what is in them."""
    for line in text.split("\n"):
        typer.echo(shown(line), err=err)


def duration(seconds: float) -> str:
    """Return a time for people, as long as they care for: *40 s*, *12 min*, *3 h 20 min*."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if hours < 48 else f"{round(hours / 24)} days"
