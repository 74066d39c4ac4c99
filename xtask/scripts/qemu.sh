#!/bin/sh
# Unpacks Debian's QEMU, and those of its libraries that the system lacks, into a directory, with a program there that
# runs it. It is not installed: a QEMU in the system must come with its tools from the same source (qemu-utils from
# backports, say, would have to go), and here is nothing that may be taken away.
# Usage: qemu.sh PACKAGE DIRECTORY
set -eu

apt-get update --quiet
packages=$(apt-get install --simulate --no-install-recommends "$1" | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
test -n "$packages" || { echo "$1: apt would install nothing" >&2; exit 1; }

rm -rf "$2" "$2.part"
mkdir -p "$2.part"
cd "$2.part"
# shellcheck disable=SC2086 # names, one a word
apt-get download --quiet -o APT::Sandbox::User=root $packages
for archive in ./*.deb; do dpkg --extract "$archive" .; done
rm ./*.deb

cat >qemu-system-x86_64 <<'SCRIPT'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/usr/lib/x86_64-linux-gnu:$here/lib/x86_64-linux-gnu"
exec "$here/usr/bin/qemu-system-x86_64" -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@"
SCRIPT
chmod 755 qemu-system-x86_64
mv "$2.part" "$2"
