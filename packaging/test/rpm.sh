#!/bin/sh
# Installs, upgrades and removes the package with rpm, in a root of its own. As root:
#
#     packaging/test/rpm.sh dist/espalier-VERSION-1.ARCH.rpm [ROOT]
#
# ROOT is a root that debootstrap has made with systemd and rpm, which is copied; without
# it one is made. Debian's rpm, since no other system's packages are at hand: rpm's own
# data base knows no systemd there, so that what the package depends on is not checked.
set -eu
rpm=$(realpath "$1")
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
ok() { echo "ok: $*"; }
in_root() { chroot "$root" env LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
is() { [ "$1" = "$2" ] || fail "$3: $1, want $2"; }

if [ -n "${2:-}" ]; then
	cp -a "$2" "$root"
else
	debootstrap --variant=minbase --include=systemd,rpm bookworm "$root" >"$work/log" || fail "debootstrap: $(tail -3 "$work/log")"
fi
cp "$rpm" "$root/this.rpm"

in_root rpm -i --nodeps /this.rpm >"$work/log" 2>&1 || fail "install: $(cat "$work/log")"
# Debian's rpm warns of itself, and systemd-sysusers says what it has made.
if grep -v '^rpm: \|^Creating ' "$work/log"; then fail "install"; fi
in_root id espalier >/dev/null || fail "no user"
is "$(in_root stat -c '%a %U:%G' /etc/espalier/espalier.yaml)" "640 root:espalier" "the configuration"
is "$(in_root stat -c '%a %U:%G' /etc/espalier)" "750 root:espalier" "its directory"
is "$(find "$root/etc/systemd/system" -name 'espalier*')" "" "enabled by the installation"
[ ! -e "$root/var/lib/espalier" ] || fail "the installation has made data"
in_root runuser -u espalier -- espalier validate -c /etc/espalier/espalier.yaml >/dev/null || fail "the configuration is not valid"
# The group of the configuration is set behind rpm's back.
in_root rpm -V --nodeps espalier | grep -v '^\.\.\.\.\.\.G\.\.  [c ]' | grep . && fail "rpm -V"
ok "installed: user, modes, nothing enabled or started"

echo "# mine" >>"$root/etc/espalier/espalier.yaml"
install -d "$root/var/lib/espalier"
in_root rpm -U --nodeps --force /this.rpm >"$work/log" 2>&1 || fail "upgrade: $(cat "$work/log")"
grep -q '^# mine' "$root/etc/espalier/espalier.yaml" || fail "the upgrade took the configuration"
is "$(in_root stat -c '%a %U:%G' /etc/espalier/espalier.yaml)" "640 root:espalier" "the configuration after the upgrade"
ok "upgraded: the configuration is kept"

in_root rpm -e espalier >"$work/log" 2>&1 || fail "remove: $(cat "$work/log")"
[ ! -e "$root/usr/bin/espalier" ] || fail "the program is still there"
grep -q '^# mine' "$root/etc/espalier/espalier.yaml.rpmsave" && [ -d "$root/var/lib/espalier" ] || fail "removing took data or configuration"
ok "removed: data is kept, and the configuration as espalier.yaml.rpmsave"
