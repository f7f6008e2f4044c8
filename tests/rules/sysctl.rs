//! Sysctl rules hold for the tunable, in whatever way its file is read or written, and by whatever procfs. What is
//! written is the value that is there, so that nothing changes; what is denied succeeds without the guard.

use std::fs;

use serde_json::{Value, json};
use support::{Output, Probe, Run};

/// A tunable that may be written, and its value.
const TTL: &str = "net/ipv4/ip_default_ttl";

fn probe() -> Probe {
    let value = fs::read_to_string(format!("/proc/sys/{TTL}")).unwrap();
    Probe::sysctl().environment("VALUE", value.trim())
}

fn sysctls(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "sysctls": {"default": default, "rules": rules}})
}

fn deny(names: &[&str]) -> Value {
    sysctls("allow", &json!([{"action": "deny", "names": names}]))
}

fn deny_writing(name: &str) -> Value {
    sysctls("allow", &json!([{"action": "deny", "names": [name], "access": "w"}]))
}

fn names_of(output: &Output) -> Vec<&str> {
    output.events().iter().filter_map(|event| event["sysctl"]["name"].as_str()).collect()
}

#[test]
fn reading_and_writing_are_told_apart() {
    let rule = |access: &str| sysctls("allow", &json!([{"action": "deny", "names": [TTL], "access": access}]));
    let (read, write) = (format!("r {TTL}"), format!("w {TTL}"));
    let value = fs::read_to_string(format!("/proc/sys/{TTL}")).unwrap();
    let output = probe().denied([&read]).allowed([&write]).check(&rule("r"));
    assert_eq!(output.events()[0]["sysctl"], json!({"name": TTL, "access": "r"}));
    let output = probe().denied([&write]).allowed([&read]).check(&rule("w"));
    assert_eq!(output.events()[0]["sysctl"], json!({"name": TTL, "access": "w", "value": value.trim()}));
    let _ = probe().denied([&read, &write]).check(&rule("rw"));
    let _ = probe().denied([&read, &write]).check(&deny(&[TTL]));
    let allow = sysctls("deny", &json!([{"action": "allow", "names": [TTL], "access": "r"}]));
    let _ = probe().denied([&write]).allowed([&read]).check(&allow);
}

/// In a UTS namespace of its own, so that the control may change the name.
const OWN_NAMES: [&str; 2] = ["unshare", "--uts"];

#[test]
fn the_value_that_was_to_be_written_is_in_the_log() {
    let name = "kernel/domainname";
    let bytes = |count: usize| b"a".repeat(count);
    let cut = "a".repeat(64) + "…";
    let table: [(&str, Vec<u8>, String); 16] = [
        ("write", b"64\n".into(), "64".into()),
        ("write", b"64".into(), "64".into()),
        ("pwrite", b"65\n".into(), "65".into()),
        ("write", b"".into(), String::new()),
        ("pwrite", b"".into(), String::new()),
        ("write", b"\n\n".into(), "\n".into()),
        ("write", b"1\0x\n".into(), "1\0x".into()),
        ("write", b"\xff\xfe\x1b[31m".into(), "\u{fffd}\u{fffd}\u{1b}[31m".into()),
        ("write", bytes(64), "a".repeat(64)),
        ("write", [bytes(64), b"\n".into()].concat(), "a".repeat(64)),
        ("write", [bytes(65), b"\n".into()].concat(), cut.clone()),
        ("write", bytes(71), cut.clone()),
        ("write", bytes(72), cut.clone()),
        ("write", bytes(4095), cut.clone()),
        ("pwrite", bytes(5000), cut.clone()),
        // Cut within a character of two bytes.
        ("write", ["x".to_owned(), "ö".repeat(50)].concat().into(), "x".to_owned() + &"ö".repeat(31) + "\u{fffd}…"),
    ];
    let hexadecimal = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let attempts: Vec<String> = table
        .iter()
        .map(|(how, bytes, _)| format!("{how} {name} {}", hexadecimal(bytes)).trim_end().to_owned())
        .collect();
    let output = probe()
        .through(&OWN_NAMES)
        .denied(&attempts)
        .allowed([format!("r {name}"), "write kernel/hostname 78".to_owned()])
        .check(&deny_writing(name));
    for (how, bytes, expected) in &table {
        let expected = json!({"name": name, "access": "w", "value": expected});
        assert!(output.events().iter().any(|event| event["sysctl"] == expected), "{how} {bytes:?}: {:#}", output.log);
    }
    // What is the same in the log is one event, however it was written.
    let values = output.events().iter().map(|event| event["sysctl"]["value"].as_str().unwrap());
    let counts: Vec<(&str, u64)> =
        values.zip(output.events().iter().map(|event| event["count"].as_u64().unwrap())).collect();
    assert!(counts.contains(&("", 2)), "{counts:?}");
    // On a terminal it can't do anything.
    assert!(!output.stderr.contains('\u{1b}'), "{output:?}");
}

#[test]
fn a_value_in_the_log_changes_nothing_about_the_verdict() {
    const PROGRAM: &str = "import os
file = os.open('/proc/sys/kernel/domainname', os.O_RDWR)
for value, offset in ((b'new', 0), (b'n' * 100, 0), (b'', 0), (b'\\0', 0), (b'n', 1)):
    try: os.pwrite(file, value, offset)
    except OSError as error: print(error.errno)
    print(os.pread(file, 100, 0))";
    let policy = deny_writing("kernel/domainname");
    let run = Run::python(&policy, PROGRAM, &[]).through(OWN_NAMES);
    let denied = run.output().success();
    let value = fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    assert_eq!(denied.stdout, format!("1\nb'{}\\n'\n", value.trim_end()).repeat(5));
    assert_eq!(denied.sum("denied"), 5);
    let mut audit = policy.clone();
    audit["mode"] = json!("audit");
    let audited = Run::python(&audit, PROGRAM, &[]).through(OWN_NAMES).output().success();
    assert_eq!((audited.stdout.as_str(), audited.sum("audited")), (run.bare().success().stdout.as_str(), 5));
    assert!(audited.stdout.contains("nnn"), "{audited:?}");
}

#[test]
fn a_tunable_is_denied_in_every_way_to_read_its_file() {
    let all = |name: &str| ["r", "rdwr", "pread", "readv", "sendfile", "splice"].map(|way| format!("{way} {name}"));
    let name = "kernel/hostname";
    let output = probe().denied(all(name)).allowed(all("kernel/domainname")).check(&deny(&[name]));
    assert_eq!(names_of(&output), [name], "one event, {} times", output.denied());
    // Opening alone tells nothing.
    let _ = probe().denied([format!("r {name}")]).allowed([format!("open {name}")]).check(&deny(&[name]));
}

#[test]
fn a_second_procfs_shows_no_more_than_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().to_str().unwrap();
    let script = format!("mount -t proc proc {second} && exec \"$@\"");
    let _ = probe()
        .through(&["unshare", "--mount", "sh", "-c", &script, "sh"])
        .denied([format!("r kernel/hostname {second}"), format!("pread kernel/hostname {second}")])
        .allowed([format!("r kernel/ostype {second}")])
        .check(&deny(&["kernel/hostname"]));
}

#[test]
fn globs_and_both_notations_name_the_same_tunables() {
    let table: [(&str, &[&str], &[&str]); 9] = [
        ("kernel/hostname", &["kernel/hostname"], &["kernel/ostype"]),
        ("kernel.hostname", &["kernel/hostname"], &["kernel/ostype"]),
        ("kernel/*", &["kernel/hostname", "kernel/random/boot_id"], &[TTL, "vm/swappiness"]),
        ("kernel.*", &["kernel/hostname", "kernel/random/boot_id"], &[TTL, "vm/swappiness"]),
        ("net.ipv4.*", &[TTL, "net/ipv4/conf/lo/forwarding"], &["net/core/somaxconn", "kernel/hostname"]),
        ("net.*.ip_default_*", &[TTL], &["net/ipv4/ip_forward"]),
        ("*", &[TTL, "kernel/hostname", "vm/swappiness"], &[]),
        ("kernel/os?ype", &["kernel/ostype"], &["kernel/osrelease"]),
        ("kernel/os", &[], &["kernel/ostype", "kernel/osrelease"]),
    ];
    for (pattern, denied, allowed) in table {
        let read = |names: &[&str]| names.iter().map(|name| format!("r {name}")).collect::<Vec<_>>();
        let output = probe().denied(read(denied)).allowed(read(allowed)).check(&deny(&[pattern]));
        assert_eq!(names_of(&output), denied, "{pattern}");
    }
}

#[test]
fn the_first_matching_rule_wins_then_the_default() {
    let exception = json!({"action": "allow", "names": ["kernel/hostname"]});
    let broad = json!({"action": "deny", "names": ["kernel/*"]});
    let reading = ["r kernel/hostname", "r kernel/ostype"];
    let output = probe()
        .denied([reading[1]])
        .allowed([reading[0], "r vm/swappiness"])
        .check(&sysctls("allow", &json!([exception, broad])));
    assert_eq!(output.events()[0]["rule"], "/sysctls/rules/1");
    let _ = probe().denied(reading).allowed(["r vm/swappiness"]).check(&sysctls("allow", &json!([broad, exception])));
    let output = probe().denied(["r vm/swappiness"]).allowed([reading[0]]).check(&sysctls("deny", &json!([exception])));
    assert_eq!(output.events()[0]["rule"], "default");
    let _ = probe().denied(reading).check(&json!({"version": 1, "sysctls": {"default": "deny"}}));
    let _ = probe().allowed(reading).check(&json!({"version": 1, "sysctls": {"default": "allow"}}));
    // A rule without names means all.
    let writing = sysctls("allow", &json!([{"action": "deny", "access": "w"}]));
    let _ = probe().denied([format!("w {TTL}")]).allowed(reading).check(&writing);
}

#[test]
fn exact_names_globs_and_rules_without_names_keep_their_order() {
    let all = ["r kernel/hostname", "r kernel/ostype", "r vm/swappiness"];
    let (exact, glob) = (json!(["kernel/hostname"]), json!(["kernel/*"]));
    let rule = |action: &str, names: &Value| json!({"action": action, "names": names});
    let (any, everything) = (json!({"action": "deny"}), rule("deny", &json!(["*"])));
    let table = [
        (json!([rule("allow", &exact), everything]), &all[1..], &all[..1]),
        (json!([rule("allow", &exact), any]), &all[1..], &all[..1]),
        (json!([everything, rule("allow", &exact)]), &all[..], &[][..]),
        (json!([any, rule("allow", &exact)]), &all[..], &[][..]),
        (json!([rule("allow", &glob), rule("deny", &exact), everything]), &all[2..], &all[..2]),
        (
            json!([rule("deny", &exact), rule("allow", &glob), any]),
            &["r kernel/hostname", "r vm/swappiness"],
            &all[1..2],
        ),
        (json!([rule("deny", &exact), rule("allow", &json!(["*"])), any]), &all[..1], &all[1..]),
    ];
    for (rules, denied, allowed) in table {
        let probe = || probe().denied(denied.iter().copied()).allowed(allowed.iter().copied());
        // A rule for all stands before the default, so that this makes no difference.
        let _ = probe().check(&sysctls("allow", &rules));
        let _ = probe().check(&sysctls("deny", &rules));
    }
}

#[test]
fn long_names_and_names_with_dots_are_judged_to_their_last_byte() {
    // As long as Linux's names get: an interface's of 15 bytes in one of 64, which is more than some guards read.
    let interface = "lo.345678901234";
    let long = format!("net/ipv4/conf/{interface}/igmpv2_unsolicited_report_interval");
    assert_eq!((interface.len(), long.len()), (15, 64));
    let script = format!("ip link set lo name {interface} && exec \"$@\"");
    let renamed = || probe().through(&["unshare", "--net", "sh", "-c", &script, "sh"]);
    let (read, other) =
        (format!("r {long}"), format!("r net/ipv4/conf/{interface}/igmpv3_unsolicited_report_interval"));
    let dots = "net.ipv4.conf.lo/345678901234.igmpv2_unsolicited_report_interval";
    for name in [&long, dots, "net/ipv4/conf/*/igmpv2_*_interval"] {
        let output = renamed().denied([&read]).allowed([&other]).check(&deny(&[name]));
        assert_eq!(names_of(&output), [&long]);
    }
    let _ = renamed().allowed([&read]).check(&deny(&[&long[..63]]));
}

#[test]
fn a_name_in_a_rule_has_at_most_127_bytes() {
    let accepted = Run::new(deny(&[&"k".repeat(127)]), ["true"]).output().success();
    assert_eq!(accepted.hook("sysctl")["hook"], "sysctl");
    let refused = Run::new(deny(&[&"k".repeat(128)]), ["true"]).output().exits(125);
    assert!(refused.stderr.contains("/sysctls/rules/0/names/0") && refused.stderr.contains("127"), "{refused:?}");
}

#[test]
fn audit_mode_lets_everything_go_on_and_records_it() {
    let policy = json!({"version": 1, "mode": "audit", "sysctls": {"default": "deny"}});
    let output = probe().allowed(["r kernel/hostname".to_owned(), format!("w {TTL}")]).audited(2).check(&policy);
    assert!(output.events().iter().all(|event| event["verdict"] == "audited"));
}

#[test]
fn the_last_of_256_rules_decides_like_the_first() {
    let mut rules: Vec<Value> = (0..255).map(|i| json!({"action": "allow", "names": [format!("x{i}")]})).collect();
    rules.push(json!({"action": "deny", "names": ["kernel/hostname"]}));
    let output =
        probe().denied(["r kernel/hostname"]).allowed(["r kernel/ostype"]).check(&sysctls("allow", &json!(rules)));
    assert_eq!(output.events()[0]["rule"], "/sysctls/rules/255");
}
