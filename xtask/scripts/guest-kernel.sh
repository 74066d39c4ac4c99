#!/bin/sh
# Unpacks Debian's kernel for virtual machines, which QEMU guests boot. It is not installed: no boot loader entry, no
# initramfs, nothing outside the directory.
# Usage: guest-kernel.sh META-PACKAGE DIRECTORY
set -eu

apt-get update --quiet
package=$(apt-cache depends --important "$1" | sed -n 's/^ *Depends: //p')
test -n "$package" || { echo "$1: apt knows no such package" >&2; exit 1; }

rm -rf "$2" "$2.part"
mkdir -p "$2.part"
cd "$2.part"
apt-get download --quiet -o APT::Sandbox::User=root "$package"
dpkg --extract ./*.deb .
rm ./*.deb
mv "$2.part" "$2"
