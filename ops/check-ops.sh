#!/usr/bin/env bash
# Check the files in ops/ with the tools that will read them in production: promtool, amtool, systemd-analyze.
#
# Python cannot bring these tools, so they come by apt when this runs as root; else the missing one is named.
# A check starts to work when its files appear.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "${BASH_SOURCE[0]}")"

need() { # need TOOL PACKAGE
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "check-ops: installing $2, which has $1" >&2
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >&2
    else
        echo "check-ops: needs $1. On Debian and Ubuntu: apt install $2" >&2
        exit 1
    fi
}

checked=0

rules=(prometheus/*.rules.yml)
rule_tests=(prometheus/*.test.yml)
if ((${#rules[@]} + ${#rule_tests[@]})); then
    need promtool prometheus
    if ((${#rules[@]})); then promtool check rules "${rules[@]}"; fi
    if ((${#rule_tests[@]})); then promtool test rules "${rule_tests[@]}"; fi
    checked=$((checked + ${#rules[@]} + ${#rule_tests[@]}))
fi

routes=(alertmanager/*.yml)
if ((${#routes[@]})); then
    need amtool prometheus-alertmanager
    amtool check-config "${routes[@]}"
    checked=$((checked + ${#routes[@]}))
fi

units=(systemd/*.service systemd/*.timer)
if ((${#units[@]})); then
    need systemd-analyze systemd
    # An unknown key is only a warning with status 0, and a key that systemd does not know protects nothing.
    warnings=$(systemd-analyze verify "${units[@]}" 2>&1) || warnings+=" (failed)"
    if [ -n "$warnings" ]; then
        echo "$warnings" >&2
        exit 1
    fi
    checked=$((checked + ${#units[@]}))
fi

if ((checked)); then
    echo "check-ops: $checked files are in order."
else
    echo "check-ops: there is nothing to check yet."
fi
