//! What the tests run under `guard-run`: a program that tries what is forbidden, once or millions of times, and says
//! what became of it. Static and quick to start.
//!
//!     storm tcp PORT...                  one connect to 127.0.0.1 for each port: "PORT connected", "PORT refused" …
//!     storm udp PROCESSES COUNT PORT     COUNT connects of UDP sockets from each process: fails if one is not denied
//!     storm ports FIRST COUNT            one connect of a UDP socket to each of so many ports: the same
//!     storm wait                         says "ready PARENT PID now", then what signals come; SIGINT ends it with 5
//!     storm sleep                        says the same, then sleeps
//!     storm killed-at-rename COMMAND...  executes the command, which the kernel kills when it renames something
//!     storm guard                        the programs on its own cgroup, and their maps; ends with standard input

use std::{
    env, io, mem,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    os::unix::process::{CommandExt as _, parent_id},
    process::{Command, ExitCode, id},
    thread,
    time::Duration,
};

use support::{
    bpf::{guard_of, maps_of},
    cgroup_of,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["tcp", ref ports @ ..] => ports.iter().for_each(|port| tcp(number(port))),
        ["udp", "1", count, port] => udp(number(count), |_| number(port)),
        ["udp", processes, count, port] => storm(number(processes), count, port),
        ["ports", first, count] => {
            let first: u32 = number(first);
            udp(number(count), |index| u16::try_from(first + index).expect("a port"));
        }
        ["guard"] => guard(),
        ["killed-at-rename", ref command @ ..] => killed_at_rename(command),
        ["wait"] => return wait(),
        // Not a script, since bash may lose a signal that comes just before it executes something.
        ["sleep"] => {
            // SAFETY: takes numbers only. SIGQUIT shall leave no core file.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
            say_ready();
            thread::sleep(Duration::from_secs(120));
        }
        _ => panic!("unknown arguments {words:?}"),
    }
    ExitCode::SUCCESS
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no such number"))
}

fn tcp(port: u16) {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => println!("{port} connected"),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => println!("{port} denied"),
        Err(error) => println!("{port} {error}"),
    }
}

fn udp(count: u32, port: impl Fn(u32) -> u16) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    for index in 0..count {
        let error = socket.connect((Ipv4Addr::LOCALHOST, port(index))).expect_err("it is forbidden");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    }
}

fn storm(processes: u32, count: &str, port: &str) {
    let program = env::current_exe().expect("this program");
    let start = |_| Command::new(&program).args(["udp", "1", count, port]).spawn().expect("another process");
    let started: Vec<_> = (0..processes).map(start).collect();
    for mut process in started {
        assert!(process.wait().expect("it is our child").success());
    }
}

fn guard() {
    let cgroup = cgroup_of(id()).expect("this process is in the hierarchy");
    let programs = guard_of(&cgroup).expect("it is there");
    let mut maps: Vec<u32> = programs.iter().flat_map(|program| maps_of(*program)).collect();
    maps.sort_unstable();
    maps.dedup();
    println!("{}\n{programs:?}\n{maps:?}", cgroup.display());
    io::copy(&mut io::stdin(), &mut io::sink()).expect("standard input can be read");
}

/// Installs a filter (seccomp(2)) that kills this process at rename(2) and its like, and executes a command.
fn killed_at_rename(command: &[&str]) {
    let step = |code: u32, value: u32, jump: u8| {
        let code = u16::try_from(code).expect("codes have 16 bits");
        libc::sock_filter { code, jt: jump, jf: 0, k: value }
    };
    let is = |call: libc::c_long, jump| {
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(call).expect("a small number"), jump)
    };
    let mut filter = [
        // The system call's number comes first.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        #[cfg(target_arch = "x86_64")]
        is(libc::SYS_rename, 3),
        #[cfg(not(target_arch = "x86_64"))]
        is(libc::SYS_renameat, 3),
        is(libc::SYS_renameat, 2),
        is(libc::SYS_renameat2, 1),
        step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0),
        step(libc::BPF_RET, libc::SECCOMP_RET_KILL_PROCESS, 0),
    ];
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).expect("a few"), filter: filter.as_mut_ptr() };
    // SAFETY: the program is there during the call, and as long as it says.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    panic!("{}", Command::new(command[0]).args(&command[1..]).exec());
}

fn say_ready() {
    println!("ready {} {} now", parent_id(), id());
}

/// Not a script, since a shell may miss a signal that comes while it deals with another.
fn wait() -> ExitCode {
    // SAFETY: plain memory, which the calls fill in.
    unsafe {
        let mut signals: libc::sigset_t = mem::zeroed();
        for signal in [libc::SIGINT, libc::SIGCONT, libc::SIGWINCH] {
            libc::sigaddset(&raw mut signals, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        // Whatever becomes of the test, this ends.
        libc::alarm(120);
        say_ready();
        loop {
            let mut signal = 0;
            libc::sigwait(&raw const signals, &raw mut signal);
            match signal {
                libc::SIGINT => return ExitCode::from(5),
                libc::SIGCONT => println!("continued"),
                _ => {
                    let mut size: libc::winsize = mem::zeroed();
                    libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size);
                    println!("{} {}", size.ws_row, size.ws_col);
                }
            }
        }
    }
}
