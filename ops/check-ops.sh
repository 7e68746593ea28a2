#!/usr/bin/env bash
# Check the files in ops/ with the tools that will read them in production: promtool, amtool, systemd-analyze.
#
# Python cannot bring these tools, so they come by apt when this runs as root; else the missing one is named. Where apt
# cannot reach its servers, that is a failure too: a check that did not run has found nothing.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "${BASH_SOURCE[0]}")"

exposure_max=2.5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need() { # need TOOL PACKAGE
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "check-ops: installing $2, which has $1" >&2
        if apt-get update -qq >"$work/apt" 2>&1 \
            && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >>"$work/apt" 2>&1; then
            return
        fi
        tail -n 5 "$work/apt" >&2
        echo "check-ops: $2 could not be installed (offline?), so nothing was checked with $1. Install it by hand, and" \
            "run this again." >&2
    else
        echo "check-ops: needs $1. On Debian and Ubuntu: apt install $2" >&2
    fi
    exit 1
}

fail() {
    echo "check-ops: $*" >&2
    exit 1
}

checked=0

rules=(prometheus/*.rules.yml)
rule_tests=(prometheus/*.test.yml)
need promtool prometheus
promtool check rules "${rules[@]}"
promtool check config prometheus/prometheus.yml
promtool test rules "${rule_tests[@]}"
checked=$((checked + ${#rules[@]} + ${#rule_tests[@]} + 1))

routes=(alertmanager/*.yml)
need amtool prometheus-alertmanager
amtool check-config "${routes[@]}"
# Who hears of what. A route that nobody takes is no error to amtool.
while read -r severity receivers; do
    found=$(amtool config routes test --config.file=alertmanager/alertmanager.yml "severity=$severity" 2>/dev/null)
    [ "$found" = "$receivers" ] || fail "alerts of severity $severity go to '$found' and not to '$receivers'"
done <<'END'
critical pager,slack
warning slack
info slack-quiet
none watchdog
END
checked=$((checked + ${#routes[@]}))

units=(systemd/*.service)
need systemd-analyze systemd
for unit in "${units[@]}"; do
    name=$(basename "$unit")
    # What is to be run is not installed here; everything else is looked at as it stands.
    sed 's|^ExecStart=/opt/fillonce/\.venv/bin/fillonce|ExecStart=/bin/true|' "$unit" >"$work/$name"
done
# An unknown key is only a warning with status 0, and a key that systemd does not know protects nothing.
warnings=$(cd "$work" && systemd-analyze verify ./*.service 2>&1) || warnings+=" (failed)"
[ -z "$warnings" ] || fail "systemd-analyze verify: $warnings"
for unit in "${units[@]}"; do
    said=$(systemd-analyze security --offline=yes --no-pager "$work/$(basename "$unit")" 2>&1) || true
    exposure=$(sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p' <<<"$said")
    [ -n "$exposure" ] || fail "$unit: systemd-analyze security said no exposure level: $said"
    awk -v is="$exposure" -v most="$exposure_max" 'BEGIN { exit !(is <= most) }' \
        || fail "$unit: exposure $exposure is above $exposure_max: systemd-analyze security --offline=yes ops/$unit"
    echo "$unit: exposure $exposure"
done
checked=$((checked + ${#units[@]}))

echo "check-ops: $checked files are in order."
