"""How a command ends: by its answer, by a refusal, by a signal, or by a mistake of this package; never as another.

Exit status: 0 where everything holds; 1 where a check failed, and for nothing else; 2 where the question could not be
answered (arguments, files, memory, no power); 70 where the package itself is wrong; 130 and 143 after SIGINT and
SIGTERM; 141 where the reader of the output left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

from bilevelrl.reference.errors import BilevelRLError

__all__ = ["CHECK_FAILED", "HOLDS", "OWN_MISTAKE", "UNANSWERED", "end_with_parent", "ended"]

HOLDS, CHECK_FAILED, UNANSWERED, OWN_MISTAKE = 0, 1, 2, 70

_PATIENCE = 1.5
"""Seconds that a command has after a signal before it is ended where it stands."""


class _SignalledError(KeyboardInterrupt):
    """A signal that ends the command; libraries clean up as they do after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def ended(command: Callable[[], int]) -> int:
    """Run a command and return its exit status, whatever happens.

    Examples
    --------
    >>> ended(lambda: 0)
    0
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an encoding without β must not end a command
    try:
        with _signals_raise(), _plain_warnings():
            status = int(command())
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; what Python flushes at exit must not fail on the closed pipe.
        _forget_output()
        return 128 + signal.SIGPIPE
    except BilevelRLError as refused:
        _say(" ".join(str(refused).split()))
        return UNANSWERED
    except KeyboardInterrupt as interrupt:
        _say("interrupted; what was written is whole")
        return 128 + (interrupt.number if isinstance(interrupt, _SignalledError) else signal.SIGINT)
    except MemoryError as broken:
        _say(f"not enough memory ({broken}); ask for less, or use fewer workers")
        return UNANSWERED
    except OSError as broken:  # a full disk, a folder that went away
        _say(f"{broken}; what was written before is whole")
        _forget_output()
        return UNANSWERED
    except Exception:
        traceback.print_exc()
        _say(f"this is a mistake in bilevelrl (exit {OWN_MISTAKE}); please report it, with the command and these lines")
        return OWN_MISTAKE


def end_with_parent(parent: int) -> None:
    """Make this worker end when its parent does, however that ends, and leave Ctrl-C to the parent.

    Parameters
    ----------
    parent
        Its process id.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(OWN_MISTAKE)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGINT and SIGTERM raise where the command stands; a call that does not return is ended after a while."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _SignalledError(number)

    # A shell that starts a command in the background has it ignore Ctrl-C.
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    over = threading.Event()

    def watch() -> None:
        for number in iter(lambda: os.read(reader, 1), b""):
            if number[0] in heard and not over.wait(_PATIENCE):
                os._exit(128 + number[0])

    watcher = threading.Thread(target=watch, daemon=True, name="end after a signal")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.close(writer)
        watcher.join()
        os.close(reader)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings are one line, as refusals are."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *where, **more: f"bilevelrl: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _say(text: str) -> None:
    print(f"bilevelrl: {text}", file=sys.stderr)


def _forget_output() -> None:
    """What Python flushes at exit must not fail once more."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no descriptor behind it
        return
