"""Waiting for something to become true, with a limit."""

import time


def until(condition, what, seconds=30.0, pause=0.1):
    """The first true value of `condition()`; fails with `what` after `seconds`, which are a generous limit."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what} (last: {value!r})")
        time.sleep(pause)
