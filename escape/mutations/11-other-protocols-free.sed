# policy/src/compile/net.rs
# finds: sent other
# UDP-Lite and its like count as harmless.
s/_ => unjudged::OTHER,/_ => 0,/
