"""A fault strikes at its point: the thread that reaches it does nothing more, however many others there are."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROUNDS = 20

STOPS = f"""
import os, sys, threading
from app.job_safety.faults import FaultPoint, parse_plan

def work():
    for at in range({ROUNDS}):
        parse_plan(f"before_send=stop@{{sys.argv[1]}}/{{at}}").hit(FaultPoint.BEFORE_SEND)
        os.write(1, b"!")

others = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(8)]
for other in others:
    other.start()
worker = threading.Thread(target=work)
worker.start()
worker.join()
"""


def test_a_thread_that_stops_its_process_does_not_run_on_until_another_one_has_noticed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STOPS, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            for at in range(ROUNDS):
                _, status = os.waitpid(process.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status), f"round {at}: it went on beyond its point"
                assert len(process.stdout.read() or b"") == min(at, 1), f"round {at}: it went on beyond its point"
                process.send_signal(signal.SIGCONT)
            assert process.wait(20) == 0
        finally:
            process.kill()
