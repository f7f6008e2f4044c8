# launcher-ebpf/src/device.rs
# finds: device opened
# A device's minor number counts as another one.
s/access: access_type >> 16, major, minor \};/access: access_type >> 16, major, minor: minor ^ u32::from(crate::rodata::mutated(12)) };/
