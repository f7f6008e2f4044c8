//! Resolvers that programs bring along, and nameservers that people run: under rules on host names, with search domains and ndots:5. In a network
//! and a mount namespace of their own. The control is that all of it works without the guard.

use std::fs;

use serde_json::{Value, json};
use support::Run;

/// A nameserver. It has api.example.org (203.0.113.7), www.example.org, which is another name for it, other.example.org (203.0.113.8), and no
/// name below corp.test.
struct Nameserver {
    /// Where clients ask it.
    address: &'static str,
    /// What is done before it is started.
    before: &'static str,
    /// The name of its configuration, and that.
    name: &'static str,
    configuration: &'static str,
    command: &'static str,
}

const DNSMASQ: Nameserver = Nameserver {
    address: "10.0.0.53",
    before: "",
    name: "dnsmasq.conf",
    configuration: "no-hosts\nno-resolv\nbind-interfaces\nlisten-address=10.0.0.53\nuser=root\naddress=/corp.test/\nlocal=/example.org/\n\
        host-record=api.example.org,203.0.113.7\ncname=www.example.org,api.example.org\nhost-record=other.example.org,203.0.113.8\n",
    command: "dnsmasq --keep-in-foreground --conf-file=\"$folder/dnsmasq.conf\" --pid-file",
};

/// Behind such rules as Docker makes for its own resolver: what is sent to port 53 goes to another port.
const TRANSLATED: Nameserver = Nameserver {
    address: "127.0.0.11",
    before: "iptables -t nat -A OUTPUT -d 127.0.0.11 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:4053
iptables -t nat -A POSTROUTING -s 127.0.0.11 -p udp --sport 4053 -j SNAT --to-source :53",
    name: "dnsmasq.conf",
    configuration: "no-hosts\nno-resolv\nbind-interfaces\nlisten-address=127.0.0.11\nport=4053\nuser=root\naddress=/corp.test/\nlocal=/example.org/\n\
        host-record=api.example.org,203.0.113.7\ncname=www.example.org,api.example.org\nhost-record=other.example.org,203.0.113.8\n",
    ..DNSMASQ
};

/// unbound resolves for others, and here answers from data of its own.
const UNBOUND: Nameserver = Nameserver {
    name: "unbound.conf",
    configuration: r#"server:
 interface: 10.0.0.53
 username: ""
 chroot: ""
 directory: "/"
 pidfile: ""
 use-syslog: no
 do-daemonize: no
 access-control: 10.0.0.0/8 allow
 module-config: "iterator"
 local-zone: "corp.test." static
 local-zone: "example.org." static
 local-data: "api.example.org. 60 IN A 203.0.113.7"
 local-data: "www.example.org. 60 IN A 203.0.113.7"
 local-data: "other.example.org. 60 IN A 203.0.113.8"
remote-control:
 control-enable: no
"#,
    command: "unbound -c \"$folder/unbound.conf\"",
    ..DNSMASQ
};

/// knot is authoritative, and compresses names as such servers do.
const KNOT: Nameserver = Nameserver {
    name: "knot.conf",
    configuration: r#"server:
    listen: 10.0.0.53@53
    rundir: "@folder@"
    user: root
database:
    storage: "@folder@"
zone:
  - domain: example.org
    file: "@folder@/example.zone"
  - domain: corp.test
    file: "@folder@/corp.zone"
"#,
    command: "knotd -c \"$folder/knot.conf\"",
    ..DNSMASQ
};

const ZONES: &str = r#"
printf '@ 60 SOA ns hostmaster 1 60 60 60 60\n@ 60 NS ns\nns 60 A 10.0.0.53\n' >"$folder/corp.zone"
cp "$folder/corp.zone" "$folder/example.zone"
printf 'api 60 A 203.0.113.7\nwww 60 CNAME api\nother 60 A 203.0.113.8\n' >>"$folder/example.zone"
"#;

/// Makes the place, starts the nameserver there, waits for it, and runs a command.
fn place(nameserver: &Nameserver) -> String {
    let Nameserver { address, before, name, configuration, command } = nameserver;
    let resolver = include_str!("../probes/resolver.sh");
    format!(
        r#"{resolver}
resolver 'nameserver {address}\nsearch corp.test\noptions ndots:5\n' '127.0.0.1 localhost\n'
cat >"$folder/{name}" <<'END'
{configuration}END
sed -i "s|@folder@|$folder|" "$folder/{name}"
{ZONES}
{before}
{command} >"$folder/log" 2>&1 &
server=$!
for attempt in $(seq 200); do
    dig +short +tries=1 +time=1 @{address} api.example.org 2>/dev/null | grep -q 203.0.113.7 && break
    kill -0 $server || {{ cat "$folder/log" >&2; exit 99; }}
done
set +e
"$@"
status=$?
kill $server
wait $server
umount -l /etc/resolv.conf /etc/hosts /etc/nsswitch.conf
rm -r "$folder"
exit $status
"#
    )
}

/// Runs a program with each of the names, which prints a line for each: what it found, or that it found nothing. And the seconds that the
/// refused one took.
fn check(nameserver: &Nameserver, program: &[&str], patience: f64) {
    const TIMED: &str = r#"
import subprocess, sys, time
for name in ["api.example.org", "www.example.org", "other.example.org"]:
    begin = time.monotonic()
    said = subprocess.run(sys.argv[1:] + [name], capture_output=True, text=True, timeout=60)
    found = [address for address in ["203.0.113.7", "203.0.113.8"] if address in said.stdout]
    print(name, found[0] if found else "nothing")
print(f"{time.monotonic() - begin:.3f}", file=sys.stderr)
"#;
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": [
        {"action": "allow", "hosts": ["api.example.org", "www.example.org"], "protocols": ["tcp"], "ports": [443]}
    ]}});
    let place = place(nameserver);
    let run = Run::python(policy, TIMED, program).through(["unshare", "--net", "--mount", "sh", "-c", &place, "sh"]);
    let known = "api.example.org 203.0.113.7\nwww.example.org 203.0.113.7\n";
    assert_eq!(
        run.bare().success().stdout,
        format!("{known}other.example.org 203.0.113.8\n"),
        "the control: {program:?}"
    );
    let output = run.output().success();
    assert_eq!(output.stdout, format!("{known}other.example.org nothing\n"), "{program:?}: {output:#?}");
    // Some stop at the first refusal, which is that of the name with what is searched behind it.
    let is_other =
        |event: &Value| event["name"]["name"].as_str().is_some_and(|name| name.starts_with("other.example.org"));
    assert!(output.events().iter().any(is_other), "{program:?}: {:#}", output.log);
    // glibc sorts addresses by connecting a UDP socket to each, and sends nothing.
    assert!(output.events().iter().all(|event| event["op"] == "resolve"), "{program:?}: {:#}", output.log);
    let seconds: f64 =
        output.stderr.lines().next().and_then(|line| line.parse().ok()).expect("it says how long it took");
    assert!(seconds < patience, "{program:?} took {seconds} s to be refused");
}

#[test]
fn glibc_finds_names_by_each_nameserver() {
    for nameserver in [DNSMASQ, TRANSLATED, UNBOUND, KNOT] {
        eprintln!("{} at {}", nameserver.name, nameserver.address);
        check(&nameserver, &["getent", "ahosts"], 5.0);
    }
}

#[test]
fn dig_finds_names() {
    // It doesn't mind that nothing was sent, and waits for the answer.
    check(&KNOT, &["dig", "+short", "+tries=1", "+time=1"], 10.0);
}

#[test]
fn node_finds_names_by_the_c_library_and_by_its_own_resolver() {
    const LOOKUP: &str =
        "require('dns').lookup(process.argv[1], (error, address) => console.log(error ? error.code : address))";
    const RESOLVE: &str =
        "require('dns').resolve4(process.argv[1], (error, found) => console.log(error ? error.code : found.join()))";
    for script in [LOOKUP, RESOLVE] {
        check(&DNSMASQ, &["node", "-e", script], 10.0);
    }
}

#[test]
fn java_finds_names() {
    const SOURCE: &str = "public class Find { public static void main(String[] words) throws Exception { \
                          System.out.println(java.net.InetAddress.getByName(words[0]).getHostAddress()); } }";
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("Find.java");
    fs::write(&source, SOURCE).unwrap();
    let compiled = std::process::Command::new("javac").arg("-d").arg(folder.path()).arg(&source).status().unwrap();
    assert!(compiled.success());
    check(&UNBOUND, &["java", "-cp", folder.path().to_str().unwrap(), "Find"], 30.0);
}

#[test]
fn go_finds_names_by_its_own_resolver() {
    const SOURCE: &str = "package main\nimport (\"fmt\"; \"net\"; \"os\")\nfunc main() { found, err := net.LookupHost(os.Args[1]); fmt.Println(found, err) }\n";
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("find.go"), folder.path().join("find"));
    fs::write(&source, SOURCE).unwrap();
    let mut build = std::process::Command::new("go");
    build
        .args(["build", "-tags", "netgo", "-o"])
        .arg(&program)
        .arg(&source)
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "off");
    assert!(build.status().unwrap().success());
    check(&KNOT, &[program.to_str().unwrap()], 5.0);
}

#[test]
fn musl_finds_names() {
    const SOURCE: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
int main(int count, char **words) {
    struct addrinfo *found, hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    if (getaddrinfo(words[1], NULL, &hints, &found)) return puts("nothing"), 0;
    return puts(inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr)), 0;
}
"#;
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("find.c"), folder.path().join("find"));
    fs::write(&source, SOURCE).unwrap();
    let status = std::process::Command::new("musl-gcc").arg("-o").arg(&program).arg(&source).status().unwrap();
    assert!(status.success());
    // It doesn't look at what sendto(2) says, so it waits for an answer: 5 seconds for the name itself, as for the one before it.
    check(&UNBOUND, &[program.to_str().unwrap()], 25.0);
}
