"""What Ray says of what went wrong, and what it means."""

from nst_pipeline.files import shown


def last_line(error: BaseException) -> str:
    """Return the last line of what an error says, for people."""
    lines = str(error).strip().splitlines()
    return shown(lines[-1]) if lines else type(error).__name__


def cause(error: BaseException) -> str:
    """Return what Ray says of a death, without advice."""
    text = str(error)
    for sign, meaning in CAUSES.items():
        if sign in text:
            return meaning
    return f"{type(error).__name__}: {last_line(error)}"


LOST = ("owner has died", "Owner's node has crashed", "Owner's worker process has crashed")
"""What Ray says of an actor whose driver, this process, it takes for dead."""
CAUSES = {
    "low on memory": "it was ended for want of memory",
    "node was terminated": "its node is gone",
    "node died": "its node is gone",
    "connection error code": "its process was killed, or crashed",
}
"""What Ray says of a death, and what it means; the first that fits."""
