"""What is said to the reaper."""

from greenroom.runtime.message import Message


class Sweep(Message, frozen=True):
    """Have those forgotten whose time is over."""


ReaperMessage = Sweep
