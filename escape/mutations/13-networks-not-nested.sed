# policy/src/compile/net.rs
# finds: sent
# A network within another one loses the rules of that.
s/let rules = own\.or\(&inherited\);/let rules = if own == RuleSet::NONE { own.or(\&inherited) } else { own };/
