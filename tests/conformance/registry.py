"""The case groups: a group is a function of a Site, and one ctest entry."""
import dataclasses
from typing import Callable


@dataclasses.dataclass
class Group:
    name: str
    run: Callable
    nightly: bool
    alone: bool  # measures time: nothing else may run beside it

    @property
    def seconds_max(self):
        return 1800 if self.nightly else 240

    @property
    def text(self):
        return (self.run.__doc__ or "").strip().split("\n")[0]


GROUPS = {}


def group(nightly=False, alone=False):
    def register(function):
        GROUPS[function.__name__] = Group(function.__name__, function, nightly, alone)
        return function
    return register
