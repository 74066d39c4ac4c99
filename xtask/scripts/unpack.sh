#!/bin/sh
# Unpacks a Debian package into a directory. It is not installed: no service, no user, nothing outside the directory.
# Usage: unpack.sh PACKAGE DIRECTORY
set -eu

apt-get update --quiet

rm -rf "$2" "$2.part"
mkdir -p "$2.part"
cd "$2.part"
apt-get download --quiet -o APT::Sandbox::User=root "$1"
dpkg --extract ./*.deb .
rm ./*.deb
mv "$2.part" "$2"
