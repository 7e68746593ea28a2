"""The pure parts of the throughput bench: figures, bounds, tables, and the page they are written into."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench import output
from bench.throughput import cpu, wal
from bench.throughput.plan import ENTRIES, chosen, may_begin
from bench.throughput.report import tables
from bench.throughput.results import Delays, Enqueued, Results, Run, Spread, plain, spread
from bench.throughput.tally import Tally
from bench.throughput.targets import targets


def run(jobs_per_s: float) -> Run:
    return Run(
        jobs_per_s=jobs_per_s, cpu_ms_per_job=1, server_cpu_ms_per_job=1, commands_per_job=52, reads_per_job=18
    )  # fmt: skip


def test_ratios_are_taken_within_a_round_and_never_across_two() -> None:
    """The machine is twice as slow in the second round: the ratio is the same, that of the medians would not be."""
    results = Results(runs={"a1": [run(100), run(50), run(100)], "g1": [run(200), run(100), run(150)]})
    assert results.ratio("g1", "a1") == Spread(median=2.0, least=1.5, most=2.0)


def test_a_round_in_which_one_of_two_was_not_measured_gives_no_ratio() -> None:
    results = Results(runs={"a1": [run(100), None, run(100)], "g1": [run(200), run(900), None]})
    assert results.ratio("g1", "a1") == Spread(median=2.0, least=2.0, most=2.0)
    assert results.ratio("g1", "c1") is None
    assert results.median("a1", "jobs_per_s") == 100


def test_rounds_stay_side_by_side_when_an_entry_misses_one() -> None:
    results = Results(runs={"a1": [run(100)]})
    for name in ("a1", "g1"):
        results.close_round(name, 1)
    results.runs["g1"].append(run(300))
    for name in ("a1", "g1"):
        results.close_round(name, 2)
    assert results.runs["a1"][1] is None is results.runs["g1"][0]
    assert results.ratio("g1", "a1") is None


def test_no_round_begins_that_would_end_too_late_but_the_first() -> None:
    assert may_begin(now_s=100, until_s=50, rounds_s=[])
    assert may_begin(now_s=100, until_s=160, rounds_s=[60, 40])
    assert not may_begin(now_s=101, until_s=160, rounds_s=[60, 40])


def test_delays_are_counted_from_the_call_over_all_rounds_in_milliseconds() -> None:
    first = Delays(from_begin_s=[0.001, 0.002], from_end_s=[0, 0.001])
    rounds = [first, Delays(from_begin_s=[0.003], from_end_s=[-0.002])]
    results = Results(delays={"a1": {20: rounds}})
    assert (results.delay_ms("a1", 20, 50), results.delay_ms("a1", 20, 99)) == (2.0, 3.0)
    assert results.call_ms("a1", 20) == pytest.approx(1.0)
    assert results.delay_ms("a1", 100, 50) is None is results.call_ms("a1", 100)


def test_tables_show_what_was_measured_and_leave_out_what_was_not() -> None:
    results = Results(runs={"a1": [run(100)], "g1": [run(150)], "b1": [None]}, booked_per_s={"g1-booked": [40, 60]})
    results.commits_per_job["g1"] = 2.0
    results.enqueued["g0"] = [Enqueued(singly_per_s=1000, batch_per_s=12000)]
    made = {title: rows for title, _, rows in tables(ENTRIES, results)}
    assert list(made) == ["What we hold ourselves to", "One worker process", "Enqueued a second"]
    stock, ours = made["One worker process"]
    assert stock[:4] == ["a", "RQ SimpleWorker", "100", "1.00 (1.00 to 1.00)"]
    assert ours[:5] == ["g", "fillonce on SQLite", "150", "1.50 (1.50 to 1.50)", "-"]
    assert ours[-2:] == ["2.0", "50"]
    assert made["Enqueued a second"] == [["g", "fillonce on SQLite", "1,000", "12,000"]]


def test_each_target_is_held_or_missed_by_what_was_measured() -> None:
    """The median of (g) reaches its 1.5, one round does not reach its 1.2, and (h) was not measured."""
    delays = {"a1": {100: [Delays(from_begin_s=[0.010], from_end_s=[0])]}}
    delays["g1"] = {100: [Delays(from_begin_s=[0.012, 0.012, 0.016], from_end_s=[0])]}
    results = Results(runs={"a1": [run(100)] * 3, "g1": [run(150), run(119), run(160)]}, delays=delays)
    results.commits_per_job["g1"] = 2.1
    results.enqueued["g0"] = [Enqueued(singly_per_s=1, batch_per_s=10_000)]
    held = {(one.letter, one.what): one.holds for one in targets(results)}
    assert held == {
        ("g", "one worker, x (a)"): True,
        ("g", "one worker, worst round"): False,
        ("g", "round trips"): False,
        ("g", "commits"): False,
        ("g", "to the exchange, 100/s, p50 x (a)"): True,
        ("g", "to the exchange, 100/s, p99 ms"): False,
        ("g", "enqueued a second, in batches"): True,
    }


def test_everybody_is_measured_with_one_worker_and_those_with_targets_with_two() -> None:
    near = [entry for entry in chosen("", "1") if not (entry.books or entry.answer_ms)]
    assert sorted(entry.kind.letter for entry in near) == list("abcdefghij")
    assert sorted(entry.kind.letter for entry in chosen("", "1") if entry.answer_ms) == list("acghi")
    assert sorted(entry.kind.letter for entry in chosen("", "2")) == list("acgh")
    assert [entry.name for entry in chosen("ag", "12")] == ["a1", "g1", "a2", "g2", "a1-far", "g1-far", "g1-booked"]


def test_spread_of_nothing_is_nothing() -> None:
    assert spread([]) is None
    assert str(spread([1, 3, 2])) == "2.00 (1.00 to 3.00)"


def test_results_become_json_with_their_names() -> None:
    told = plain(Results(runs={"a1": [run(100), None]}, delays={"a1": {20: []}}))
    assert told["runs"]["a1"][0]["jobs_per_s"] == 100
    assert told["runs"]["a1"][1] is None
    assert told["delays"] == {"a1": {"20": []}}


def test_a_table_replaces_what_stands_between_its_marks_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = ("<!-- bench: begin, written by its command -->", "<!-- bench: end -->")
    page.write_text(f"before\n{marks[0]}\n\nold\n\n{marks[1]}\nafter\n")
    for _ in range(2):
        output.write_page("bench", ["new", "lines"], page)
    assert page.read_text() == f"before\n{marks[0]}\n\nnew\nlines\n\n{marks[1]}\nafter\n"


def test_a_page_without_the_marks_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("words\n")
    with pytest.raises(ValueError, match=r"page\.md has no place for bench"):
        output.write_page("bench", ["new"], page)
    assert page.read_text() == "words\n"


def test_performance_page_has_the_place_that_the_command_writes_into() -> None:
    page = (output.EXPLANATION / "performance.md").read_text()
    assert "<!-- bench: begin, written by its command -->" in page
    assert "<!-- bench: end -->" in page


def test_commits_are_counted_in_the_log_of_changes(tmp_path: Path) -> None:
    """Also when the log is begun anew in the same file, over what earlier transactions left in it."""
    path, log = tmp_path / "journal.db", tmp_path / "journal.db-wal"
    assert wal.commits(log) == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        for _ in range(5):
            connection.execute("INSERT INTO t VALUES (zeroblob(20000))")  # several pages: frames that end nothing
        assert wal.commits(log) == 6
        assert wal.frames(log) > 20
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM t").fetchall()
        connection.execute("COMMIT")
        assert wal.commits(log) == 1


def test_a_tally_is_seen_by_whoever_has_the_file(tmp_path: Path) -> None:
    sink, reader = Tally(tmp_path / "count"), Tally(tmp_path / "count")
    assert reader.get() == 0
    sink.set(1234)
    assert reader.get() == 1234


def test_processor_time_is_that_of_the_session_asked_for() -> None:
    import os

    assert cpu.seconds_of(sessions={os.getsid(0)}) > 0
    assert cpu.seconds_of(trees={os.getpid()}) > 0
    assert cpu.seconds_of() == 0
