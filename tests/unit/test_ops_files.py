"""What operators are given holds together: rules and dashboards name metrics that exist, and link to pages that do.

`make check-ops` asks promtool, amtool and systemd-analyze; what they cannot know is checked here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.delivery import QUEUES
from app.observability.catalog import CATALOG
from app.observability.metric import Kind
from app.settings.environment import known_names
from workers.supervisor import DRAIN_S

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
RULES = OPS / "prometheus" / "fillonce.rules.yml"
TESTS = OPS / "prometheus" / "fillonce.test.yml"
DASHBOARDS = sorted((OPS / "grafana").glob("*.json"))
FUNCTIONS = {
    "absent", "and", "by", "count", "histogram_quantile", "increase", "max", "min", "offset", "on", "or", "rate", "sum",
    "time", "unless", "vector",
}  # fmt: skip
FROM_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
SUFFIX = re.compile(r"_(bucket|sum|count)\Z")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric that a PromQL expression selects, with the labels that it is selected by."""
    bare = re.sub(r"\b(by|on)\s*\([^)]*\)", " ", expression)
    for name, braces in re.findall(r"\b([a-zA-Z_][a-zA-Z0-9_]*)\b(?!\s*\()(?:\{([^}]*)\})?(?![^{]*\})", bare):
        if name not in FUNCTIONS and not re.fullmatch(r"[smhd]|e", name):
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]
        for annotation in board["annotations"]["list"]:
            yield f"{path.name}: {annotation['name']}", annotation["expr"]


def unknown(expression: str) -> list[str]:
    """Return what an expression names and the exporter does not have: metrics, or labels of metrics."""
    found = []
    for name, labels in selectors(expression):
        if name in FROM_PROMETHEUS:
            found += [f"{name}{{{label}}}" for label in labels - FROM_PROMETHEUS[name]]
            continue
        base = SUFFIX.sub("", name)
        metric = CATALOG.get(name) or CATALOG.get(base)
        is_part = SUFFIX.search(name) is not None and name not in CATALOG
        if metric is None or is_part != (metric.kind is Kind.HISTOGRAM):
            found.append(name)
            continue
        known = {*metric.labels, "instance", "job", *(("le",) if is_part else ())}
        found += [f"{name}{{{label}}}" for label in labels - known]
    return found


def test_every_metric_of_a_rule_or_dashboard_is_exported() -> None:
    lost = {where: names for where, expression in expressions() if (names := unknown(expression))}
    assert lost == {}


def test_the_search_for_metrics_sees_what_is_not_there() -> None:
    """Else the test above would pass by being blind."""
    question = 'sum by (job_type) (rate(a_total{x="1", y!~"b"}[5m])) / on () b > 3 and time() - c_bucket > 2'
    assert list(selectors(question)) == [("a_total", {"x", "y"}), ("b", set()), ("c_bucket", set())]
    assert unknown("quantum_global_kill_switch == 1") == ["quantum_global_kill_switch"]
    assert unknown('circuit_breaker_state{order_id="1"} == 2') == ["circuit_breaker_state{order_id}"]
    assert unknown("recovery_seconds > 1") == ["recovery_seconds"]
    assert unknown("queue_depth_bucket") == ["queue_depth_bucket"]
    assert len(list(expressions())) > 70


def test_every_rule_has_a_severity_words_and_a_page_that_exists() -> None:
    for rule in rules():
        name = rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}, name
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, name
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / page).read_text()
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in known, f"{name}: {page}#{anchor}"


def test_every_rule_is_seen_to_fire_and_to_stay_silent() -> None:
    cases: Counter[tuple[str, bool]] = Counter()
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        for one in case.get("promql_expr_test", ()):
            for name in re.findall(r'alertname="(\w+)"', one["expr"]):
                cases[name, bool(one["exp_samples"])] += 1
    for rule in rules():
        if rule["alert"] != "Watchdog":  # it is always on, and seen alone in the quiet system
            assert {cases[rule["alert"], True] > 0, cases[rule["alert"], False] > 0} == {True}, rule["alert"]


def test_rules_have_names_of_their_own_and_no_absurd_rates() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert [rule["alert"] for rule in rules() if re.search(r"\brate\(", rule["expr"])] == []


@pytest.mark.parametrize(
    "needed",
    [
        "KillSwitchActive", "CircuitOpen", "RetryRateHigh", "RetrySuccessLow", "DuplicateExecuted", "DuplicatesBlocked",
        "StuckInDoubt", "IntentQuarantined", "RecoverySlow", "SweeperDead", "ExporterDown", "RedisUnsafe", "RetrySpike",
        "JournalLag", "QueueOld", "RedisDown", "LedgerDifference", "ExchangeBan",
    ],
)  # fmt: skip
def test_what_must_be_told_has_a_rule(needed: str) -> None:
    assert needed in {rule["alert"] for rule in rules()}


def test_every_alert_is_in_the_table_of_runbooks() -> None:
    table = (ROOT / "docs/how-to/README.md").read_text().partition("When an alert calls:")[2]
    shown = re.findall(r"`([A-Z]\w*…?)`", table)
    patterns = [re.compile(re.escape(name).replace("…", r"\w*")) for name in shown]
    others = {"ExporterSlow", "DutyNotDone", "NoDuties", "ExchangeClockUnknown", "AlarmRaised", "RecoverySlow"}
    others |= {"WouldBlock", "Watchdog"}
    lost = [rule["alert"] for rule in rules() if not any(one.fullmatch(rule["alert"]) for one in patterns)]
    assert set(lost) <= others, "named by their pages alone"
    for page in {rule["annotations"]["runbook"].partition("#")[0] for rule in rules()}:
        named = {rule["alert"] for rule in rules() if rule["annotations"]["runbook"].partition("#")[0] == page}
        text = (ROOT / page).read_text() + (ROOT / "docs/how-to/README.md").read_text()
        for name in named & others - {"Watchdog"}:
            assert name in text, f"{page} does not name {name}"


def test_the_number_of_alerts_in_the_guide_is_right() -> None:
    guide = (ROOT / "docs/PRODUCTION_HARDENING_COMPLETE.md").read_text()
    assert f"{len(rules())} alerts" in guide


def test_second_orders_are_critical_and_second_tries_are_not() -> None:
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    assert (severities["DuplicateExecuted"], severities["DuplicatesBlocked"]) == ("critical", "info")


def test_a_panel_has_a_name_a_place_and_a_question_of_its_own() -> None:
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            where = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(where["x"], where["x"] + where["w"])
                for y in range(where["y"], where["y"] + where["h"])
            }
            assert where["x"] + where["w"] <= 24, panel["title"]
            assert not cells & taken, panel["title"]
            taken |= cells
            assert panel["type"] == "row" or panel["targets"], panel["title"]


# How it runs


def units() -> list[Path]:
    return sorted((OPS / "systemd").glob("*.service"))


def entries(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith(("#", ";"))]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def test_units_let_running_work_finish_and_come_back() -> None:
    names = {path.name for path in units()}
    assert names == {"fillonce-exporter.service", "fillonce-supervisor.service", "fillonce-worker@.service"}
    for path in units():
        found = dict(entries(path))
        assert (found["KillMode"], found["Restart"]) == ("mixed", "always"), path.name
        assert int(found["TimeoutStopSec"]) > DRAIN_S, path.name
        assert found["StartLimitIntervalSec"] == "0", f"{path.name}: it must never stop trying"


def test_units_pass_secrets_as_files_and_never_in_the_environment() -> None:
    for path in units():
        loaded = {value.partition(":")[0] for key, value in entries(path) if key == "LoadCredential"}
        told = dict(value.partition("=")[::2] for key, value in entries(path) if key == "Environment")
        files = {value.removeprefix("%d/") for name, value in told.items() if name.endswith("_FILE")}
        assert files == loaded, path.name
        assert set(told) <= known_names(), path.name
        assert not {"BINANCE_API_KEY", "BINANCE_API_SECRET", "REDIS_URL", "DATABASE_URL"} & set(told), path.name
    assert any("BINANCE_API_SECRET_FILE" in path.read_text() for path in units())


def test_the_worker_template_is_for_queues() -> None:
    text = (OPS / "systemd" / "fillonce-worker@.service").read_text()
    assert re.search(r"^ExecStart=\S+/fillonce worker %i$", text, flags=re.MULTILINE)
    (shown,) = re.findall(r"`fillonce-worker@(\w+)`", (ROOT / "ops/README.md").read_text())
    assert shown in QUEUES
