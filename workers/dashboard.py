"""rq-dashboard for our jobs: to look at, on this machine only.

Three things are changed. RQ unpickles what it is not told to be JSON, and rq-dashboard does not tell it so for the job
that a worker has in hand: its workers page failed whenever a worker was busy, and whoever could write to Redis could
have run code here. Its buttons change queues without protection against forged requests: they are switched off. And it
listens on loopback whatever it is told.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

from app.clock import SystemClock
from app.job_safety.errors import StoreUnavailableError, TerminalError
from app.settings import SettingsError
from app.wiring import redis_url, settings_from_environment

HOST: Final = "127.0.0.1"
PORT: Final = 9181
CHANGING: Final = ("delete_job_view", "requeue_job_view", "requeue_all", "empty_queue", "compact_queue")
"""What rq-dashboard calls the views that change something."""

READ_ONLY: Final = "This dashboard only shows. A requeued job would find guard and journal; use `fillonce intents`."


def make_app(url: str) -> Any:
    """Return the web application that shows the queues of the Redis at `url`.

    Raises:
        ImportError: rq-dashboard is not installed.
    """
    from rq import serializers

    # RQ looks this name up whenever nobody says how a job was written. Nothing is ever unpickled in this process.
    serializers.PickleSerializer = serializers.JSONSerializer  # type: ignore[assignment]  # on purpose: another class
    from flask import Response, request
    from rq_dashboard import cli, web

    web.config.serializer = serializers.JSONSerializer  # type: ignore[assignment]  # its default is the other one
    app: Any = cli.make_flask_app(None, None, None, "")  # type: ignore[no-untyped-call]  # it has no types
    app.config["RQ_DASHBOARD_REDIS_URL"] = [url]
    app.config["RQ_DASHBOARD_DISABLE_DELETE"] = True
    app.config["DEPRECATED_OPTIONS"] = []
    # A page of somebody else's that resolves its own name to loopback has another Host.
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]

    told_of_job: Any = web.serialize_current_job

    def in_words(job: Any) -> Any:
        """The workers page shows the call; what people look for is symbol, side and quantity."""
        told = told_of_job(job)
        return {**told, "call_string": told["description"]} if isinstance(told, dict) else told

    web.serialize_current_job = in_words

    def refuse_changes() -> Any:
        endpoint = (request.endpoint or "").rpartition(".")[2]
        if endpoint in CHANGING or request.method not in {"GET", "HEAD"}:
            return Response(READ_ONLY, 405, {"Allow": "GET, HEAD"})
        return None

    app.before_request(refuse_changes)
    web.setup_rq_connection(app)  # type: ignore[no-untyped-call]  # the same
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the dashboard from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.dashboard", description="Look at the queues in a browser.")
    parser.add_argument("--port", type=int, default=PORT)
    parsed = parser.parse_args(arguments)
    try:
        app = make_app(redis_url(settings_from_environment(), SystemClock()))
    except ImportError:
        sys.stderr.write("rq-dashboard is not installed: pip install 'fillonce[dashboard]'\n")
        return 1
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except StoreUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except TerminalError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    sys.stderr.write(f"queues: http://{HOST}:{parsed.port} (Ctrl-C ends it)\n")
    app.run(host=HOST, port=parsed.port, debug=False, use_reloader=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
