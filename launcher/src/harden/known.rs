//! What /proc tells of the processes that a call is about: which ones they are, whose, and what they have.

use std::{fs, io, os::unix::ffi::OsStrExt as _, path::PathBuf};

use enforce::{process::Status, sys::notify::Call};

use super::call::Whom;

/// How the links of descriptors begin that stand for processes, on one kernel or another (`pidfs_dname`, fs/pidfs.c).
const PIDFDS: [&[u8]; 2] = [b"anon_inode:[pidfd]", b"pidfd:["];

/// `RLIMIT_NOFILE` (include/uapi/asm-generic/resource.h).
pub(super) const NUMBER_OF_FILES: i32 = 7;

/// How wide the names are in /proc/PID/limits (`proc_pid_limits`, fs/proc/base.c).
const NAME_OF_LIMIT: usize = 26;

/// So many processes are looked at while a call waits.
const MOST_PROCESSES: usize = 10_000;

/// So many of their descriptors are.
pub(super) const MOST_DESCRIPTORS: usize = 10_000;

/// The processes that a call names, or threads of them. Where it names several, those that are there now; none where they are too many.
pub(super) fn processes(call: &Call, whom: Whom) -> Vec<i32> {
    let caller = call.thread.cast_signed();
    match whom {
        Whom::Number(argument) if call.int(argument) == 0 => vec![caller],
        Whom::Number(argument) => vec![call.int(argument)],
        Whom::Descriptor(argument) => of_descriptor(call.thread, call.int(argument)).into_iter().collect(),
        Whom::Group(argument) => {
            let group = call.int(argument).unsigned_abs().cast_signed();
            let group = if group == 0 { self::group(caller) } else { Some(group) };
            named(|pid| group.is_some() && self::group(pid) == group)
        }
        Whom::User(argument) => {
            let real = |pid: i32| Status::read(pid.cast_unsigned()).map(|status| status.real);
            let user = call.int(argument).cast_unsigned();
            let user = if user == 0 { real(caller) } else { Some(user) };
            named(|pid| user.is_some() && real(pid) == user)
        }
    }
}

/// All processes of which something holds.
fn named(holds: impl Fn(i32) -> bool) -> Vec<i32> {
    all_processes().unwrap_or_default().into_iter().filter(|pid| holds(*pid)).collect()
}

/// All processes that there are now. `None` where they are too many to look at while a call waits, and signals to guard-run with it.
pub(super) fn all_processes() -> Option<Vec<i32>> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let processes: Vec<i32> = processes.take(MOST_PROCESSES + 1).collect();
    (processes.len() <= MOST_PROCESSES).then_some(processes)
}

/// The number of the process that a thread's descriptor stands for (pidfd_open(2)). Of other descriptors nothing is read: what the kernel says of
/// them may be long.
fn of_descriptor(thread: u32, descriptor: i32) -> Option<i32> {
    let link = fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok()?;
    PIDFDS.iter().find(|start| link.as_os_str().as_bytes().starts_with(start))?;
    let text = fs::read_to_string(format!("/proc/{thread}/fdinfo/{descriptor}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// Whether a process is another user's, so that changing how it is scheduled takes a capability (`check_same_owner`,
/// kernel/sched/syscalls.c).
pub(super) fn is_of_other_user(caller: &Status, other: &Status) -> bool {
    ![other.real, other.effective].contains(&caller.effective)
}

/// A number of /proc/PID/stat, by its place after the name (proc_pid_stat(5)): the first one is field 4.
fn number_of(pid: i32, place: usize) -> Option<i32> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    String::from_utf8_lossy(&text).rsplit_once(')')?.1.split_whitespace().nth(place + 1)?.parse().ok()
}

/// A process's group: field 5.
fn group(pid: i32) -> Option<i32> {
    number_of(pid, 1)
}

/// How nice a thread is: field 19.
pub(super) fn niceness(thread: u32) -> Option<i32> {
    number_of(thread.cast_signed(), 15)
}

/// A limit of a thread's, by its name (proc_pid_limits(5)).
pub(super) fn limit(thread: u32, name: &str) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/{thread}/limits")).ok()?;
    let soft = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())?;
    if soft == "unlimited" { Some(i64::MAX) } else { soft.parse().ok() }
}

/// A hard limit of a thread's, by the resource's number. There is a line for each, in their order.
pub(super) fn hard_limit(thread: u32, resource: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{thread}/limits")).ok()?;
    let line = text.lines().nth(usize::try_from(resource).ok()?.checked_add(1)?)?;
    let hard = line.get(NAME_OF_LIMIT..)?.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

/// So many files nobody may have open, whatever the capabilities.
pub(super) fn most_files() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

/// Whether a thread is in this process's network namespace.
pub(super) fn is_in_our_network(thread: u32) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&thread.to_string())
}

/// How the kernel shows the name of an abstract socket (`unix_seq_show`, net/unix/af_unix.c).
pub(super) fn shown_abstract(name: &[u8]) -> Vec<u8> {
    [b"@", name].concat().into_iter().map(|byte| if byte == 0 { b'@' } else { byte }).collect()
}

/// The numbers of the Unix sockets that were bound to what is shown as this name, and to which somebody can connect or send.
pub(super) fn bound_sockets(shown: &[u8]) -> Option<Vec<u64>> {
    Some(find_bound(&fs::read("/proc/net/unix").ok()?, shown))
}

fn find_bound(sockets: &[u8], shown: &[u8]) -> Vec<u64> {
    let bound = |line: &[u8]| -> Option<u64> {
        let (before, name) = line.split_at(line.len().checked_sub(shown.len())?);
        // Accepted sockets have the listener's name, too, and are not listening.
        let before = str::from_utf8(before.strip_suffix(b" ")?).ok().filter(|_| name == shown)?;
        let fields: Vec<&str> = before.split_whitespace().collect();
        let [_, _, _, flags, kind, _, inode] = fields[..] else { return None };
        (kind == "0002" || flags == "00010000").then(|| inode.parse().ok())?
    };
    sockets.split(|byte| *byte == b'\n').filter_map(bound).collect()
}

/// Whether a process has one of these sockets open, if there is room to look at its descriptors. `None` where that can't be told.
pub(super) fn has_socket(pid: i32, numbers: &[u64], room: &mut usize) -> Option<bool> {
    let links: Vec<PathBuf> = numbers.iter().map(|number| format!("socket:[{number}]").into()).collect();
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        // It has ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
        entries => entries.ok()?,
    };
    for entry in entries.flatten() {
        *room = room.checked_sub(1)?;
        if fs::read_link(entry.path()).is_ok_and(|found| links.contains(&found)) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_this_process_is_found() {
        let own = std::process::id();
        let pid = own.cast_signed();
        assert!((-20..20).contains(&niceness(own).expect("it is there")));
        assert!(limit(own, "Max nice priority").expect("it is there") >= 0);
        assert_eq!((niceness(0), limit(own, "no such limit"), hard_limit(own, 99)), (None, None, None));
        let files = hard_limit(own, NUMBER_OF_FILES).expect("it is there");
        assert!(files <= most_files().expect("it is there"), "{files}");
        assert_eq!(group(pid), Some(nix::unistd::getpgrp().as_raw()));
        assert!(all_processes().is_some_and(|all| all.contains(&pid)) && is_in_our_network(own));
        assert_eq!((has_socket(pid, &[0], &mut 1000), has_socket(pid, &[0], &mut 0)), (Some(false), None));
        let caller = Status::read(own).expect("it is there");
        assert!(
            !is_of_other_user(&caller, &caller)
                && is_of_other_user(&caller, &Status { real: 4242, effective: 4242, ..caller.clone() })
        );
    }

    #[test]
    fn processes_are_found_as_calls_name_them() {
        let own = std::process::id();
        let group = nix::unistd::getpgrp().as_raw();
        let call = |argument: i32| Call {
            id: 0,
            thread: own,
            number: 0,
            arguments: [u64::from(argument.cast_unsigned()), 0, 0, 0, 0, 0],
            is_foreign: false,
        };
        assert_eq!(processes(&call(0), Whom::Number(0)), [own.cast_signed()]);
        assert_eq!(processes(&call(7), Whom::Number(0)), [7]);
        assert!(processes(&call(-1), Whom::Descriptor(0)).is_empty());
        for (argument, whom) in
            [(0, Whom::Group(0)), (group, Whom::Group(0)), (-group, Whom::Group(0)), (0, Whom::User(0))]
        {
            assert!(processes(&call(argument), whom).contains(&own.cast_signed()), "{argument} {whom:?}");
        }
    }

    #[test]
    fn sockets_are_found_by_their_whole_names() {
        let sockets = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 41 @a\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 42 @a\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 43 /x @b\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 45 /x @b\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 44 @b@\n";
        let found = |shown: &[u8]| find_bound(sockets, shown);
        assert_eq!((found(b"@a"), found(b"/x @b")), (vec![42], vec![43, 45]));
        assert_eq!((found(b"@b"), found(&shown_abstract(b"b\0"))), (vec![], vec![44]));
        assert_eq!(bound_sockets(b"@no such name"), Some(vec![]));
    }
}
