# For a shell in a network and mount namespace of its own: all of two networks is this host, and the C library asks as it is told.
set -e
# resolver RESOLV_CONF HOSTS: writes these files, as printf(1) has them, below $folder, and has them stand in /etc.
resolver() {
    ip link set lo up
    for net in 10.0.0.0/8 203.0.0.0/8; do ip route add local $net dev lo; done
    folder=$(mktemp -d)
    printf '%b' "$1" >"$folder/resolv.conf"
    printf '%b' "$2" >"$folder/hosts"
    printf 'hosts: files dns\n' >"$folder/nsswitch.conf"
    mount --make-rprivate /
    for file in resolv.conf hosts nsswitch.conf; do mount --bind "$folder/$file" "/etc/$file"; done
}
