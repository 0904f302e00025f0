"""Signals that end a run."""

import signal


def ending_signals() -> list[signal.Signals]:
    """What asks a process to end: but not what its caller has it ignore, as `nohup` does."""
    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows has no SIGHUP
    return [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]
