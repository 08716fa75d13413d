"""The speed of a run, and the number of steps between two checks on it."""

import time

SECONDS_BETWEEN_CHECKS = 1.0
"""Seconds that the device works between two checks: for a wish to stop, for terms that are not finite, for a report."""

FIRST_STEPS = 16
"""Steps before the speed is known."""


class Pace:
    """Measures the speed of steps, and counts how many fill the time between two checks."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._begin = self._epoch_begin = time.perf_counter()
        self._epoch_steps, self._epoch_seconds = 0, 0.0
        self._last_speed = 0.0
        self._is_compiled = False

    @property
    def steps_per_second(self) -> float:
        """Speed in the epoch so far, compilation left out."""
        return self._epoch_steps / self._epoch_seconds if self._epoch_seconds else self._last_speed

    def num_steps(self, batch: int) -> int:
        """Steps to do next, at most to the end of the epoch."""
        self._begin = time.perf_counter()
        if batch == 0:
            self._epoch_begin, self._epoch_steps, self._epoch_seconds = self._begin, 0, 0.0
        if not self._is_compiled:
            return 1
        remaining = self.steps_per_epoch - batch
        wanted = int(self._last_speed * SECONDS_BETWEEN_CHECKS) or min(FIRST_STEPS, remaining)
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
        """Seconds since the epoch began, or since the run was resumed in it."""
        return time.perf_counter() - self._epoch_begin
