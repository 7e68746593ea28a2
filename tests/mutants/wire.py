"""How a request goes out, and what its answer is taken for."""

from typing import Final

from tests.mutants.mutant import SCRIPTS, Edit, Mutant

GATEWAY_TESTS: Final = "tests/integration/test_gateway.py"
CLASSIFIER_TESTS: Final = "tests/unit/test_failure_classifier.py"
TRANSPORT_TESTS: Final = "tests/integration/test_transport.py"
ANSWER_TESTS: Final = "tests/unit/exchange/test_http_answer.py"
TRANSPORT: Final = "app/exchange/transport.py"
SHARED: Final = "app/job_safety/failure_table_shared.py"
USDM: Final = "app/job_safety/failure_table_usdm.py"

MUTANTS: Final = (
    Mutant(
        name="signed_with_another_timestamp",
        breaks="the gateway stamps the request anew before it signs it",
        harm="what the journal pinned is not what the exchange checks: there is no fence",
        is_searched=False,
        expected="carries_exactly_the_pinned or survives_the_wire",
        edits=(
            Edit(
                file="app/exchange/signing.py",
                old='        "quantity": wire(order.quantity),\n        "timestamp": str(order.timestamp_ms),\n',
                new='        "quantity": wire(order.quantity),\n        "timestamp": str(order.timestamp_ms + 1),\n',
            ),
        ),
        tests=("tests/unit/exchange/test_pinned.py", GATEWAY_TESTS),
    ),
    Mutant(
        name="redirect_followed",
        breaks="the HTTP client follows redirects",
        harm="the request is sent to two places, and both may execute it",
        is_searched=False,
        expected="proves_nothing",
        edits=(
            Edit(
                file=TRANSPORT,
                old="            packing = answer.headers.get(",
                new="            if answer.status in {302, 307}:\n"
                "                answer = self._ask(target.origin, message, method, connect_timeout_s=3.0)\n"
                "            packing = answer.headers.get(",
            ),
        ),
        tests=(GATEWAY_TESTS,),
    ),
    Mutant(
        name="library_repeats_requests",
        breaks="the HTTP client sends again when an answer does not come",
        harm="below every protection that we have, the order goes out twice",
        is_searched=False,
        expected="silence_leaves or proves_nothing",
        edits=(
            Edit(
                file=TRANSPORT,
                old="            answer = read_answer(connection.receive, method=method)\n",
                new="            try:\n"
                "                answer = read_answer(connection.receive, method=method)\n"
                "            except (AnswerError, OSError):\n"
                "                connection.close()\n"
                "                connection = self._connections.take(origin, connect_timeout_s=connect_timeout_s)\n"
                "                is_whole = connection.transmit(message)\n"
                "                answer = read_answer(connection.receive, method=method)\n",
            ),
        ),
        tests=(GATEWAY_TESTS,),
    ),
    Mutant(
        name="rest_of_an_answer_is_left",
        breaks="a connection serves again although something came behind its last answer",
        harm="what came is taken for the answer to the next order, which may not even have arrived",
        is_searched=False,
        expected="never_serves_again or forbid_another",
        edits=(
            Edit(
                file="app/exchange/http_answer.py",
                old="may_another_follow=is_kept and stream.is_used_up",
                new="may_another_follow=is_kept",
            ),
        ),
        tests=(TRANSPORT_TESTS, ANSWER_TESTS),
    ),
    Mutant(
        name="connection_is_not_looked_at",
        breaks="a kept connection is used without a look at what came meanwhile",
        harm="the server has hung up: a request goes into the void and leaves a doubt, or a stray answer is believed",
        is_searched=False,
        expected="nobody_asked_for or costs_no_doubt",
        edits=(Edit(file="app/exchange/connections.py", old=" and not connection.has_something_to_read()", new=""),),
        tests=(TRANSPORT_TESTS, GATEWAY_TESTS),
    ),
    Mutant(
        name="short_answer_is_whole",
        breaks="an answer that is cut short ends where the connection ends",
        harm="half an answer is read as if the exchange had said no more than that",
        is_searched=False,
        expected="cut_short",
        edits=(
            Edit(
                file="app/exchange/http_answer.py",
                old="            if not size:\n                return",
                new="            if not size or not self._more_or_end():\n                return",
            ),
            Edit(
                file="app/exchange/http_answer.py",
                old='                return b"".join(parts)\n            self._more()\n',
                new='                return b"".join(parts)\n',
            ),
            Edit(
                file="app/exchange/http_answer.py",
                old="    def _more(self) -> None:\n",
                new="    def _more_or_end(self) -> bool:\n"
                "        self._data, self._at = self._data[self._at :] + (chunk := self._receive()), 0\n"
                "        return bool(chunk)\n\n"
                "    def _more(self) -> None:\n",
            ),
        ),
        tests=(ANSWER_TESTS, TRANSPORT_TESTS),
    ),
    Mutant(
        name="accepted_without_our_id",
        breaks="any answer with an order in it counts as ours",
        harm="another order's fills are booked as ours, and what became of ours is never asked",
        is_searched=False,
        expected="about_another_order",
        edits=(
            Edit(
                file="app/exchange/answers.py",
                old="if read.client_order_id != order.client_order_id or read.symbol != order.symbol:",
                new="if not read.client_order_id:",
            ),
        ),
        tests=(GATEWAY_TESTS,),
    ),
    Mutant(
        name="duplicate_id_is_a_refusal",
        breaks="-4116, the id is in use, ends the intent as refused",
        harm="the id is in use because an earlier attempt lives: its fill belongs to a row that says REJECTED",
        expected="documented_meaning or page_of_the_documentation",
        edits=(
            Edit(
                file=USDM,
                old='        FailureClass.DUPLICATE_ID,\n        "usdm_duplicate_client_order_id",\n',
                new='        FailureClass.REJECTED_BUSINESS,\n        "usdm_duplicate_client_order_id",\n',
            ),
        ),
        tests=(*SCRIPTS, CLASSIFIER_TESTS),
    ),
    Mutant(
        name="unknown_503_is_a_failure",
        breaks="the 503 that says that nobody knows is taken for one that says not executed",
        harm="the exchange executes half of these: they are sent again blindly",
        expected="venue_leaves_things_unknown or three_documented_failures",
        edits=(
            Edit(
                file=USDM,
                old='        FailureClass.OUTCOME_UNKNOWN,\n        "usdm_503_unknown",\n',
                new='        FailureClass.EXCHANGE_DOWN,\n        "usdm_503_unknown",\n',
            ),
        ),
        tests=(*SCRIPTS, CLASSIFIER_TESTS),
    ),
    Mutant(
        name="lost_answer_is_not_sent",
        breaks="a connection that breaks after the request left is taken for one that was never made",
        harm="the commonest way to buy twice",
        expected="late_fill_reopens or never_made_counts",
        edits=(
            Edit(
                file=SHARED,
                old='            FailureClass.OUTCOME_UNKNOWN,\n            "transport_other",\n',
                new='            FailureClass.NOT_EXECUTED_RETRYABLE,\n            "transport_other",\n',
            ),
        ),
        tests=(*SCRIPTS, CLASSIFIER_TESTS),
    ),
    Mutant(
        name="unlisted_answer_is_a_refusal",
        breaks="an answer that no row of the table knows counts as refused",
        harm="the next code that the exchange invents means whatever it means, and we send again",
        is_searched=False,
        expected="unless_a_row_lists_it",
        edits=(
            Edit(
                file=SHARED,
                old='    FailureClass.OUTCOME_UNKNOWN,\n    "unlisted",\n',
                new='    FailureClass.REJECTED_BUSINESS,\n    "unlisted",\n',
            ),
        ),
        tests=(CLASSIFIER_TESTS, GATEWAY_TESTS),
    ),
    Mutant(
        name="socket_is_not_asked",
        breaks="an exception that says not sent is believed although bytes have left",
        harm="libraries wrap errors in odd ways: the request had arrived",
        is_searched=False,
        expected="bytes_have_left",
        edits=(
            Edit(
                file=TRANSPORT,
                old="fault = TransportFault.OTHER if self._wire.sent else fault_of(error)",
                new="fault = fault_of(error)",
            ),
        ),
        tests=(GATEWAY_TESTS,),
    ),
    Mutant(
        name="commit_is_not_on_disk",
        breaks="SQLite does not wait for the disk when DISPATCHED is committed",
        harm="after a power cut the journal has forgotten what was sent",
        is_searched=False,
        expected="on_disk",
        edits=(Edit(file="app/journal/engine.py", old="PRAGMA synchronous=FULL", new="PRAGMA synchronous=OFF"),),
        tests=("tests/integration/test_journal.py",),
    ),
    Mutant(
        name="postgres_commit_is_not_on_disk",
        breaks="PostgreSQL does not wait for its log when DISPATCHED is committed",
        harm="after a crash of the server the journal has forgotten what was sent",
        is_searched=False,
        expected="on_disk",
        edits=(Edit(file="app/journal/engine.py", old="-c synchronous_commit=on", new="-c synchronous_commit=off"),),
        tests=("tests/integration/test_journal.py",),
    ),
)
