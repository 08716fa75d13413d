"""How fast a run is, and how many steps it does before it looks up."""

import time

SECONDS_BETWEEN_LOOKS = 1.0
"""How long the device works before the run looks up: for a wish to stop, a term that is not finite, a report."""

FIRST_STEPS = 16
"""Steps before the speed is known."""


class Pace:
    """How fast steps are, and how many fill the time between two looks."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._begin = self._epoch_begin = time.perf_counter()
        self._epoch_steps, self._epoch_seconds = 0, 0.0
        self._last_speed = 0.0
        self._is_compiled = False

    @property
    def steps_per_second(self) -> float:
        """In the epoch so far, compilation left out."""
        return self._epoch_steps / self._epoch_seconds if self._epoch_seconds else self._last_speed

    def num_steps(self, batch: int) -> int:
        """Steps to do next, at most to the end of the epoch."""
        self._begin = time.perf_counter()
        if batch == 0:
            self._epoch_begin, self._epoch_steps, self._epoch_seconds = self._begin, 0, 0.0
        if not self._is_compiled:
            return 1
        remaining = self.steps_per_epoch - batch
        wanted = int(self._last_speed * SECONDS_BETWEEN_LOOKS) or min(FIRST_STEPS, remaining)
        # The whole rest rather than most of it and a short call more.
        return remaining if wanted > 0.7 * remaining else wanted

    def add(self, num_steps: int) -> None:
        """Notes steps that are done."""
        seconds = time.perf_counter() - self._begin
        if self._is_compiled:
            self._epoch_steps, self._epoch_seconds = self._epoch_steps + num_steps, self._epoch_seconds + seconds
            self._last_speed = num_steps / seconds
        self._is_compiled = True

    def seconds_of_epoch(self) -> float:
        """Since the epoch began, or since the run was resumed in it."""
        return time.perf_counter() - self._epoch_begin
