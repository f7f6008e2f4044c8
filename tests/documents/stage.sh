#!/bin/sh
# stage.sh GUARD_RUN FOLDER COMMAND...: runs a command where the documents' commands work as typed and leave nothing behind. To be called
# by `unshare --mount --net --fork --kill-child`. What the place has:
#   - guard-run in PATH, with the examples installed, and no configuration or logs of the machine's
#   - a network of its own, in which example.org has a web server, and a nameserver that knows example.org alone
#   - a working folder in FOLDER, which the caller has made and removes, with a Makefile, test.py, install.sh and agent that do what such things do
set -eu
guard_run=$1 stage=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)

# place FOLDER: an empty folder there, whether or not the machine has one.
place() {
    while parent=$1 && ! [ -d "$parent" ]; do
        while ! [ -d "$(dirname "$parent")" ]; do parent=$(dirname "$parent"); done
        mount -t tmpfs -o mode=755 stage "$(dirname "$parent")" && mkdir -p "$1"
    done
    mount -t tmpfs -o mode=755 stage "$1"
}
mkdir "$stage/etc" "$stage/bin" "$stage/work"
place /usr/local/share/guard-run
place /var/log/guard-run
place /root/.config
mkdir /usr/local/share/guard-run/policies
for policy in "$root"/examples/*.json; do
    case $policy in *.resolved.json | */everything-allowed.json) ;; *) cp "$policy" /usr/local/share/guard-run/policies ;; esac
done
ln -s "$guard_run" "$stage/bin/guard-run"
echo "nameserver 127.0.0.1" >"$stage/etc/resolv.conf"
mount --bind "$stage/etc/resolv.conf" /etc/resolv.conf
ip link set lo up
ip address add 192.0.2.10/32 dev lo

cd "$stage/work"
printf 'test:\n\t@echo passed\n' >Makefile
echo 'echo installed' >install.sh
printf '#!/bin/sh\necho done\n' >agent
chmod +x agent
cat >test.py <<'PYTHON'
import http.server, threading, urllib.request
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_port).status)
PYTHON
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=example.org -addext subjectAltName=DNS:example.org \
    -keyout "$stage/key" -out "$stage/certificate" 2>"$stage/openssl" || { cat "$stage/openssl" >&2; exit 1; }
export CURL_CA_BUNDLE="$stage/certificate" HOME=/root PATH="$stage/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# By the latter, make(1) knows that another one runs it, and says more.
unset GUARD_RUN_POLICY XDG_CONFIG_HOME XDG_STATE_HOME MAKELEVEL MAKEFLAGS MFLAGS
exec python3 "$root/tests/documents/website.py" 192.0.2.10 "$stage/certificate" "$stage/key" \
    python3 "$root/tests/probes/nameserver.py" 127.0.0.1 "$@"
