//! Files of /proc by which the machine, or guard-run itself, could be changed: a root command sees them read-only. One that is not root and may
//! make namespaces sees them as they are, so that it can mount a procfs, and has no rights to them.

use serde_json::{Value, json};
use support::{Output, Run, ordinary::ALICE};

/// Opens for writing all that it can of them, as it is and as root of a user namespace of its own, and closes it again.
const OPEN: &str = "
import ctypes, os
MACHINE = 'sysrq-trigger irq bus fs acpi mtrr dynamic_debug scsi asound driver ide xen spl cio_ignore latency_stats lock_stat'.split()
launcher = os.getppid()
def files():
    for name in MACHINE + [f'{launcher}']:
        path = f'/proc/{name}'
        if os.path.isfile(path): yield path
        for folder, _, names in os.walk(path):
            yield from (f'{folder}/{name}' for name in names)
def opened():
    found = set()
    for path in files():
        try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError: continue
        found.add(path.replace(str(launcher), 'LAUNCHER'))
    return found
def say(who):
    print(who, *sorted(path for path in opened() if path.split('/')[2] in MACHINE or path.endswith('/LAUNCHER/oom_score_adj')))
say('itself')
user = os.geteuid()
if os.environ.get('NAMESPACE'):
    if ctypes.CDLL(None).unshare(0x10000000) == 0:
        open('/proc/self/setgroups', 'w').write('deny')
        open('/proc/self/uid_map', 'w').write(f'0 {user} 1')
        say('root of a namespace')";

fn policy(allow: &Value) -> Value {
    json!({"version": 1, "process": {"allow": allow}, "sysctls": {"default": "allow"}})
}

fn run(allow: &Value, user: Option<u32>) -> Run {
    let run = Run::python(policy(allow), OPEN, &[]).environment("NAMESPACE", "1");
    match user {
        Some(user) => run.flags(["--user", &format!("{user}:{user}")]).for_everyone(),
        None => run,
    }
}

fn lines(output: &Output) -> Vec<&str> {
    output.stdout.lines().collect()
}

#[test]
fn who_sees_them_as_they_are_has_no_rights_to_them() {
    let namespaces = json!(["namespaces"]);
    // Outside, root may write some, and also those of who has started it.
    let bare = Run::python(policy(&json!([])), OPEN, &[]).bare().success();
    assert!(bare.stdout.contains("/proc/irq/") && bare.stdout.contains("LAUNCHER/oom_score_adj"), "{}", bare.stdout);
    // A root command sees them read-only, whatever else it may do.
    let root = run(&namespaces, None).output().success();
    assert_eq!(lines(&root)[0], "itself", "{}", root.stdout);
    // One of another user's, and one of an ordinary user's own guard-run.
    let nothing = ["itself", "root of a namespace"];
    let other = run(&namespaces, Some(ALICE)).output().success();
    assert_eq!(lines(&other), nothing);
    let own = run(&namespaces, None).as_ordinary(ALICE).output().success();
    assert_eq!(lines(&own), nothing);
}
