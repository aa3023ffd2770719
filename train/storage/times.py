"""Measures where the time of the training loop goes."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Times:
    """Seconds of each step: in total, waiting for data, and of host work.

    Host work is the CPU time of this thread, in Python and in the runtime that dispatches the step.
    """

    whole: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    def waiting_share(self) -> float:
        """Fraction of the time spent waiting for a batch, without the first step, which compiles."""
        return sum(self.waiting[1:]) / max(sum(self.whole[1:]), 1e-9)

    def host_ms(self) -> float:
        """Median host work per step in milliseconds, without the first step."""
        return 1e3 * float(np.median(self.host[1:] or self.host or [0.0]))
