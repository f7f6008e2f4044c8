# What a user or developer types. Each target installs what it needs first.

CARGO ?= cargo
# bpf-linker and cargo-deny are installed there.
export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin

HOST = $(shell rustc --version --verbose | sed -n 's/^host: //p')
RELEASE = $(or $(CARGO_TARGET_DIR),target)/$(HOST)/release
# Programs don't tell where they were built: who builds a commit again, in another folder, gets the same bytes.
SOURCES_OF_CRATES = $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src
without_paths = --config 'target.$(1).rustflags = ["--remap-path-prefix=$(CURDIR)=.", "--remap-path-prefix=$(SOURCES_OF_CRATES)=crates"]'
BUILD_RELEASE = $(CARGO) build --release --locked $(call without_paths,$(HOST))
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

# What the program's file needs for ordinary users, as setcap(8) takes it; `guard-run doctor` says the same.
FILE_CAPABILITIES = cap_dac_override,cap_setuid,cap_setpcap,cap_net_admin,cap_sys_admin,cap_perfmon,cap_bpf=p

# What the fuzzers do: for how long, and what they begin with (nothing: the time).
MINUTES ?= 10
SEED ?=
# In which manners the escape fuzzer has guarded programs started: root, kept, user, container.
MANNERS ?= root
TEST_SEED = 20261129

.PHONY: all setup build demo programs test test-kernels fuzz-parser fuzz-escape fuzz-escape-kernels fuzz-privileged bench lint msrv advisories audit install uninstall deb dist materials clean

all: build

include packaging/install.mk

# Tool chain and libraries.
setup:
	tools/setup.sh

# The release build: static programs, in bin/.
build: setup
	$(BUILD_RELEASE) --package guard-run --package guard-selftest --package guard-hooks
	mkdir -p bin
	ln -srf $(PROGRAMS:%=$(RELEASE)/%) bin/

# The tutorial scenario: two web servers, one of them forbidden.
demo: build
	tools/setup.sh demo
	bin/guard-run --version
	tools/demo.sh

# The compiled eBPF programs that the repository carries, so that users need no LLVM: made anew for a release.
programs:
	tools/setup.sh ebpf
	tools/programs.py update

# All tests, and some minutes of looking for new faults; those that enforce need root.
test:
	tools/setup.sh ebpf test deb dist
	tools/programs.py check
	$(CARGO) build --locked
	$(CARGO) test --locked --no-fail-fast
	$(CARGO) test --locked --package guard-run-fuzz --package guard-fuzz-privileged
	$(MAKE) fuzz-parser SECONDS=20
	# From the same seed each time, so that what is found is due to a change. By hand, other seeds are tried.
	$(MAKE) fuzz-escape MINUTES=2 SEED=$(TEST_SEED) MANNERS=root,kept,user,container
	$(MAKE) fuzz-privileged MINUTES=2 SEED=$(TEST_SEED)

# Coverage-guided fuzzing of what reads files, SECONDS seconds for each of fuzz/fuzz_targets. What it needs of the compiler is not stable, but there.
SECONDS ?= 600
FUZZ_FLAGS = --cfg fuzzing -Cpasses=sancov-module -Cdebug-assertions \
	$(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)
fuzz-parser:
	tools/setup.sh
	RUSTC_BOOTSTRAP=1 RUSTFLAGS='$(FUZZ_FLAGS)' $(CARGO) build --release --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz
	for target in $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs))); do \
		mkdir -p fuzz/corpus/$$target && \
		target/fuzz/$(HOST)/release/$$target -max_total_time=$(SECONDS) -verbosity=0 -print_final_stats=1 \
			fuzz/corpus/$$target examples || exit 1; \
	done

# Generated programs of system calls against generated policies, judged by what is seen outside. Needs root.
fuzz-escape: setup
	$(BUILD_RELEASE) --package guard-run --package guard-hooks --package guard-run-fuzz
	$(RELEASE)/guard-run-fuzz run --guard-run $(RELEASE)/guard-run --minutes $(MINUTES) --as $(MANNERS) $(SEED:%=--seed %)

# The same for MINUTES minutes on each of the kernels that tests/kernels.toml names for it, in virtual machines.
fuzz-escape-kernels: setup
	tools/setup.sh kernels
	$(BUILD_RELEASE) --package guard-run --package guard-run-fuzz
	tools/vm/fuzz.py target/kernels $(RELEASE) $(MINUTES) $(MANNERS) $(SEED)

# The tests that enforce, on the kernels of tests/kernels.toml, in virtual machines. KERNELS picks some of them by
# name, TESTS some modules: make test-kernels KERNELS="'Debian 6.1'" TESTS=network::race,rules::unix
test-kernels:
	tools/setup.sh test kernels
	tools/vm/test.py target/kernels $(TESTS:%=--tests %) $(KERNELS)

# Looks for faults in what works with root's rights, for MINUTES minutes; SEED repeats an earlier run. Needs root.
fuzz-privileged:
	tools/setup.sh test
	$(CARGO) build --locked --package guard-run --package guard-hooks --package guard-fuzz-privileged
	$(or $(CARGO_TARGET_DIR),target)/$(HOST)/debug/guard-fuzz-privileged --minutes $(MINUTES) $(SEED:%=--seed %)

# Measurements against the peers, with the release build.
bench: setup
	tools/setup.sh bench
	$(BUILD_RELEASE) --package guard-run --package guard-hooks --package guard-bench
	target/$(HOST)/release/guard-bench

lint:
	tools/setup.sh lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- --deny warnings
	$(CARGO) clippy --locked --package guard-run-fuzz --package guard-fuzz-privileged --all-targets -- --deny warnings
	# The eBPF tool chain has no clippy; for what it checks, the host's will do.
	RUSTC_BOOTSTRAP=1 $(CARGO) clippy --locked --package launcher-ebpf --lib --target-dir target/lint -- --deny warnings
	RUSTC_BOOTSTRAP=1 $(CARGO) clippy --locked --package launcher-ebpf --lib --features plain --target-dir target/lint -- --deny warnings
	RUSTC_BOOTSTRAP=1 $(CARGO) clippy --locked --package launcher-ebpf --lib --features names --target-dir target/lint -- --deny warnings
	$(CARGO) deny --locked check bans licenses sources
	tools/crates.py
	tools/links.py
	escape/mutations/check
	tools/audit.py --check
	git ls-files -z | xargs -0 grep -lIE '^#!.*\b(ba)?sh\b' | xargs shellcheck
	target/tools/bin/typos

# What is shipped compiles with the oldest Rust that Cargo.toml allows.
msrv: setup
	tools/msrv.sh

# Known vulnerabilities of what is used. Needs a database that is fetched from the Internet.
advisories:
	tools/setup.sh lint
	$(CARGO) deny --locked check advisories

# What has to be read to trust guard-run with root's rights.
audit:
	tools/audit.py

clean:
	$(CARGO) clean
	rm -rf bin
