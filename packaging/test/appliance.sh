#!/bin/sh
# Boots an appliance image in qemu, as UEFI does, and uses it from outside: the PAC
# script, a tunnel to a server on this machine, the ports that must be closed, the units
# and a takeover inside. The image is not changed.
#
#     packaging/test/appliance.sh IMAGE DEB
#
# DEB is installed over what runs inside, and purged in the end.#
# It needs qemu-system-x86, ovmf, mtools, e2fsprogs, curl and openssl.
set -eu
image=$1 deb=$2 here=$(dirname "$0")/appliance
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
pids=
trap 'for p in $pids; do kill "$p" 2>/dev/null || true; done; rm -rf "$work"' EXIT
fail() {
	echo "FAIL: $*" >&2
	tail -40 "$work/serial" >&2
	exit 1
}

cp --sparse=always "$image" "$work/image"
cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/vars"

# The server is the host, 10.0.2.2 for the guest, which the address guard would refuse.
esp=$work/image@@1M
entry=$(mdir -b -i "$esp" ::/loader/entries | grep conf)
mcopy -i "$esp" "$entry" "$work/entry"
sed -i 's/^options .*/& systemd.setenv=ESPALIER_EGRESS_ALLOW=10.0.2.2 systemd.show_status=no/' "$work/entry"
mcopy -o -i "$esp" "$work/entry" "$entry"

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
openssl s_server -quiet -www -accept 127.0.0.1:24443 -key "$work/key" -cert "$work/cert" >/dev/null 2>&1 &
pids=$!

net=user,id=n,restrict=off,hostfwd=tcp:127.0.0.1:23128-:3128,hostfwd=tcp:127.0.0.1:28080-:8080,hostfwd=tcp:127.0.0.1:28081-:8081,hostfwd=tcp:127.0.0.1:20022-:22
qemu-system-x86_64 -accel "${ACCEL:-tcg}" -m 1024 -smp 2 -display none -no-reboot -serial "file:$work/serial" \
	-drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd -drive if=pflash,format=raw,file="$work/vars" \
	-drive file="$work/image",format=raw,if=virtio -netdev "$net" -device virtio-net-pci,netdev=n -object rng-random,id=r,filename=/dev/urandom -device virtio-rng-pci,rng=r 2>"$work/qemu" &
pids="$pids $!"

tries=0
until curl -s -m 5 http://127.0.0.1:28080/readyz >/dev/null; do
	tries=$((tries + 1))
	[ $tries -lt 150 ] || fail "it does not serve"
	sleep 2
done
curl -sS -m 20 --fail -o "$work/pac" http://127.0.0.1:28080/proxy.pac && grep -q FindProxyForURL "$work/pac" || fail "no PAC script"
echo "ok: booted, and serves the PAC script"
status=$(curl -sk -m 60 -o "$work/page" -w '%{http_connect} %{http_code}' -x http://127.0.0.1:23128 https://10.0.2.2:24443/) || fail "no tunnel: $status"
[ "$status" = "200 200" ] && grep -q 'Ciphers supported' "$work/page" || fail "no tunnel: $status"
echo "ok: a tunnel through it"
for port in 28081 20022; do # the forward is accepted by qemu; nothing may answer
	curl -s -m 5 "http://127.0.0.1:$port/" >/dev/null && fail "port $port answers" || true
done
echo "ok: the console and SSH are not open to the network"
grep -a -q 'http://127.0.0.1:8081/setup?link=' "$work/serial" || { sleep 30; grep -a -q 'setup?link=' "$work/serial" || fail "no setup link on the console"; }
echo "ok: the setup link is on the console"

# The takeover inside, while the host goes on asking.
tries=0 failed=0 asked=0
until grep -a -q '^INSIDE DONE' "$work/serial"; do
	tries=$((tries + 1))
	[ $tries -lt 300 ] || fail "the tests inside do not end"
	grep -a -q '^INSIDE TAKEOVER' "$work/serial" && ! grep -a -q '^INSIDE TAKEN OVER' "$work/serial" && {
		asked=$((asked + 1))
		curl -s -m 20 -o /dev/null -x http://127.0.0.1:23128 -k https://10.0.2.2:24443/ || failed=$((failed + 1))
	}
	sleep 0.3
done
grep -a '^ok: \|^FAIL: \|^exposure' "$work/serial" | tr -d '\r'
! grep -a -q '^FAIL: ' "$work/serial" || fail "inside"
[ "$failed" = 0 ] || fail "$failed of $asked tunnels failed during takeovers"
echo "ok: $asked tunnels were opened during takeovers and an upgrade, none failed"
