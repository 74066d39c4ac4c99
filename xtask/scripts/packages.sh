#!/bin/sh
# Installs the Debian packages named, so that no service of theirs runs, neither at once nor after the next boot: a
# machine that forwards for VMs must not find itself with a second BIRD or radvd.
# policy-rc.d is how Debian is told to start no service; it is put back as it was.
set -eu

policy=/usr/sbin/policy-rc.d
saved=$policy.before-serval

restore() {
    rm -f "$policy"
    if [ -e "$saved" ]; then mv "$saved" "$policy"; fi
}
enabled() {
    find /etc/systemd/system -name '*.service' -type l -printf '%f\n' 2>/dev/null | sort -u
}

# Left behind by a run that was killed.
if grep -qs 'serval setup' "$policy"; then restore; fi

if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
trap restore EXIT
trap 'exit 130' INT TERM HUP
printf '#!/bin/sh\n# serval setup installs packages, and starts no service\nexit 101\n' >"$policy"
chmod 755 "$policy"

before=$(enabled)
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 "$@"

for service in $(enabled); do
    if ! printf '%s\n' "$before" | grep -qxF "$service"; then
        systemctl disable --quiet "$service"
    fi
done
