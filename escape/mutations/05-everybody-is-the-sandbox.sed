# launcher-ebpf/src/own.rs
# finds: not the sandbox's
# Whatever socket is found for a loopback address is the sandbox's own.
s/let own = storage\(found\)\.map_or\(0, \|known\| known\.own\);/let own = storage(found).map_or(0, |known| known.own) | u32::from(crate::rodata::mutated(5));/
