#!/bin/sh
# Start and stop the gateway, with systemd or without.
#
#     run_cvmfs_gateway.sh <start|stop|restart|reload|replace|status> [USER]
#
# USER runs it (root if none is given; under systemd that is the unit cvmfs-gateway, otherwise cvmfs-gateway@USER).
# "reload" reads keys, repositories and the TLS certificate again, "replace" starts the program anew behind the open
# port; neither disconnects anybody. "status" prints "pong" and returns 0 if the gateway runs.
#
# Without systemd: CVMFS_GATEWAY (the program), CVMFS_GATEWAY_PIDFILE and CVMFS_GATEWAY_LOG may be set.

set -eu

action=${1:-}
user=${2:-root}
program=${CVMFS_GATEWAY:-cvmfs_gateway}
pidfile=${CVMFS_GATEWAY_PIDFILE:-/run/cvmfs-gateway.pid}
log=${CVMFS_GATEWAY_LOG:-/var/log/cvmfs-gateway.log}
stop_seconds=120

if [ "$user" = root ]; then unit=cvmfs-gateway; else unit=cvmfs-gateway@$user; fi

with_systemd() { [ -d /run/systemd/system ] && command -v systemctl > /dev/null; }

# the process of the pid file, if it is there and no other one has got its number
running() {
    pid=$(cat "$pidfile" 2> /dev/null) || return 1
    [ -n "$pid" ] && kill -0 "$pid" 2> /dev/null && tr '\0' '\n' < "/proc/$pid/cmdline" | grep -q "${program##*/}"
}

start() {
    if running; then echo "CVMFS repository gateway is running already."; return 0; fi
    if [ "$user" = root ]; then
        setsid "$program" >> "$log" 2>&1 < /dev/null &
    else
        touch "$log" && chown "$user" "$log"
        setsid setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups "$program" >> "$log" 2>&1 < /dev/null &
    fi
    echo $! > "$pidfile"
    waited=0
    until listens_to_signals; do
        if ! running || [ "$waited" -ge 30 ]; then
            rm -f "$pidfile"
            echo "CVMFS repository gateway did not start, see $log" >&2
            return 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
}

# until it has a handler for SIGHUP, the lowest bit of the mask, a reload would kill it
listens_to_signals() {
    running && case $(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$pid/status") in *[13579bdf]) ;; *) return 1 ;; esac
}

stop() {
    running || { rm -f "$pidfile"; return 0; }
    kill "$pid"
    waited=0
    while kill -0 "$pid" 2> /dev/null; do
        if [ "$waited" -ge "$stop_seconds" ]; then kill -9 "$pid"; break; fi
        sleep 1
        waited=$((waited + 1))
    done
    rm -f "$pidfile"
}

signal() {
    running || { echo "CVMFS repository gateway is not running" >&2; return 1; }
    kill "-$1" "$pid"
}

case $action in
start)
    if with_systemd; then systemctl start "$unit"; else start; fi
    echo "CVMFS repository gateway started." ;;
stop)
    if with_systemd; then systemctl stop "$unit"; else stop; fi
    echo "CVMFS repository gateway stopped." ;;
restart)
    if with_systemd; then systemctl restart "$unit"; else stop; start; fi
    echo "CVMFS repository gateway restarted." ;;
reload)
    if with_systemd; then systemctl reload "$unit"; else signal HUP; fi
    echo "CVMFS repository gateway reloaded." ;;
replace)
    if with_systemd; then systemctl kill --kill-who=main --signal=USR2 "$unit"; else signal USR2; fi
    echo "CVMFS repository gateway replaced." ;;
status)
    if with_systemd; then systemctl is-active --quiet "$unit" && answer=0 || answer=1; else running && answer=0 || answer=1; fi
    if [ "$answer" = 0 ]; then echo "pong"; else echo "CVMFS repository gateway is not running"; fi
    exit "$answer" ;;
*)
    echo "Unknown action: $action" >&2
    echo "Usage: run_cvmfs_gateway.sh <start|stop|restart|reload|replace|status> [USER]" >&2
    exit 1 ;;
esac
