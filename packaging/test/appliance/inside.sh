#!/bin/sh
# Runs inside the booted image for packaging/test/appliance.sh; writes to the serial console.
exec >/dev/ttyS0 2>&1
c='-c /etc/espalier/espalier.yaml'
try() { # what, command…
	what=$1
	shift
	if "$@" >/tmp/out 2>&1; then echo "ok: $what"; else
		echo "FAIL: $what: $(cat /tmp/out)"
	fi
}
active() { systemctl is-active --quiet "$1"; }
sleep 45 # until packaging/test/appliance.sh is through with its own part
echo
try "espalier.service is active" active espalier.service
try "it runs as its user, with one capability" sh -c '
	pid=$(systemctl show -p MainPID --value espalier) && [ "$(stat -c %U /proc/$pid)" = espalier ] &&
	grep -q "^CapBnd:.0*400$" /proc/$pid/status && grep -q "^NoNewPrivs:.1$" /proc/$pid/status && grep -q "^Seccomp:.2$" /proc/$pid/status'
try "systemctl reload" systemctl reload espalier
cp -p /etc/espalier/espalier.yaml /tmp/good
echo 'nonsense: 1' >>/etc/espalier/espalier.yaml
try "systemctl reload fails with a bad file" sh -c '! systemctl reload espalier'
cp -p /tmp/good /etc/espalier/espalier.yaml
try "and works again" systemctl reload espalier
try "watchdog is on" sh -c '[ "$(systemctl show -p WatchdogUSec --value espalier)" = 30s ]'
try "security updates are on" sh -c 'systemctl is-enabled apt-daily-upgrade.timer && apt-config dump | grep -q "Unattended-Upgrade \"1\""'
try "the firewall is on" sh -c 'nft list ruleset | grep -q "policy drop"'
try "nothing in the journal was denied to it" sh -c '! journalctl -u espalier --no-pager | grep -i "not permitted\|permission denied"'
echo 'proxy: {drain_timeout: 5s, clients: [loopback, private]}' >/tmp/yaml
sed '/^proxy:/,/^$/d' /tmp/good | cat - /tmp/yaml >/etc/espalier/espalier.yaml
systemctl stop espalier
try "the sockets start" systemctl start espalier-proxy.socket espalier-public.socket espalier-admin.socket
try "espalier@a starts on them" systemctl start espalier@a
sleep 2
echo "INSIDE TAKEOVER"
sleep 5
try "takeover" /usr/lib/espalier/takeover
try "espalier@b is active" active espalier@b
for _ in $(seq 60); do active espalier@a || break; sleep 1; done
try "espalier@a has ended" sh -c '! systemctl is-active espalier@a'
sleep 5
try "status" espalier status $c
try "takeover back" /usr/lib/espalier/takeover
try "espalier@a is active" active espalier@a
for _ in $(seq 60); do active espalier@b || break; sleep 1; done
sleep 3
try "status again" espalier status $c
try "an upgrade" env DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold /usr/local/sbin/again.deb
try "hands over to espalier@b" active espalier@b
for _ in $(seq 60); do active espalier@a || break; sleep 1; done
sleep 3
try "which answers" espalier status $c
echo "INSIDE TAKEN OVER"
sleep 10
try "a purge" dpkg -P espalier
try "stops it" sh -c '! pgrep -x espalier && ! systemctl is-active espalier@b espalier-proxy.socket'
try "and leaves nothing" sh -c '[ ! -e /var/lib/espalier ] && [ ! -e /etc/espalier ]'
echo "INSIDE DONE"
