"""Signals that end a run, and how an interruption is carried out of callbacks."""

import signal


def ending_signals() -> list[signal.Signals]:
    """List the signals that ask a process to end, except those that its caller ignores, as `nohup` does."""
    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows has no SIGHUP
    return [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


class Interruption:
    """An interruption that is kept until it can be raised: inside a callback of libvips it would be lost."""

    def __init__(self) -> None:
        self._pending = False
        for number in (signal.SIGINT, *ending_signals()):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self._pending = True
        signal.signal(number, signal.default_int_handler)  # the second time, at once

    def check(self) -> None:
        """Raise the interruption that is pending, if any.

        Raises:
            KeyboardInterrupt: there is one.
        """
        if self._pending:
            raise KeyboardInterrupt
