//! bpf(2) turned against the guard. The control is a guard of the self-test's own, with nothing but the programs.

use aya_obj::generated::bpf_attach_type;

use crate::sys::bpf::{Program, attach, detach, link, load, load_tracer, next_program, program_by_id, query};

use super::{
    attempt::{At as _, LOOPBACK, Outcome, Scene, Stop, open_and_read, tcp, v4},
    cgroup::own_folder,
    policies::{DEVICES, NETWORK, NOTHING},
    vector::{Control, Evidence, Layer, Vector},
};

const CONNECT4: bpf_attach_type = bpf_attach_type::BPF_CGROUP_INET4_CONNECT;
const DEVICE: bpf_attach_type = bpf_attach_type::BPF_CGROUP_DEVICE;

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NETWORK, attempt).control(Control::Guard).stopped_by(Layer::Seccomp)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("detach", "detaches the program at connect4", |s| {
        s.is_guarded()?;
        let cgroup = own_folder(s)?;
        detach(&cgroup, CONNECT4, Some(&found(&cgroup, CONNECT4)?)).at("BPF_PROG_DETACH")?;
        s.tell()
    }),
    vector("detach-device", "detaches the program for devices", |s| {
        let cgroup = own_folder(s)?;
        detach(&cgroup, DEVICE, Some(&found(&cgroup, DEVICE)?)).at("BPF_PROG_DETACH")?;
        open_and_read("/dev/zero".as_ref())
    })
    .under(DEVICES)
    .seen_by(Evidence::Word),
    vector("detach-searched", "detaches all programs of the machine that are on its cgroup", |s| {
        s.is_guarded()?;
        let cgroup = own_folder(s)?;
        let mut id = 0;
        let mut detached = Err(Stop::because("no program on its cgroup"));
        while let Ok(next) = next_program(id) {
            id = next;
            let program = program_by_id(id).at("BPF_PROG_GET_FD_BY_ID")?;
            if detach(&cgroup, CONNECT4, Some(&program)).is_ok() {
                detached = Ok(());
            }
        }
        if id == 0 {
            next_program(0).at("BPF_PROG_GET_NEXT_ID")?;
        }
        detached?;
        s.tell()
    }),
    vector("replace", "puts a program that allows everything in the place of the guard's", |s| {
        s.is_guarded()?;
        let cgroup = own_folder(s)?;
        let program = load(Program::Allow).at("BPF_PROG_LOAD")?;
        attach(&cgroup, CONNECT4, &program, Some(&found(&cgroup, CONNECT4)?)).at("BPF_PROG_ATTACH")?;
        s.tell()
    }),
    vector("forgive", "attaches a program that takes the denial back (bpf_set_retval)", |s| {
        s.is_guarded()?;
        let program = load(Program::Forgive).at("BPF_PROG_LOAD")?;
        attach(&own_folder(s)?, CONNECT4, &program, None).at("BPF_PROG_ATTACH")?;
        s.tell()
    }),
    vector("forgive-by-link", "the same, attached by a link", |s| {
        s.is_guarded()?;
        let program = load(Program::Forgive).at("BPF_PROG_LOAD")?;
        let _link = link(&own_folder(s)?, CONNECT4, &program).at("BPF_LINK_CREATE")?;
        s.tell()
    }),
    vector("redirect", "attaches a program that sends allowed connections elsewhere", |s| {
        let program = load(Program::Redirect(s.port)).at("BPF_PROG_LOAD")?;
        attach(&own_folder(s)?, CONNECT4, &program, None).at("BPF_PROG_ATTACH")?;
        // To a port that the policy allows.
        s.tell_by(&tcp(libc::AF_INET, 0)?, &v4(LOOPBACK, 9))
    })
    .under(super::policies::PORT),
    vector("trace", "loads a program that could look into every process", |_| {
        load_tracer().at("BPF_PROG_LOAD").map(|_| Vec::new())
    })
    .under(NOTHING)
    .control(Control::Bare)
    .seen_by(Evidence::Word),
    vector("others", "looks at other programs of the machine", others).under(NETWORK).seen_by(Evidence::Word),
];

fn found(cgroup: &std::os::fd::OwnedFd, hook: bpf_attach_type) -> Result<std::os::fd::OwnedFd, Stop> {
    let ids = query(cgroup, hook).at("BPF_PROG_QUERY")?;
    let id = *ids.first().ok_or_else(|| Stop::because("no program at the hook"))?;
    program_by_id(id).at("BPF_PROG_GET_FD_BY_ID")
}

fn others(_: &Scene) -> Outcome {
    let first = next_program(0).at("BPF_PROG_GET_NEXT_ID")?;
    program_by_id(first).at("BPF_PROG_GET_FD_BY_ID").map(|_| Vec::new())
}
