"""Collection of garbage around the start of a process: what its imports and its wiring make never becomes garbage."""

import gc
from typing import Final

# Objects, then collections of the younger generation, between two collections. What comes after the start is
# short-lived and in no cycles: looking for some after each 700 objects, as is usual, takes an eighth of the writer's
# time.
COLLECTED_AFTER: Final = (20_000, 20, 20)


def postpone() -> None:
    """Collects nothing until `resume`: while everything is made to stay, looking for garbage finds none."""
    gc.disable()


def resume() -> None:
    """Collects from now on, but never looks again through what is there by now. That would stop a process for tens of
    milliseconds each time.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)
    gc.enable()
