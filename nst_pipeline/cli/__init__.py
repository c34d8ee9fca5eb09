"""The command line: parses arguments, calls one function, prints what came of it.

It is the only package that knows typer and rich, and nothing may import it. It must not decide
anything that a caller from Python would want too: that belongs to what it calls.
"""

from nst_pipeline.cli.app import main

__all__ = ["main"]
