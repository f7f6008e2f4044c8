//! Running attempts, bare and guarded, and looking at what became of each.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::{
        fd::AsFd as _,
        unix::{fs::PermissionsExt as _, fs::chown, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask},
        signalfd::SignalFd,
    },
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    AttemptReport, Role,
    attempt::{LOOPBACK, SCENE, Scene, Stop},
    contains,
    error::Errors,
    guard::{Guard, Programs},
    handed::Handed,
    heir::{Caller, Heir},
    nameserver::{self, Nameserver},
    object::{Disk, Queues, Shared, make_node, mount_formats},
    outside::{hierarchy, reap},
    outsider::Outside,
    process::Process,
    server::{BUS, EDITOR, Ear, KEYS, Restarted},
    sysctl::is_hidden_value,
    vector::{Comes, Control, Evidence, Place, Vector},
};

/// How long an attempt may take.
const LIMIT: Duration = Duration::from_secs(10);
/// After which time a command surely runs.
const STARTED: Duration = Duration::from_millis(300);
/// How often its standard output is looked at, in milliseconds.
const TICK: u8 = 5;

/// The section that allows raw sockets beside the usual ones.
const RAW_SOCKETS: &str = r#""sockets": {"default": "allow", "rules": [{"action": "allow", "type": "raw"}]}"#;

/// What became of an attempt.
#[derive(Clone, Debug)]
pub enum Tried {
    /// The attempt got out.
    Out,
    /// The attempt was stopped.
    Stopped {
        /// By this, as it sees it.
        stop: Stop,
        /// The denials that the log has: hook and rule.
        denials: Vec<(String, String)>,
    },
    /// The attempt could not be made.
    CouldNot(String),
}

/// Runs attempts. What it has made goes away with it.
pub struct Runner {
    process: Process,
    /// guard-run, and this program.
    programs: Programs,
    hierarchy: PathBuf,
    ear: Ear,
    _shared: Shared,
    disk: Option<Disk>,
    queues: Queues,
    served: u16,
    nameserver: Option<Nameserver>,
    key: i32,
    count: u32,
    secret: String,
    mounts: PathBuf,
    signals: SignalFd,
    folder: TempDir,
}

/// The text of a vector's policy.
pub fn policy(vector: &Vector, process: &Process, scene: (u16, u16, Option<[u8; 4]>)) -> String {
    let (port, served, nameserver) = scene;
    let nameserver = Ipv4Addr::from(nameserver.unwrap_or(LOOPBACK));
    let sections = vector.policy.replace("NAMESERVER", &nameserver.to_string());
    let sections = sections.replace("PORT", &port.to_string()).replace("SERVED", &served.to_string());
    let sections = Some(sections).filter(|it| !it.is_empty());
    let capabilities: &[&str] = if vector.raw { &["CAP_NET_RAW"] } else { &[] };
    let sockets = vector.raw.then(|| RAW_SOCKETS.to_owned());
    let parts = [Some(r#""version": 1"#.to_owned()), sections, sockets, process.section(capabilities)];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

impl Runner {
    /// Prepares what attempts need outside.
    ///
    /// # Errors
    ///
    /// When something of it can't be had.
    pub fn new(process: Process, programs: Programs) -> anyhow::Result<Self> {
        // Before there is another thread: anybody who wants to end the self-test has it end itself, and clean up.
        let mut ending = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            ending.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ending), None)?;
        let signals = SignalFd::new(&ending)?;
        // Mounts of its own, for what not every machine has mounted.
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for the self-test")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let folder = tempfile::Builder::new().prefix("guard-selftest-").tempdir()?;
        let key = std::process::id().cast_signed();
        let secret = format!("secret-{:016x}", random()?);
        let ear = Ear::new(folder.path(), key)?;
        make_node(folder.path());
        mount_formats();
        Ok(Self {
            process,
            programs,
            hierarchy: hierarchy()?,
            _shared: Shared::new(key, &secret),
            queues: Queues::new()?,
            disk: Disk::new(folder.path()).ok(),
            served: 0,
            nameserver: nameserver::start(&ear.listen()).ok(),
            key,
            count: 0,
            secret,
            mounts: fs::read_link("/proc/self/ns/mnt")?,
            signals,
            folder,
            ear,
        })
    }

    /// Tries a vector without the guard.
    ///
    /// # Errors
    ///
    /// When the self-test itself fails, or is to end.
    pub fn bare(&mut self, family: &str, vector: &Vector) -> anyhow::Result<Tried> {
        self.served = free_port()?;
        let attached = match vector.control {
            Control::Guard => match self.control(vector) {
                Ok(attached) => Some(attached),
                Err(error) => return Ok(Tried::CouldNot(format!("{error:#}"))),
            },
            _ => None,
        };
        let control = attached.as_ref().map(|attached| attached.cgroup.clone());
        let name = format!("{family}/{}", vector.name);
        let role = if vector.control == Control::StandIn { Role::StandIn(name) } else { Role::Attempt(name) };
        let mut command = Command::new(&self.programs.own);
        command.args(role.arguments());
        let tried = self.run(command, vector, control, None)?;
        Ok(match tried {
            Tried::Stopped { stop: Stop { step, errno: Some(errno) }, .. } => {
                Tried::CouldNot(format!("{step}: {errno}"))
            }
            Tried::Stopped { stop, .. } => Tried::CouldNot(stop.step.into_owned()),
            tried => tried,
        })
    }

    /// Tries it under the guard.
    ///
    /// # Errors
    ///
    /// When the self-test itself fails, or is to end.
    pub fn guarded(&mut self, family: &str, vector: &Vector) -> anyhow::Result<Tried> {
        self.served = free_port()?;
        let (policy, log) = (self.folder.path().join("policy.json"), self.folder.path().join("log.json"));
        fs::write(&policy, self.policy(vector))?;
        let _ = fs::remove_file(&log);
        let mut command = Command::new(&self.programs.guard_run);
        command.arg("--policy").arg(&policy).arg("--log").arg(&log);
        let name = format!("{family}/{}", vector.name);
        command.args(["--quiet", "--"]).arg(&self.programs.own).args(Role::Attempt(name).arguments());
        self.run(command, vector, None, Some(&log))
    }

    fn policy(&self, vector: &Vector) -> String {
        policy(vector, &self.process, (self.ear.port, self.served, self.nameserver.as_ref().map(|one| one.address)))
    }

    /// A cgroup with the policy's programs on it, and no other measure.
    fn control(&self, vector: &Vector) -> anyhow::Result<Guard> {
        let (path, log) = (self.folder.path().join("control.json"), self.folder.path().join("control-log.json"));
        fs::write(
            &path,
            policy(
                vector,
                &Process::cgroup_only(),
                (self.ear.port, self.served, self.nameserver.as_ref().map(|one| one.address)),
            ),
        )?;
        let mut command = Command::new(&self.programs.guard_run);
        command.arg("--policy").arg(&path).arg("--log").arg(&log);
        command.args(["--quiet", "--wait", "child", "--"]).arg(&self.programs.own).args(Role::Holder.arguments());
        Guard::start(command, &self.hierarchy)
    }

    /// Runs an attempt's command to its end, and judges it.
    fn run(
        &mut self,
        mut command: Command,
        vector: &Vector,
        control: Option<PathBuf>,
        log: Option<&Path>,
    ) -> anyhow::Result<Tried> {
        self.clear_work()?;
        let mut outside = if vector.outsider { Some(Outside::start(&self.secret)?) } else { None };
        let handed = match vector.handed {
            None => None,
            Some(handed) => match handed.open(self.ear.port, self.folder.path(), &self.hierarchy, outside.as_ref()) {
                Ok(open) => Some(open),
                Err(error) => return Ok(Tried::CouldNot(format!("{error:#}"))),
            },
        };
        self.count += 1;
        let scene = Scene {
            token: format!("<token {} {:016x}>", self.count, random()?),
            secret: self.secret.clone(),
            port: self.ear.port,
            nameserver: self.nameserver.as_ref().map(|one| one.address),
            served: self.served,
            folder: self.folder.path().to_owned(),
            hierarchy: self.hierarchy.clone(),
            key: self.key,
            netlink: self.ear.netlink,
            queues: self.queues.folder.clone(),
            disk: self.disk.as_ref().map(|disk| disk.path.clone()),
            mounts: self.mounts.clone(),
            handed: handed.as_ref().map(|open| open.number),
            outsider: outside.as_ref().map(|outside| outside.told),
            control,
        };
        self.ear.forget();
        command.env(SCENE, serde_json::to_string(&scene)?).process_group(0);
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", self.folder.path().join(BUS).display()));
        command.env("NVIM", self.folder.path().join(EDITOR)).env("GNUPGHOME", self.folder.path().join(KEYS));
        command.stdin(match handed.as_ref().and_then(|open| open.input.as_ref()) {
            Some(input) => Stdio::from(input.try_clone()?),
            None => Stdio::null(),
        });
        if vector.handed == Some(Handed::WorkingFolder) {
            command.current_dir(&self.hierarchy);
        }
        let errors = tempfile::tempfile()?;
        command.stdout(Stdio::piped()).stderr(errors.try_clone()?);
        let spawned = match (vector.place, &self.ear.wire) {
            (Place::Here, _) => command.spawn(),
            (Place::Wire, Ok(wire)) => wire.spawn(&mut command),
            (Place::Wire, Err(why)) => return Ok(Tried::CouldNot(why.clone())),
        };
        let child = spawned.context("starting an attempt")?;
        let output = self.watch(child, vector)?;
        if let Some(open) = &handed {
            self.ear.add(&open.typed());
        }
        let report = output.lines().rev().find_map(|line| serde_json::from_str::<AttemptReport>(line).ok());
        let seen = self.saw(vector, &scene, report.as_ref(), outside.as_mut());
        let log = log.map(|log| fs::read(log).map(|text| serde_json::from_slice::<Value>(&text).unwrap_or_default()));
        Ok(match (seen, report, log) {
            (true, ..) => Tried::Out,
            (false, Some(AttemptReport { stop: Some(stop), .. }), log) => {
                Tried::Stopped { stop, denials: denials(log.and_then(Result::ok).as_ref()) }
            }
            (false, Some(_), log) => {
                let stop = Stop::because("nobody outside noticed");
                Tried::Stopped { stop, denials: denials(log.and_then(Result::ok).as_ref()) }
            }
            (false, None, Some(Ok(log))) => {
                let end = log["exit"]["signal"].as_i64().and_then(|number| i32::try_from(number).ok());
                let end = end.and_then(|number| Signal::try_from(number).ok());
                let end = end.map_or_else(|| "ended without a word".to_owned(), |signal| format!("ended by {signal}"));
                Tried::Stopped { stop: Stop::because(end), denials: denials(Some(&log)) }
            }
            (false, None, _) => Tried::CouldNot(last_line(errors)),
        })
    }

    /// Gives the attempt an empty folder of its own.
    fn clear_work(&self) -> anyhow::Result<()> {
        let folder = self.folder.path();
        let work = folder.join("work");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).with_context(|| work.display().to_string())?;
        chown(folder, None, Some(0))?;
        Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?)
    }

    /// Reads what it says until nobody is left who could say more, and meanwhile does what people outside do.
    fn watch(&self, mut child: Child, vector: &Vector) -> anyhow::Result<String> {
        let pid = child.id();
        let mut output = child.stdout.take().expect("it is piped");
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let read = self.read(&mut output, vector);
        if !matches!(read, Ok((_, true))) {
            let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = child.wait();
        reap(&self.hierarchy, pid);
        read.map(|(text, _)| text)
    }

    /// What it says, and whether it has ended in time.
    fn read(&self, output: &mut ChildStdout, vector: &Vector) -> anyhow::Result<(String, bool)> {
        let (mut text, end) = (Vec::new(), Instant::now() + LIMIT);
        let knocking = if vector.comes == Comes::Knocks { Some(Knocking::new()?) } else { None };
        let errors = if vector.comes == Comes::Errors { Some(Errors::new()?) } else { None };
        let mut heir = (vector.comes == Comes::Heir).then(Heir::default);
        let _caller = match (&self.ear.wire, vector.comes) {
            (Ok(wire), Comes::Caller) => Some(Caller::new(wire, self.served, self.secret.clone())?),
            _ => None,
        };
        let (begin, mut restarted) = (Instant::now(), None);
        while Instant::now() < end {
            if vector.restarts && restarted.is_none() && begin.elapsed() > STARTED {
                restarted = Some(Restarted::new(self.folder.path())?);
            }
            let mut fds =
                [PollFd::new(output.as_fd(), PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(TICK));
            anyhow::ensure!(!fds[1].any().unwrap_or(false), "interrupted");
            if let Some(restarted) = &restarted {
                restarted.listen(&self.ear);
            }
            let mut buffer = [0; 4096];
            match output.read(&mut buffer) {
                Ok(0) => return Ok((String::from_utf8_lossy(&text).into_owned(), true)),
                Ok(length) => text.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(knocking) = &knocking {
                knocking.knock(self.served, &self.ear);
            }
            if let Some(heir) = &mut heir {
                heir.tell(self.served, &self.secret);
            }
            if let Some(errors) = &errors {
                errors.tell(self.served, &self.secret);
            }
            if vector.evidence == Evidence::Told && vector.handed.is_none() {
                self.ear.mutter(&self.secret);
            }
        }
        Ok((String::from_utf8_lossy(&text).into_owned(), false))
    }

    /// Whether it is seen, from outside where that is possible, that the attempt got out.
    fn saw(
        &self,
        vector: &Vector,
        scene: &Scene,
        report: Option<&AttemptReport>,
        outside: Option<&mut Outside>,
    ) -> bool {
        let told = report.filter(|report| report.stop.is_none()).map(|report| report.told.as_slice());
        match (vector.evidence, outside) {
            (Evidence::Heard, _) => {
                if let Some(nameserver) = &self.nameserver {
                    nameserver.settle();
                }
                self.ear.has_heard(&scene.token)
            }
            (Evidence::Told, _) => told.is_some_and(|told| contains(told, scene.secret.as_bytes())),
            (Evidence::Tunable, _) => told.is_some_and(is_hidden_value),
            (Evidence::Changed, Some(outside)) => outside.holds(scene.token.as_bytes()),
            (Evidence::Killed, Some(outside)) => outside.has_ended(),
            (Evidence::Changed | Evidence::Killed, None) => false,
            (Evidence::Word, _) => told.is_some(),
        }
    }
}

/// Somebody outside who tries whether a port is served.
struct Knocking(UdpSocket);

impl Knocking {
    fn new() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    fn knock(&self, port: u16, ear: &Ear) {
        let own = self.0.local_addr().map_or(0, |address| address.port());
        let _ = self.0.send_to(own.to_string().as_bytes(), ("127.0.0.1", port));
        let mut buffer = [0; 256];
        while let Ok(length) = self.0.recv(&mut buffer) {
            ear.add(&buffer[..length]);
        }
        for address in [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))] {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                ear.add(&buffer[..length]);
            }
            let _ = stream.flush();
        }
    }
}

/// The denials in a log: hook and rule, each once.
fn denials(log: Option<&Value>) -> Vec<(String, String)> {
    let events = log.and_then(|log| log["events"].as_array());
    let mut found = Vec::new();
    for event in events.into_iter().flatten() {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let denial = (text("hook"), text("rule"));
        if !found.contains(&denial) {
            found.push(denial);
        }
    }
    found
}

fn last_line(mut errors: fs::File) -> String {
    use std::io::Seek as _;
    let mut text = String::new();
    let _ = errors.rewind();
    let _ = errors.read_to_string(&mut text);
    text.lines().last().unwrap_or("ended without a word").trim_start_matches("guard-run: ").to_owned()
}

/// A port of those that the kernel gives to anybody who doesn't care, and that nobody has.
fn free_port() -> io::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
