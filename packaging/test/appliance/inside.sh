#!/bin/sh
# Runs inside the booted image for packaging/test/appliance.sh; writes to the serial console.
exec >/dev/ttyS0 2>&1
config=/etc/espalier/espalier.yaml
try() { # what, command…
	what=$1
	shift
	if "$@" >/tmp/out 2>&1; then echo "ok: $what"; else
		echo "FAIL: $what: $(cat /tmp/out)"
	fi
}
active() { systemctl is-active --quiet "$1"; }
ended() { # unit
	for _ in $(seq 120); do
		case $(systemctl is-active "$1") in inactive | failed) return 0 ;; esac # not deactivating
		sleep 1
	done
	return 1
}
signed() { # port that the host has asked for
	until grep -q "\"port\":$1," /var/lib/espalier/access.log; do sleep 1; done
}
controlled() { # the process that has taken over has the control socket too
	for _ in $(seq 60); do
		espalier status -c $config && return
		sleep 1
	done
	return 1
}

signed 1
echo
try "espalier.service is active" active espalier.service
try "it runs as its user, with one capability" sh -c '
	pid=$(systemctl show -p MainPID --value espalier) && [ "$(stat -c %U /proc/$pid)" = espalier ] &&
	grep -q "^CapBnd:.0*400$" /proc/$pid/status && grep -q "^NoNewPrivs:.1$" /proc/$pid/status && grep -q "^Seccomp:.2$" /proc/$pid/status'
exposure=$(systemd-analyze security --threshold=20 espalier.service | tail -1) && echo "ok: $exposure" || echo "FAIL: $exposure"
try "systemctl reload" systemctl reload espalier
cp -p $config /tmp/good
echo 'nonsense: 1' >>$config
try "systemctl reload fails with a bad file" sh -c '! systemctl reload espalier'
try "and says where" sh -c 'systemctl reload espalier; journalctl -u espalier --no-pager | grep -q "espalier.yaml:[0-9]*:1: nonsense"'
cp -p /tmp/good $config
try "and works again" systemctl reload espalier
try "the watchdog is on" sh -c '[ "$(systemctl show -p WatchdogUSec --value espalier)" = 30s ]'
restarts=$(systemctl show -p NRestarts --value espalier)
systemctl kill -s STOP --kill-whom=main espalier
try "and restarts a process that hangs" sh -c "for _ in \$(seq 90); do [ \$(systemctl show -p NRestarts --value espalier) -gt $restarts ] && systemctl is-active espalier && exit; sleep 1; done; false"
try "listens on a port below 1024, as its user" sh -c '
	mkdir -p /run/systemd/system/espalier.service.d && printf "[Service]\nEnvironment=ESPALIER_WEB_PUBLIC=:8080,127.0.0.1:443\n" >/run/systemd/system/espalier.service.d/try.conf &&
	systemctl daemon-reload && systemctl restart espalier && ss -Hltn "sport = 443" | grep -q 127.0.0.1:443'
rm -r /run/systemd/system/espalier.service.d
systemctl daemon-reload
try "security updates are on" sh -c 'systemctl is-enabled apt-daily-upgrade.timer && apt-config dump | grep -q "Unattended-Upgrade \"1\""'
try "no policy keeps packages from restarting and stopping services" [ ! -e /usr/sbin/policy-rc.d ]
systemctl stop apt-daily.timer apt-daily-upgrade.timer # dpkg is needed below
try "the firewall is on" sh -c 'nft list ruleset | grep -q "policy drop"'
try "many tunnels fit" sh -c '[ "$(sysctl -n net.core.somaxconn)" = 65535 ] && [ "$(sysctl -n net.netfilter.nf_conntrack_max)" -ge 1048576 ]'
try "the system has grown to its disk" sh -c '[ "$(df --output=size -BM / | tail -1 | tr -dc 0-9)" -gt 4500 ]'
try "nothing has failed" sh -c '! systemctl list-units --failed --no-legend --plain | grep .'
try "nothing in the journal was denied to it" sh -c '! journalctl -u espalier --no-pager | grep -i "not permitted\|permission denied"'

echo 'proxy: {drain_timeout: 240s, clients: [loopback, private]}' >/tmp/yaml
sed '/^proxy:/,/^$/d' /tmp/good | cat - /tmp/yaml >$config
systemctl stop espalier
try "the sockets start" systemctl start espalier-proxy.socket espalier-public.socket espalier-admin.socket
try "espalier@a starts on them" systemctl start espalier@a
echo "INSIDE TAKEOVER"
signed 2
try "takeover" /usr/lib/espalier/takeover
try "espalier@b is active" active espalier@b
echo "INSIDE TAKEN OVER"
try "espalier@a ends with its last tunnel" ended espalier@a
try "espalier@b can be controlled" controlled
try "takeover back" /usr/lib/espalier/takeover
try "espalier@a is active" active espalier@a
try "espalier@b ends" ended espalier@b
try "espalier@a can be controlled" controlled
try "an upgrade" env DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold /usr/local/sbin/again.deb
try "hands over to espalier@b" active espalier@b
try "espalier@a ends" ended espalier@a
try "espalier@b can be controlled" controlled
echo "INSIDE UPGRADED"
try "a purge" dpkg -P espalier
try "stops it" sh -c '! pgrep -ax espalier && ! systemctl is-active espalier@b espalier-proxy.socket'
try "and leaves nothing" sh -c '[ ! -e /var/lib/espalier ] && [ ! -e /etc/espalier ] && ! find /etc/systemd/system -name "espalier*.s[eo]*" ! -name espalier-setup-link.service | grep .'
echo "INSIDE DONE"
