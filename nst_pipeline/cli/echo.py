"""Text for people, on standard output and standard error."""

import typer

from nst_pipeline.files import shown


def say(text: str, err: bool = False) -> None:
    """Print lines that end and move nothing but themselves, whoever wrote what is in them."""
    for line in text.split("\n"):
        typer.echo(shown(line), err=err)
