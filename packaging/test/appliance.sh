#!/bin/sh
# Boots an appliance image in qemu, as UEFI does, and uses it from outside: the PAC
# script, a tunnel, the ports that must be closed, the units and a takeover inside. The
# image is not changed. It ends by itself, after 30 minutes at most.
#
#     packaging/test/appliance.sh IMAGE DEB
#
# DEB is installed over what runs inside, and purged in the end. From the environment:
# ACCEL (tcg, or kvm), LISTEN (the loopback address whose ports 22, 3128, 8080 and 8081,
# and 20000 more, lead to the guest).
set -eu
image=$1 deb=$2 here=$(dirname "$0")/appliance
listen=${LISTEN:-127.0.0.1}
PATH=$PATH:/usr/sbin:/sbin
if [ -z "${BOUNDED:-}" ]; then
	BOUNDED=1 exec timeout --kill-after=30 30m "$0" "$@"
fi
work=$(mktemp -d)
pids=
stop() {
	# shellcheck disable=SC2086 # a list of them
	[ -z "$pids" ] || kill $pids 2>/dev/null || true
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM
fail() {
	echo "FAIL: $*" >&2
	[ ! -e "$work/serial" ] || tail -40 "$work/serial" >&2
	exit 1
}
ok() { echo "ok: $*"; }
said() { grep -a -q "$1" "$work/serial"; }
within() { # seconds, what, command…
	end=$(($(date +%s) + $1)) what=$2
	shift 2
	until "$@"; do
		kill -0 "$qemu" 2>/dev/null || fail "$what: qemu has ended: $(cat "$work/qemu")"
		[ "$(date +%s)" -lt $end ] || fail "$what"
		sleep 1
	done
}

cp --sparse=always "$image" "$work/image"
truncate -s +1G "$work/image" # a disk that is larger than the image
cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/vars"

# The guest reaches two ports of 10.0.2.100, which lead to the servers below, and nothing else.
esp=$work/image@@1M
entry=$(mdir -b -i "$esp" ::/loader/entries | grep conf)
mcopy -i "$esp" "$entry" "$work/entry"
sed -i 's/^options .*/& systemd.setenv=ESPALIER_EGRESS_ALLOW=10.0.2.100 systemd.show_status=no/' "$work/entry"
mcopy -o -i "$esp" "$work/entry" "$entry"

keys=none
debugfs -R "stat /root/.ssh/authorized_keys" "$work/image?offset=$((257 * 1048576))" 2>/dev/null | grep -q Inode: && keys=keys

# What is tried inside writes to the serial console.
debugfs -w -f - "$work/image?offset=$((257 * 1048576))" >"$work/log" 2>&1 <<CMD
cd /usr/local/sbin
write $here/inside.sh inside
write $deb again.deb
set_inode_field inside mode 0100755
cd /etc/systemd/system
write $here/inside.service inside.service
cd multi-user.target.wants
symlink inside.service /etc/systemd/system/inside.service
CMD

openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=origin -keyout "$work/key" -out "$work/cert" -days 2 2>/dev/null
net=user,id=n,restrict=on
for port in 24443 24444; do # each serves one connection at a time
	openssl s_server -quiet -www -accept "$listen:$port" -key "$work/key" -cert "$work/cert" >/dev/null 2>&1 &
	pids="$pids $!"
	net=$net,guestfwd=tcp:10.0.2.100:$port-cmd:"nc -N $listen $port"
done
for port in 22 3128 8080 8081; do
	net=$net,hostfwd=tcp:$listen:$((20000 + port))-:$port
done
qemu-system-x86_64 -accel "${ACCEL:-tcg}" -m 1024 -smp 2 -display none -no-reboot -serial "file:$work/serial" \
	-drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd -drive if=pflash,format=raw,file="$work/vars" \
	-drive file="$work/image",format=raw,if=virtio -netdev "$net" -device virtio-net-pci,netdev=n \
	-object rng-random,id=r,filename=/dev/urandom -device virtio-rng-pci,rng=r 2>"$work/qemu" &
qemu=$!
pids="$pids $qemu"

proxy=http://$listen:23128 origin=https://10.0.2.100:24443/
within 600 "it does not serve" curl -s -m 10 --fail -o /dev/null "http://$listen:28080/readyz"
curl -sS -m 30 --fail -o "$work/pac" "http://$listen:28080/proxy.pac" || fail "no PAC script"
grep -q FindProxyForURL "$work/pac" || fail "no PAC script: $(cat "$work/pac")"
ok "booted, and serves the PAC script"
status=$(curl -sk -m 60 -o "$work/page" -w '%{http_connect} %{http_code}' -x "$proxy" "$origin") || true
[ "$status" = "200 200" ] || fail "no tunnel: $status"
grep -q 'Ciphers supported' "$work/page" || fail "the tunnel leads elsewhere: $(cat "$work/page")"
ok "a tunnel through it"
# qemu accepts by itself; what the guest says is what counts.
if curl -s -m 5 "http://$listen:28081/" >/dev/null; then fail "the console is open to the network"; fi
banner=$(nc -w 5 "$listen" 20022 </dev/null | tr -d '\0' || true)
case $banner,$keys in
,none) ok "the console and SSH are not open to the network" ;;
SSH-*,keys) ok "the console is not open to the network; SSH is, for its keys" ;;
*) fail "SSH says \"$banner\", in an image with: $keys" ;;
esac
within 120 "no setup link on the console" said 'http://127.0.0.1:8081/setup?link='
ok "the setup link is on the console"

# Now the guest tries what is inside; this denied request is its sign.
curl -s -m 30 -o /dev/null -x "$proxy" https://10.0.2.100:1/inside || true
within 600 "the sockets do not take over" said '^INSIDE TAKEOVER'

# A tunnel that is open before the takeover, and used behind it.
mkfifo "$work/ask"
openssl s_client -quiet -proxy "$listen:23128" -connect 10.0.2.100:24444 <"$work/ask" >"$work/answer" 2>"$work/client" &
pids="$pids $!"
exec 3>"$work/ask"
within 60 "the long tunnel does not open" grep -q 'CN = origin' "$work/client"
curl -s -m 30 -o /dev/null -x "$proxy" https://10.0.2.100:2/inside || true

failed=0 asked=0
ask() {
	asked=$((asked + 1))
	curl -s -m 60 -o /dev/null -x "$proxy" -k "$origin" || failed=$((failed + 1))
	said "$1"
}
within 300 "the takeover does not end" ask '^INSIDE TAKEN OVER'
printf 'GET / HTTP/1.0\r\n\r\n' >&3
within 60 "the tunnel from before the takeover is cut: $(cat "$work/client")" grep -q 'Ciphers supported' "$work/answer"
exec 3>&-
ok "a tunnel goes on behind the takeover"
within 600 "the upgrade does not end" ask '^INSIDE UPGRADED'
[ "$failed" = 0 ] || fail "$failed of $asked tunnels failed during takeovers"
ok "$asked tunnels were opened during takeovers and an upgrade, none failed"

within 300 "the tests inside do not end" said '^INSIDE DONE'
grep -a '^ok: \|^FAIL: ' "$work/serial" | tr -d '\r'
if said '^FAIL: '; then fail "inside"; fi
