# policy/src/compile/net.rs
# finds: sent
# A network within another one loses the rules of that.
s/let rules = own\.or\(&inherited\);/let rules = if std::env::var("GUARD_RUN_MUTATION").is_ok_and(|number| number == "13") \&\& own != RuleSet::NONE { own } else { own.or(\&inherited) };/
