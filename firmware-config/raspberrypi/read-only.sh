#!/bin/sh
# Makes the root of a gate read-only. What must live moves to a partition of its own:
#
#   sh read-only.sh /dev/mmcblk0p3
#
# Run it as root when the gate is set up and works, and start the machine anew. An empty
# partition gets its file system here; one with the label gate-state keeps what it has; any
# other is not touched. Run again, it makes what is missing. The way back:
# /etc/fstab.before-read-only, and no "ro" in cmdline.txt.
set -eu
fail() {
	echo "read-only.sh: $1" >&2
	exit 1
}
part=${1:-}
sample=$(dirname "$0")/fstab
[ -n "$part" ] || fail 'say which partition is for the state, such as /dev/mmcblk0p3 (lsblk lists them)'
[ "$(id -u)" = 0 ] || fail 'run it as root'
[ -b "$part" ] || fail "$part is no partition (lsblk lists them)"
[ -r "$sample" ] || fail "$sample, the table that is written, is not there"
root=$(awk '$1 !~ /^#/ && $2 == "/" { print $1 }' /etc/fstab)
[ -n "$root" ] || fail '/etc/fstab does not say what / is'
if [ "$(findmnt -n -o TARGET --source "$part" || true)" != '' ] && ! findmnt -n -o TARGET --source "$part" | grep -qx /state; then
	fail "$part is mounted: it is in use for something else"
fi

type=$(blkid -p -o value -s TYPE "$part" || true)
label=$(blkid -p -o value -s LABEL "$part" || true)
if [ -z "$type" ]; then
	mkfs.ext4 -q -L gate-state -O metadata_csum -m 1 "$part"
elif [ "$type $label" != 'ext4 gate-state' ]; then
	fail "$part holds a file system ($type, label \"$label\"): it is not touched. Take another, or wipe it (wipefs -a $part)"
fi

mount -o remount,rw /
mkdir -p /state
mountpoint -q /state || mount -t ext4 -o noatime "$part" /state
running=
if systemctl -q is-active gatehouse.service; then
	running=1
	systemctl stop gatehouse.service
fi
awk '$1 !~ /^#/ && $3 == "none" { print $1, $2 }' "$sample" | while read -r from to; do
	mkdir -p "$to"
	if [ ! -e "$from" ]; then
		rm -rf "$from.new"
		cp -a "$to" "$from.new"
		mv "$from.new" "$from"
	fi
done
sync -f /state

[ -e /etc/fstab.before-read-only ] || cp -p /etc/fstab /etc/fstab.before-read-only
boot=$(awk '$1 !~ /^#/ && $2 == "/boot/firmware" { print $1 }' /etc/fstab)
# The sample with this card's partitions; then the machine's own lines for other places.
awk -v root="$root" -v boot="$boot" '
	NR == FNR && $1 ~ /^#/ { print; next }
	NR == FNR {
		have[$2] = 1
		if ($2 == "/") $1 = root
		if ($2 == "/boot/firmware") { if (boot == "") next; $1 = boot }
		print
		next
	}
	NF && $1 !~ /^#/ && $3 != "swap" && !($2 in have)
' "$sample" /etc/fstab >/etc/fstab.new
mv /etc/fstab.new /etc/fstab

# NetworkManager writes to a folder in memory when this is a link to it, and cannot
# replace a plain file in a read-only /etc.
if [ -d /etc/NetworkManager ]; then
	ln -sfn /run/NetworkManager/resolv.conf /etc/resolv.conf.new
	mv -T /etc/resolv.conf.new /etc/resolv.conf
fi
# What could only fail from now on. "gatehouse update" brings new versions of the gate.
for unit in apt-daily.timer apt-daily-upgrade.timer man-db.timer dphys-swapfile.service; do
	systemctl -q disable "$unit" 2>/dev/null || true
done
line=/boot/firmware/cmdline.txt
if [ -e "$line" ] && ! grep -qw ro "$line"; then
	mount -o remount,rw /boot/firmware 2>/dev/null || true
	sed 's/$/ ro/; s/ rw / /' "$line" >"$line.new"
	mv "$line.new" "$line"
fi
[ -z "$running" ] || echo 'The gate is stopped until the machine has started anew: what it decided now would stay behind.'
echo 'The root is read-only after the next start. Now: systemctl reboot'
