"""``python -m app.exchange.paper``: serve the paper exchange."""

from app.exchange.paper.options import parse_options
from app.exchange.paper.server import run

if __name__ == "__main__":
    run(parse_options())
