"""Collection of garbage around the start of a process: what its imports and its wiring make never becomes garbage."""

import gc
from typing import Final

# Objects made and still there, after which the youngest are looked through. Python's 700 come about with every few
# tasks, of which hardly any are garbage: those looks cost a tenth of all work.
YOUNG: Final = 5_000


def postpone() -> None:
    """Collects nothing until `resume`: while everything is made to stay, looking for garbage finds none."""
    gc.disable()


def resume() -> None:
    """Collects from now on, but never looks again through what is there by now. That would stop a process for tens of
    milliseconds each time.
    """
    gc.freeze()
    gc.set_threshold(YOUNG)
    gc.enable()
