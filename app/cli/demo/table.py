"""What the demo found, and how it is shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

from app.money import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of a demo, read from the exchange's own history, the journal and the ledger."""

    intents: int
    orders: int
    duplicates: int
    lost: int
    expired: int
    fills: int
    differences: int
    pnl: Decimal
    kills: int
    kills_wanted: int
    kills_on_the_wire: int
    in_doubt: int
    seconds: int
    seed: int
    home: Path

    @property
    def is_clean(self) -> bool:
        """Whether nothing is duplicated, lost or off, and the workers really were killed."""
        return not (self.duplicates or self.lost or self.differences) and self.kills_on_the_wire >= self.kills_wanted

    def as_json(self) -> dict[str, object]:
        """Return plain values."""
        return {**asdict(self), "home": str(self.home), "clean": self.is_clean}


def lines(result: Result) -> Sequence[str]:
    """Return the table."""
    rows = [
        ("intents", str(result.intents), "enqueued once each"),
        ("orders at the exchange", str(result.orders), "by the exchange's own history"),
        ("duplicates", str(result.duplicates), "client order ids accepted more than once"),
        ("lost", str(result.lost), "intents that ended nowhere"),
        ("expired", str(result.expired), "closed with proof that they were never executed"),
        ("fills", str(result.fills), "booked into positions, ledger and PnL"),
        ("ledger difference", str(result.differences), "against the exchange, to the last digit"),
        ("PnL", f"{plain(result.pnl)} USDT", "realized, after fees"),
        (
            "workers killed",
            f"{result.kills_on_the_wire} of {result.kills}",
            f"with SIGKILL while an order was on the wire; {result.in_doubt} orders were in doubt",
        ),
        ("time", f"{result.seconds} s", f"seed {result.seed}; data in {result.home}"),
    ]
    wide, high = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    verdict = "Nothing twice, nothing lost, books exact." if result.is_clean else "NOT CLEAN: see the rows above."
    return [*(f"{name:<{wide}}  {value:>{high}}  {words}" for name, value, words in rows), "", verdict]
