"""Log lines: JSON, one per event, and never a reason to stop."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from app.observability.log import make_logger

ROOT = Path(__file__).resolve().parents[2]


class FullDisk(io.StringIO):
    def write(self, _text: str) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_event_is_one_json_line_with_what_is_bound() -> None:
    stream = io.StringIO()
    make_logger(stream=stream, owner="me").info("retry", key="k", delay_ms=5)
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert {name: told[name] for name in ("event", "level", "owner", "key", "delay_ms")} == {
        "event": "retry", "level": "info", "owner": "me", "key": "k", "delay_ms": 5,
    }  # fmt: skip


def test_line_that_finds_no_room_on_the_disk_stops_nobody() -> None:
    make_logger(stream=FullDisk()).critical("alarm_quarantined", key="k")


LAST_WORDS = """
import os, sys
from workers import children
class Full:
    def write(self, text): raise OSError(28, "No space left on device")
    flush = lambda self: self.write("")

def work():
    sys.stderr = Full()
    return 7

pid = children.fork(work)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
os._exit(0)
"""


def test_child_ends_with_its_code_although_its_last_words_find_no_room() -> None:
    """If it did not end there, it would go on in its parent's code."""
    ended = subprocess.run([sys.executable, "-c", LAST_WORDS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "7\n", ended.stderr
