#!/bin/sh
# Builds a bootable disk image of Debian with Espalier. As root, without loop devices:
#
#     packaging/appliance/build.sh [-k AUTHORIZED_KEYS] espalier_VERSION_amd64.deb OUT.img
#
# -k lets the holders of these keys in by SSH, as root. It needs debootstrap, mtools,
# dosfstools, e2fsprogs and fdisk.
set -eu

keys=
while getopts k: opt; do
	case $opt in
	k) keys=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# = 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
deb=$1 out=$2 here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin
[ -z "$keys" ] || [ -r "$keys" ] || { echo "$keys cannot be read" >&2; exit 2; }

work=$(mktemp -d)
trap 'umount "$work/root/proc" 2>/dev/null || true; rm -rf "$work"' EXIT
root=$work/root

packages=systemd-sysv,systemd-boot,systemd-resolved,systemd-timesyncd,dbus,udev,linux-image-amd64,initramfs-tools,zstd,nftables,unattended-upgrades,ca-certificates,iproute2
[ -z "$keys" ] || packages=$packages,openssh-server
debootstrap --variant=minbase --include="$packages" bookworm "$root"
cp -R "$here/files/." "$root/"
install -D -m 644 "$here/../systemd/sysctl.conf" "$root/etc/sysctl.d/60-espalier.conf"
sed -i 's/^# *\(net.netfilter\)/\1/' "$root/etc/sysctl.d/60-espalier.conf" # nftables tracks connections here
[ -n "$keys" ] || rm "$root/etc/nftables.d/ssh.nft"
mount -t proc proc "$root/proc"
cp "$deb" "$root/espalier.deb"
chroot "$root" dpkg -i /espalier.deb
chroot "$root" systemctl enable espalier.service espalier-setup-link.service nftables.service \
	systemd-networkd.service systemd-resolved.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer
chroot "$root" passwd -l root >/dev/null
if [ -n "$keys" ]; then
	install -D -m 600 "$keys" "$root/root/.ssh/authorized_keys"
	rm -f "$root"/etc/ssh/ssh_host_* # each appliance makes its own
fi
umount "$root/proc"
rm -rf "$root/espalier.deb" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
echo espalier >"$root/etc/hostname"
printf '127.0.0.1 localhost espalier\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/machine-id" # made at the first boot

# The system partition of the firmware, laid out as kernel-install does, which adds
# later kernels.
kernel=$(basename "$root"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
esp=$work/esp
truncate -s 256M "$esp"
mkfs.vfat -n ESP "$esp" >/dev/null
cat >"$work/entry.conf" <<ENTRY
title Espalier
version $kernel
options $(cat "$root/etc/kernel/cmdline")
linux /espalier/$kernel/linux
initrd /espalier/$kernel/initrd.img-$kernel
ENTRY
printf 'timeout 1\n' >"$work/loader.conf"
mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/systemd ::/loader ::/loader/entries ::/espalier ::/espalier/"$kernel"
mcopy -i "$esp" "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$esp" "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" ::/EFI/systemd/
mcopy -i "$esp" "$work/loader.conf" ::/loader/loader.conf
mcopy -i "$esp" "$work/entry.conf" ::/loader/entries/espalier-"$kernel".conf
mcopy -i "$esp" "$root/boot/vmlinuz-$kernel" ::/espalier/"$kernel"/linux
mcopy -i "$esp" "$root/boot/initrd.img-$kernel" ::/espalier/"$kernel"/

rm -f "$root"/vmlinuz* "$root"/initrd.img*
mkdir -p "$root/boot/efi"
truncate -s 4G "$work/system"
mke2fs -q -t ext4 -L espalier -d "$root" "$work/system"

truncate -s $((256 + 4096 + 2))M "$out"
printf 'label: gpt\nstart=1MiB, size=256MiB, type=uefi\nsize=4096MiB, type=linux\n' | sfdisk -q "$out"
dd if="$esp" of="$out" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/system" of="$out" bs=1M seek=257 conv=notrunc,sparse status=none
echo "$out: boots by UEFI"
