#!/bin/sh
# Print the Python that .venv is to be made with, or say what is missing and how to get it.
#
# usage: find-python.sh [INTERPRETER]    without one: the newest at hand of the versions fillonce is tried on
set -eu

probe='
import sys
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 11):
    print("old", version)
else:
    try:
        import ensurepip, venv
        print("good", version)
    except ImportError:
        print("bare", version)
'
asked=${1:-}
old=
bare=
[ -n "$asked" ] || set -- python3.13 python3.12 python3.11 python3

# A name on PATH proves little (a version manager leaves names there that only print an error), so each is run.
# Plain python3 comes last: it may be newer than what fillonce is tried on.
for python; do
    verdict=$("$python" -c "$probe" 2>/dev/null) || continue
    version=${verdict#* }
    case $verdict in
        good*) echo "$python"; exit 0 ;;
        bare*) if [ "$python" = python3 ]; then bare=python3-venv; else bare=python$version-venv; fi ;;
        old*) old="$python is $version" ;;
    esac
done

{
    if [ -n "$bare" ]; then
        echo "Python is here, but not its part that makes virtual environments (ensurepip)."
        echo "On Debian and Ubuntu: apt install $bare"
    elif [ -n "$old" ]; then
        echo "fillonce needs Python 3.11 or newer, and $old."
        echo "Where a newer one is installed under another name: make install PYTHON=/path/to/python3"
    elif [ -n "$asked" ]; then
        echo "$asked does not run. Leave PYTHON out to let make choose."
    else
        echo "fillonce needs Python 3.11 or newer, and there is no python3 that runs."
        echo "On Debian and Ubuntu: apt install python3 python3-venv"
    fi
} >&2
exit 1
