# make install, make uninstall, make deb. Where things go is the GNU conventions' choice of names; DESTDIR is put before all.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/guard-run
BASHDIR ?= $(DATADIR)/bash-completion/completions
ZSHDIR ?= $(DATADIR)/zsh/site-functions
FISHDIR ?= $(DATADIR)/fish/vendor_completions.d
# podman and CRI-O read /usr/share/containers/oci/hooks.d; `guard-run doctor` says what to do for any other place.
HOOKSDIR ?= $(DATADIR)/containers/oci/hooks.d

PROGRAMS = guard-run guard-selftest guard-hook guard-runtime
# guard-runtime becomes the runtime that is named after it; without a name, the first one that it finds.
RUNTIMES = runc crun youki
MANUALS = $(notdir $(basename $(wildcard docs/*.1.md docs/*.5.md docs/*.8.md)))

# What install makes; uninstall removes just this.
INSTALLED = $(PROGRAMS:%=$(BINDIR)/%) $(RUNTIMES:%=$(BINDIR)/guard-runtime-%) \
	$(foreach page,$(MANUALS),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page)) \
	$(MANDIR)/man1/guard-selftest.1 $(RUNTIMES:%=$(MANDIR)/man8/guard-runtime-%.8) \
	$(BASHDIR)/guard-run $(ZSHDIR)/_guard-run $(FISHDIR)/guard-run.fish \
	$(HOOKSDIR)/guard-run.json

# Policies that are known by their names. One that denies nothing of use is for measuring.
POLICIES = $(filter-out %.resolved.json examples/everything-allowed.json,$(wildcard examples/*.json))

# The folders that are guard-run's own, as a whole.
OWNED = $(DATADIR)/guard-run $(DOCDIR)

# Where the programs are that were built.
BUILT ?= bin
# A guard-run that this machine can execute: it prints its completions. Another one than is installed when that is for another machine.
NATIVE ?= $(BUILT)/guard-run

# Under sudo, what its user has built is installed: root may have no tool chain, and must not own what the build leaves.
install: $(if $(SUDO_USER),$(BUILT)/guard-run,build)
	install -d $(addprefix $(DESTDIR),$(sort $(dir $(INSTALLED))) $(DATADIR)/guard-run/schema $(DATADIR)/guard-run/policies $(DOCDIR)/examples)
	install -m 755 $(PROGRAMS:%=$(BUILT)/%) $(DESTDIR)$(BINDIR)
	for runtime in $(RUNTIMES); do \
		ln -sf guard-runtime $(DESTDIR)$(BINDIR)/guard-runtime-$$runtime && \
		ln -sf guard-runtime.8 $(DESTDIR)$(MANDIR)/man8/guard-runtime-$$runtime.8 || exit 1; \
	done
	for page in $(MANUALS); do \
		file=$(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; \
		tools/man.sh docs/$$page.md $(VERSION) >"$$file" && chmod 644 "$$file" || exit 1; \
	done
	ln -sf guard-run.1 $(DESTDIR)$(MANDIR)/man1/guard-selftest.1
	umask 022 && \
	$(NATIVE) completion bash >$(DESTDIR)$(BASHDIR)/guard-run && \
	$(NATIVE) completion zsh >$(DESTDIR)$(ZSHDIR)/_guard-run && \
	$(NATIVE) completion fish >$(DESTDIR)$(FISHDIR)/guard-run.fish && \
	sed 's|/usr/bin/|$(BINDIR)/|' hooks/guard-run.json >$(DESTDIR)$(HOOKSDIR)/guard-run.json
	install -m 644 schema/*.json $(DESTDIR)$(DATADIR)/guard-run/schema
	install -m 755 packaging/ci.sh $(DESTDIR)$(DATADIR)/guard-run
	install -m 644 $(POLICIES) $(DESTDIR)$(DATADIR)/guard-run/policies
	install -m 644 README.md SECURITY.md CHANGELOG.md LICENSE-* $(DESTDIR)$(DOCDIR)
	find docs -type f -exec install -D -m 644 {} $(abspath $(DESTDIR)/)$(DOCDIR)/{} \;
	cd examples && find . -type f ! -name '*.expected' ! -name '*.resolved.json' -exec install -D -m 644 {} $(abspath $(DESTDIR)/)$(DOCDIR)/examples/{} \;

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	rm -rf $(addprefix $(DESTDIR),$(OWNED))

bin/guard-run:
	@echo "make: nothing is built yet: run make, without sudo, first" >&2; exit 1

# A Debian package of what install makes, in the folder DEB, for the machine that rustc calls DEB_TARGET.
STAGE = target/debian/root
DEB ?= target/debian
DEB_TARGET ?= $(HOST)
deb: build
	tools/setup.sh deb
	rm -rf $(STAGE)
	$(MAKE) --old-file=build install DESTDIR=$(STAGE) PREFIX=/usr ZSHDIR=/usr/share/zsh/vendor-completions BUILT=$(BUILT)
	packaging/debian.sh $(STAGE) $(VERSION)
	$(CARGO) deb --locked --no-build --no-strip --package guard-run --target $(DEB_TARGET) --output $(DEB)/
	lintian --fail-on error,warning $(DEB)/guard-run_$(VERSION)-1_*.deb

# What a release consists of, in target/dist: packages of the release build, what it is made of (CycloneDX), and sums.
dist: build materials
	tools/setup.sh deb dist
	rm -rf target/dist
	packaging/dist.sh $(VERSION) $(HOST) $(RELEASE)
	for list in target/materials/*.json; do [ ! -f "$$list" ] || cp "$$list" target/dist || exit 1; done
	rm -r target/dist/work
	cd target/dist && sha256sum -- * >SHA256SUMS

# Which crates, in which versions, are in the programs.
materials:
	tools/setup.sh materials
	rm -rf target/materials
	packaging/materials.sh $(VERSION) $(HOST)
