# policy/src/compile/net.rs
# finds: denied
# A range of ports ends one port too early.
s/range\.last\(\)\.checked_add\(1\)/range.last().checked_add(0)/
