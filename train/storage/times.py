"""Where the time of a run goes."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Times:
    """Where the loop's time goes, in seconds per step: the whole, waiting for data, and the host's own work.

    The host's is CPU time of this thread, in Python and in the runtime that starts the step for it.
    """

    whole: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    def waiting_share(self) -> float:
        """Fraction of the time in training steps spent waiting for a batch; the first step compiles."""
        return sum(self.waiting[1:]) / max(sum(self.whole[1:]), 1e-9)

    def host_ms(self) -> float:
        """Median over the steps, in milliseconds, without the first."""
        return 1e3 * float(np.median(self.host[1:] or self.host or [0.0]))
