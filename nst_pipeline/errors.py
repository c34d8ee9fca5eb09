"""Every deliberate error, each with the exit code of sysexits.h that it ends the program with.

PipelineError
├── UsageError          64  the command line asks for something that makes no sense
├── ImageError          65  an input is not an image that can be painted
│   └── NotReadyError       and may be one later: empty, cut short
│       ├── BeingWrittenError   a process writes to it
│       └── UnreadableError 66  the system does not let us read it now; that says nothing of it
├── UnavailableError    69  no weights or no device as asked
├── OutOfMemoryError    69  memory does not suffice for what was asked
├── CannotCreateError   73  an output folder or file cannot be made
├── OutputError         74  an output cannot be written (disk full, input/output error)
│   └── DiskFullError       for want of space
├── StateGoneError      74  the state folder was deleted while it was worked with
├── ConfigError         78  pipeline.yaml is wrong; holds every problem found
│   ├── InboxGoneError      the inbox is not there
│   └── NoStylesError       the folders of styles hold no image
├── ShapeError          70  a tensor of another shape than the engine's contract
├── HookError           69  a hook was not told of a job; ends nothing, and is tried again
├── DeviceLostError     71  the device broke; only a new process can use it again
└── LockedError         75  another nst-pipeline works with the same state folder

A message reads *where: what was wrong, with the value; what to do*.
"""


class PipelineError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class UsageError(PipelineError):
    """The command line asks for something that makes no sense."""

    exit_code = 64


class ImageError(PipelineError):
    """An input is not an image that can be painted."""

    exit_code = 65


class NotReadyError(ImageError):
    """An input cannot be painted now, and may well be later."""


class BeingWrittenError(NotReadyError):
    """An input is not complete yet: somebody writes to it."""


class UnreadableError(NotReadyError):
    """A file cannot be read now, for a reason of the system's and not of its own."""

    exit_code = 66


class UnavailableError(PipelineError):
    """The weights or the device that were asked for are not there."""

    exit_code = 69


class OutOfMemoryError(PipelineError):
    """Memory does not suffice, however little is asked for at a time."""

    exit_code = 69


class HookError(PipelineError):
    """A hook could not be told of a job."""

    exit_code = 69


class ShapeError(PipelineError):
    """A tensor has another shape than a function takes."""

    exit_code = 70


class CannotCreateError(PipelineError):
    """An output folder or file cannot be created."""

    exit_code = 73


class OutputError(PipelineError):
    """An output cannot be written."""

    exit_code = 74


class DiskFullError(OutputError):
    """An output cannot be written for want of space."""


class StateGoneError(PipelineError):
    """The state folder, and with it the lock, was taken away from who works with it."""

    exit_code = 74


class DeviceLostError(PipelineError):
    """The device broke in a way that only a new process can mend."""

    exit_code = 71


class LockedError(PipelineError):
    """Another process works with the same state folder."""

    exit_code = 75


class ConfigError(PipelineError):
    """A configuration is wrong; ``problems`` holds one line for each mistake."""

    exit_code = 78

    def __init__(self, problems: list[str]) -> None:
        """Join ``problems`` (at least one) into the message."""
        super().__init__("\n".join(problems))
        self.problems = problems


class InboxGoneError(ConfigError):
    """The inbox is not there: never made, renamed away, or not mounted."""


class NoStylesError(ConfigError):
    """No style is there now: the folders of styles hold no image that could be one."""


class Abandoned(BaseException):  # noqa: N818 - no error, so that no handler of errors takes it
    """Raised inside a job to end it at once; unless it was cancelled, it goes back to the queue."""
