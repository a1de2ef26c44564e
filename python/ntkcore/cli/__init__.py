"""The command line: its entry point, light,
so that an interruption is a line from the first moment on.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

USER_ERRORS = (ValueError, TypeError, ImportError, MemoryError, OSError, FloatingPointError)
INTERRUPTED = (
    "ntkcore: interrupted; what is written stays, and the same command goes on where it can"
)


def _leave_after(seconds: float) -> None:
    """Ctrl-C ends even what compiled code of others holds:
    files are written whole or not at all.
    """
    from ntkcore import _core

    heard, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    _core.leave_after_interrupt(heard, seconds, INTERRUPTED + "\n")


def _application() -> Callable[[], Any]:
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit(
            'the command line needs typer: pip install "ntkcore[cli]" (or "ntkcore[all]" for'
            " everything)"
        )
    from ntkcore.cli.commands import app

    return app


def _interrupted() -> NoReturn:
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(130)  # nor wait for what threads still compute


def main() -> None:
    """Entry point: a user's error is one line on stderr and exit code 1,
    an interruption one line and 130.
    """
    try:
        _leave_after(1.5)
        warnings.formatwarning = lambda message, *_, **__: f"ntkcore: {message}\n"
        _application()()
    except USER_ERRORS as error:
        sys.exit(f"ntkcore: {error}")
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as leave:  # typer's, after a KeyboardInterrupt
        if leave.code == 130:
            _interrupted()
        raise
