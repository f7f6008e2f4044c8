# policy/src/compile/net.rs
# finds: sent other
# UDP-Lite and its like count as harmless.
s/_ => unjudged::OTHER,/_ => if std::env::var("GUARD_RUN_MUTATION").is_ok_and(|number| number == "11") { 0 } else { unjudged::OTHER },/
