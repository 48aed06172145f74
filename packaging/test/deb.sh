#!/bin/sh
# Installs, upgrades, removes and purges the package with dpkg in a root of its own, and
# starts the program there as its user. As root:
#
#     packaging/test/deb.sh dist/espalier_VERSION_ARCH.deb [ROOT]
#
# ROOT is a root that debootstrap has made, which is copied; without it one is made.
set -eu
deb=$(realpath "$1")
work=$(mktemp -d)
root=$work/root
trap 'umount -q "$root/proc" "$root/var/lib/espalier" || true; rm -rf "$work"' EXIT

fail() {
	echo "FAIL: $*" >&2
	exit 1
}
ok() { echo "ok: $*"; }
in_root() { chroot "$root" env LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
is() { [ "$1" = "$2" ] || fail "$3: $1, want $2"; }
enabled() { find "$root/etc/systemd/system" -name 'espalier*' | grep . || true; }

if [ -n "${2:-}" ]; then
	cp -a "$2" "$root"
else
	debootstrap --variant=minbase --include=systemd,curl bookworm "$root" >"$work/log" || fail "debootstrap: $(tail -3 "$work/log")"
fi

if lintian --fail-on error "$deb" 2>"$work/log"; then ok "lintian has no errors"; else fail lintian; fi

# A later version, with other defaults.
dpkg-deb -R "$deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
echo "# of the next version" >>"$work/next/etc/espalier/espalier.yaml"
(cd "$work/next" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zgzip -b "$work/next" "$root/next.deb" >/dev/null
cp "$deb" "$root/this.deb"

in_root dpkg -i /this.deb >"$work/log" 2>&1 || fail "install: $(cat "$work/log")"
in_root id espalier >/dev/null || fail "no user"
is "$(in_root stat -c '%a %U:%G' /etc/espalier/espalier.yaml)" "640 root:espalier" "the configuration"
is "$(in_root stat -c '%a %U:%G' /etc/espalier)" "750 root:espalier" "its directory"
is "$(enabled)" "" "enabled by the installation"
[ ! -e "$root/var/lib/espalier" ] || fail "the installation has made data"
in_root dpkg -V espalier | grep -v '^??5?????? c ' | grep . && fail "dpkg -V" || true
in_root espalier validate -c /etc/espalier/espalier.yaml >/dev/null || fail "the configuration is not valid"
ok "installed: user, modes, nothing enabled or started"

in_root systemd-analyze verify --man=no /usr/lib/systemd/system/espalier.service /usr/lib/systemd/system/espalier@a.service \
	/usr/lib/systemd/system/espalier-proxy.socket >"$work/log" 2>&1 || fail "systemd-analyze verify: $(cat "$work/log")"
grep . "$work/log" >&2 && fail "systemd-analyze verify --man=no warns" || true
exposure=$(in_root systemd-analyze security --offline=true --threshold=20 /usr/lib/systemd/system/espalier.service | tail -1) || fail "systemd-analyze security: $exposure"
ok "systemd-analyze: $exposure"

# As its user, in a network of its own.
install -d -m 700 "$root/var/lib/espalier"
in_root chown espalier: /var/lib/espalier
cat >"$root/try" <<'TRY'
#!/bin/sh
set -eu
ip link set lo up 2>/dev/null || true
runuser -u espalier -- espalier run -c /etc/espalier/espalier.yaml >/tmp/espalier.log 2>&1 &
for _ in $(seq 100); do
	espalier status -c /etc/espalier/espalier.yaml >/dev/null 2>&1 && break
	sleep 0.1
done
espalier status -c /etc/espalier/espalier.yaml
curl -sS --fail http://127.0.0.1:8080/proxy.pac | grep -q FindProxyForURL
[ "$(curl -s -o /dev/null -w '%{http_connect}' -x http://127.0.0.1:3128 https://127.0.0.9/ || true)" = 403 ]
espalier drain -c /etc/espalier/espalier.yaml
wait
TRY
chmod +x "$root/try"
mount -t proc proc "$root/proc"
# The kernel brings lo up only when it is told to; ip is perhaps not in the root.
if ! unshare -n sh -c 'ip link set lo up; exec chroot "$1" /try' sh "$root" >"$work/log" 2>&1; then
	umount "$root/proc"
	fail "it does not run: $(cat "$work/log" "$root/tmp/espalier.log")"
fi
umount "$root/proc"
[ -s "$root/var/lib/espalier/access.log" ] || fail "no access record"
left=$(find "$root/var/lib/espalier" ! -user "$(in_root id -u espalier)")
is "$left" "" "not its user's"
ok "runs as its user: status, PAC script, a refusal, drain"

in_root systemctl enable -q espalier.service espalier-proxy.socket

echo "# mine" >>"$root/etc/espalier/espalier.yaml"
echo kept >"$root/var/lib/espalier/kept"
in_root dpkg -i --force-confdef --force-confold /next.deb >"$work/log" 2>&1 || fail "upgrade: $(cat "$work/log")"
grep -q '^# mine' "$root/etc/espalier/espalier.yaml" || fail "the upgrade took the configuration"
is "$(in_root stat -c '%a %U:%G' /etc/espalier/espalier.yaml)" "640 root:espalier" "the configuration after the upgrade"
[ -e "$root/var/lib/espalier/kept" ] || fail "the upgrade took the data"
is "$(enabled | grep -c 'wants/espalier.service$\|wants/espalier-proxy.socket$')" 2 "enabled before the upgrade and behind it"
ok "upgraded: configuration and data are kept, and what was enabled"

in_root dpkg -r espalier >"$work/log" 2>&1 || fail "remove: $(cat "$work/log")"
[ ! -e "$root/usr/bin/espalier" ] || fail "the program is still there"
[ -e "$root/var/lib/espalier/kept" ] && [ -e "$root/etc/espalier/espalier.yaml" ] || fail "removing took data or configuration"
ok "removed: configuration and data are kept"

in_root dpkg -i --force-confdef --force-confold /this.deb >"$work/log" 2>&1 || fail "install again: $(cat "$work/log")"
in_root dpkg -P espalier >"$work/log" 2>&1 || fail "purge: $(cat "$work/log")"
left=$(find "$root/etc" "$root/usr" "$root/var" -name '*espalier*' ! -path '*/dpkg/*' ! -path '*/log/*')
is "$left" "" "left by the purge"
ok "purged: nothing is left but the user"

# Data on a file system of its own.
mkdir "$root/var/lib/espalier"
mount -t tmpfs tmpfs "$root/var/lib/espalier"
in_root dpkg -i /this.deb >"$work/log" 2>&1 || fail "install once more: $(cat "$work/log")"
touch "$root/var/lib/espalier/.data"
in_root dpkg -P espalier >"$work/log" 2>&1 || fail "purge of a file system: $(cat "$work/log")"
is "$(ls -A "$root/var/lib/espalier")" "" "left by the purge of a file system"
umount "$root/var/lib/espalier"
ok "purged: a file system that was mounted is empty"
