# policy/src/compile/net.rs
# finds: denied
# A range of ports ends one port too early.
s/range\.last\(\)\.checked_add\(1\)/range.last().checked_add(u16::from(!std::env::var("GUARD_RUN_MUTATION").is_ok_and(|number| number == "6")))/
