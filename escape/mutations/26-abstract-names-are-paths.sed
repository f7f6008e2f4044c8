# launcher-ebpf/src/unix.rs
# finds: Unix socket reached
# An abstract name is judged as a path.
s/subject\.kind = Kind::ABSTRACT\.index\(\) as u16;/subject.kind = (if crate::rodata::mutated(26) { Kind::PATH } else { Kind::ABSTRACT }).index() as u16;/
