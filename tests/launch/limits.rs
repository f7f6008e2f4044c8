//! Where something that a guard needs can't be had, the command does not run: it never runs with half a guard.

use support::{Run, bpf::EVERY_SECTION};

#[test]
fn with_too_few_descriptors_the_command_does_not_run() {
    // Each number lets guard-run come a little further: to its leaf, its child, its first map, its ring buffer, its
    // programs. `true` needs 4 itself.
    let mut ran = 0;
    for descriptors in 4..52 {
        let run = Run::shell(EVERY_SECTION, "echo ran", &[]).through(["prlimit", &format!("--nofile={descriptors}")]);
        let output = run.without_log().flags(["--log", "-"]).output();
        match output.code() {
            Some(0) => {
                assert_eq!(output.stdout, "ran\n");
                // Every program was there, as in any other run.
                assert!(output.stderr.contains("\"hook\": \"sysctl\""), "{descriptors}: {output:?}");
                ran += 1;
            }
            Some(125) => {
                assert_eq!(output.stdout, "", "{descriptors}: it has run: {output:?}");
                assert!(output.stderr.starts_with("guard-run: "), "{descriptors}: {output:?}");
                assert_eq!(ran, 0, "{descriptors}: fewer were enough");
            }
            _ => panic!("{descriptors}: {output:?}"),
        }
    }
    assert!((1..48).contains(&ran), "{ran}");
}
