"""What Ray says of what went wrong, and what it means."""

from nst_pipeline.errors import PipelineError
from nst_pipeline.files import shown

INSTALL = "pip install 'nst-pipeline[cluster]'"
CLIENT = "ray://"
"""What an address begins with that is for Ray's client, which needs no node on its machine."""


def start(address: str) -> str:
    """Return how to have a cluster at an address that none answers at, for people."""
    if address.startswith(CLIENT):
        return (
            "`ray start --head` begins one, which hears clients at its port 10001, and if it asks "
            "for a token those alone who have it in ~/.ray/auth_token"
        )
    if ":" in address:
        return (
            f"`ray start --head` begins a cluster, and `ray start --address={address}` the node on "
            f"this machine that such an address needs; {CLIENT}HOST:10001 needs none"
        )
    return "`ray start --head` begins one, `ray status` shows what it has"


class HeadLost(PipelineError):
    """There is no cluster any more."""

    def __init__(self, reason: str = "its head or the node of this machine has ended") -> None:
        """Say so, or another reason."""
        super().__init__(reason)


def tells_loss(error: BaseException) -> bool:
    """Tell whether it is the cluster that is lost, and not the worker that it is said of.

    That is so if Ray takes us for dead, or if its client has lost the connection.
    """
    return type(error) is ConnectionError or any(sign in str(error) for sign in LOST)


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
