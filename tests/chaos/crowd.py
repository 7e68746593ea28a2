"""Duplicates: the same intent from many at once, met by many at once, and delivered again afterwards."""

import json

from app.delivery import Parcel
from tests.chaos.runner import Arena
from tests.chaos.workload import Wish

PRODUCERS, TIMES = 4, 20


def submit_twentyfold(one: Arena, wish: Wish) -> int:
    """Submit one intent 20 times by each of 4 processes at once; return how many submissions were answered.

    The intent counts from now on if any answer was a success: exactly one of them may say `accepted`.
    """
    file = one.folder / f"{wish.key}.jsonl"
    file.write_text(f"{json.dumps(wish.intent)}\n" * TIMES)
    producers = [
        one.nursery.start("app.cli.main", ["enqueue", str(file)], environment=one.here.environment,
                          folder=one.here.folder, name=f"{wish.key}-producer-{number}")
        for number in range(PRODUCERS)
    ]  # fmt: skip
    for producer in producers:
        producer.wait(60)
    told = [json.loads(line)["status"] for one in producers for line in one.words().splitlines() if line[:1] == "{"]
    answers = [status for status in told if status in {"accepted", "duplicate"}]
    if answers:
        one.wishes[wish.key] = wish
    assert answers.count("accepted") <= 1, answers
    return len(answers)


def deliver(one: Arena, key: str, times: int) -> None:
    """Put an order's job into its queue several times, as a queue that repeats itself would."""
    job = one.here.installation.delivery
    parcel = Parcel(key=key, type="order", queue="orders")
    job.deliver([parcel], force=True)
    with one.here.redis.client() as client:
        client.rpush("rq:queue:orders", *[job.job_id(parcel)] * (times - 1))
