"""`fillonce enqueue`: takes intents from a file, from stdin, or from options."""

import contextlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from app.cli import exit_codes, json_lines
from app.cli.durations import seconds
from app.cli.output import as_json, emit, say
from app.cli.progress import bytes_bar
from app.cli.typers import plain_typer
from app.intents import IntentError, parse_intent
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.keys import is_key

_TYPES: Final = ("order", "cancel", "signal")


class _FileOrType(TyperGroup):
    """What is no type of intent is a file."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        is_file = args[0] not in _TYPES and not (len(args) > 1 and args[1].startswith("--"))
        return ("file", self.commands["file"], args) if is_file else super().resolve_command(ctx, args)


app = plain_typer(cls=_FileOrType, no_args_is_help=True, subcommand_metavar="FILE | COMMAND [OPTIONS]")


@app.callback()
def enqueue() -> None:
    """Journal intents and hand them to the queue. FILE holds one JSON object per line; - is stdin.

    One JSON line per intent goes to stdout: key, status (accepted, duplicate, conflict or invalid), error, and the
    line's number. Good lines are taken whatever stands on the others; empty lines are passed over. An order stands
    before its cancel. Enqueuing the same again is safe: it answers duplicate.

    Exit code: 0 if all are accepted or duplicate, 2 if one is not, 3 if the journal is unavailable.

    Example:
      fillonce enqueue intents.jsonl
      echo '{"type": "cancel", "key": "cancel-a-1", "order_key": "a-1"}' | fillonce enqueue -
      fillonce enqueue order --key a-1 --symbol BTCUSDT --side BUY --type MARKET --quantity 0.010
    """


@app.command("file", hidden=True)
def from_file(path: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - is stdin.")]) -> None:
    """Journal the intents of a file.

    Example: fillonce enqueue intents.jsonl
    """
    from app.producer import MAX_BATCH  # lazy: a file that cannot be read needs no store

    counts: Counter[str] = Counter()
    undelivered = 0
    with _opened(path) as source, _producer() as producer, bytes_bar("enqueue", total=_size(source)) as advance:

        def read(limit: int) -> bytes:
            chunk = os.read(source.fileno(), limit)
            advance(len(chunk))
            return chunk

        for lines in json_lines.batches(read, max_lines=MAX_BATCH):
            parsed = [json_lines.parse(line) for line in lines]
            try:
                answers = _submit(producer, parsed)
            except StoreUnavailableError:
                taken = counts["accepted"] + counts["duplicate"]
                say(
                    f"{taken} intents are journaled, nothing from line {lines[0].number} on: enqueue it all again later"
                )
                raise
            emit(as_json(answer.fields()) for answer in answers)
            counts.update(answer.status for answer in answers)
            undelivered += sum(not answer.delivered for answer in answers)
    _sum_up(path, counts, undelivered)
    if counts["conflict"] or counts["invalid"]:
        raise typer.Exit(exit_codes.USAGE)


@app.command("order")
def order(
    *,
    key: Annotated[str, typer.Option("--key", help="Idempotency key: the same key never buys twice.")],
    symbol: Annotated[str, typer.Option("--symbol", help="As the exchange writes it: BTCUSDT.")],
    side: Annotated[str, typer.Option("--side", help="BUY or SELL.")],
    quantity: Annotated[str, typer.Option("--quantity", help="A plain decimal.")],
    order_type: Annotated[
        str, typer.Option("--type", help="MARKET, LIMIT, STOP_MARKET or TAKE_PROFIT_MARKET.")
    ] = "MARKET",
    price: Annotated[str | None, typer.Option("--price", help="The limit of a LIMIT order.")] = None,
    stop_price: Annotated[
        str | None, typer.Option("--stop-price", help="What triggers a STOP_MARKET or TAKE_PROFIT_MARKET order.")
    ] = None,
    time_in_force: Annotated[
        str | None, typer.Option("--time-in-force", help="GTC, IOC, FOK or GTX; only with LIMIT.")
    ] = None,
    venue: Annotated[str, typer.Option("--venue", help="usdm or spot.")] = "usdm",
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Only make a position smaller.")] = False,
    valid_for: Annotated[
        str | None, typer.Option("--valid-for", help="How long it may be sent: 30s, 5m, 2h. Then it expires.")
    ] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="A label of yours.")] = "",
) -> None:
    """Journal one order.

    Example:
      fillonce enqueue order --key a-1 --symbol BTCUSDT --side BUY --type LIMIT --quantity 0.010 --price 60000
    """
    _enqueue_one(
        {
            "type": "order",
            "key": key,
            "venue": venue,
            "symbol": symbol,
            "side": side,
            "order_type": order_type,
            "quantity": quantity,
            "price": price,
            "stop_price": stop_price,
            "time_in_force": time_in_force,
            "reduce_only": reduce_only,
            "valid_for_s": None if valid_for is None else seconds(valid_for),
            "strategy": strategy,
        }
    )


@app.command("cancel")
def cancel(
    *,
    key: Annotated[str, typer.Option("--key", help="Idempotency key of this cancel.")],
    order_key: Annotated[str, typer.Option("--order-key", help="Key of the order to cancel.")],
) -> None:
    """Journal the cancel of an order that was enqueued before.

    Example:
      fillonce enqueue cancel --key cancel-a-1 --order-key a-1
    """
    _enqueue_one({"type": "cancel", "key": key, "order_key": order_key})


@app.command("signal")
def signal(
    *,
    key: Annotated[str, typer.Option("--key", help="Idempotency key of this signal.")],
    strategy: Annotated[str, typer.Option("--strategy", help="Who wishes it.")],
    symbol: Annotated[str, typer.Option("--symbol", help="As the exchange writes it: BTCUSDT.")],
    side: Annotated[str, typer.Option("--side", help="BUY or SELL.")],
    quantity: Annotated[str, typer.Option("--quantity", help="A plain decimal; rounded down to the exchange's steps.")],
    order_type: Annotated[
        str, typer.Option("--type", help="MARKET, LIMIT, STOP_MARKET or TAKE_PROFIT_MARKET.")
    ] = "MARKET",
    price: Annotated[str | None, typer.Option("--price", help="The limit, or the trigger of the stop types.")] = None,
    venue: Annotated[str, typer.Option("--venue", help="usdm or spot.")] = "usdm",
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Only make a position smaller.")] = False,
    valid_for: Annotated[
        str | None, typer.Option("--valid-for", help="How long it may be sent: 30s, 5m, 2h. Then it expires.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words.")] = "",
) -> None:
    """Journal a strategy's wish; a worker makes an order of it.

    Example:
      fillonce enqueue signal --key sma-7 --strategy sma --symbol BTCUSDT --side BUY --quantity 0.010
    """
    _enqueue_one(
        {
            "type": "signal",
            "key": key,
            "strategy": strategy,
            "venue": venue,
            "symbol": symbol,
            "side": side,
            "quantity": quantity,
            "order_type": order_type,
            "price": price,
            "reduce_only": reduce_only,
            "valid_for_s": None if valid_for is None else seconds(valid_for),
            "reason": reason,
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    key: str | None
    status: str
    error: str | None
    line: int | None = None
    delivered: bool = True

    def fields(self) -> dict[str, object]:
        line = {} if self.line is None else {"line": self.line}
        return {"key": self.key, "status": self.status, "error": self.error, **line}


def _submit(producer: Any, parsed: Sequence[json_lines.Parsed]) -> list[_Answer]:
    """Submit what can be, and return an answer for every line."""
    submissions = iter(producer.submit_many([line.intent for line in parsed if line.intent is not None]))
    answers = []
    for line in parsed:
        if line.intent is None:
            answers.append(_Answer(key=line.key, status="invalid", error=line.error, line=line.number))
        else:
            found = next(submissions)
            answers.append(
                _Answer(
                    key=found.key,
                    status=found.status.value,
                    error=found.error,
                    line=line.number,
                    delivered=found.delivered,
                )
            )
    return answers


def _enqueue_one(data: dict[str, object]) -> None:
    try:
        intent = parse_intent(data)
    except IntentError as error:
        key = str(data["key"])
        answer = _Answer(key=key if is_key(key) else None, status="invalid", error=str(error))
    else:
        with _producer() as producer:
            (found,) = producer.submit_many([intent])
        answer = _Answer(key=found.key, status=found.status.value, error=found.error)
    emit([as_json(answer.fields())])
    if answer.status not in {"accepted", "duplicate"}:
        raise typer.Exit(exit_codes.USAGE)


def _sum_up(path: str, counts: Counter[str], undelivered: int) -> None:
    if not counts:
        say(f"{path} holds no intents: nothing was enqueued")
        return
    words = ", ".join(f"{counts[status]} {status}" for status in ("accepted", "duplicate", "conflict", "invalid"))
    say(f"{counts.total()} intents: {words}")
    if undelivered:
        say(f"{undelivered} are journaled and not delivered: Redis is not reachable, the sweeper will deliver them")


@contextlib.contextmanager
def _producer() -> Iterator[Any]:
    from app.cli.opening import installation  # lazy: a wrong intent needs no store
    from app.producer import Producer

    with installation() as opened:
        yield Producer.of(opened)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[FileIO]:
    try:
        source = FileIO(0, closefd=False) if path == "-" else FileIO(path)
    except OSError as error:
        kinds = ", ".join(_TYPES)
        raise typer.BadParameter(
            f"cannot read {path!r} ({error.strerror}): give a file of JSON lines, - for stdin, or one of {kinds}",
            param_hint="FILE",
        ) from error
    if path == "-" and sys.stdin.isatty():
        say("reading intents from the terminal, one JSON object per line; end with Ctrl-D")
    with source:
        yield source


def _size(source: FileIO) -> int | None:
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
