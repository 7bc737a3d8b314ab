# Builds, tests and installs vigie: libvigie.so, libvigie.a, vigie.h, vigie.hpp, vigie.pc and the CMake config.
#
# Why not `cargo build` alone: cargo sets no soname, exports what the standard library exports, and drops LTO when several
# crate types are asked for at once. So cargo makes one static archive, `ld -r` and objcopy turn it into one object that
# shows nothing but the symbols of abi/exports.txt, and the C compiler links the shared library from that.

CARGO     ?= cargo
OBJCOPY   ?= objcopy
PKGCONFIG ?= pkg-config
PREFIX    ?= /usr/local
# Relative to PREFIX, or absolute.
LIBDIR    ?= lib
INCLUDEDIR ?= include
# fat: what is installed. thin builds faster, for work on the library itself.
LTO       ?= fat
# 0: without TLS, and without what it needs: a library of half the size.
TLS       ?= 1
# 1: relative relocations in their short form, where the linker and this machine's glibc (2.36) know it: 90 KB less. 0: for an older glibc.
RELR      ?= 1
TEST_THREADS ?= 8

comma := ,
NAME    := vigie
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
URL     := $(shell sed -n 's/^repository = "\(.*\)"/\1/p' Cargo.toml | head -1)
MAJOR   := $(word 1,$(subst ., ,$(VERSION)))
MINOR   := $(word 2,$(subst ., ,$(VERSION)))
# Before 1.0 each minor version may change the ABI, and says so in its soname.
SOVER   := $(if $(filter 0,$(MAJOR)),0.$(MINOR),$(MAJOR))
SONAME  := lib$(NAME).so.$(SOVER)
SOFILE  := lib$(NAME).so.$(VERSION)
SYSLIBS := -lutil -lrt -lpthread -lm -ldl
SOURCES := $(shell find src -name '*.rs') Cargo.toml $(wildcard Cargo.lock build.rs)
RAW     := build/release/lib$(NAME).a

libdir     = $(if $(filter /%,$(LIBDIR)),$(LIBDIR),$(PREFIX)/$(LIBDIR))
docdir     = $(PREFIX)/share/doc/$(NAME)
mandir     = $(PREFIX)/share/man
# Installed beside the library, of which they are no part; DOCTOR=0 leaves them out.
PROGRAMS   = vigie-doctor vigie-migrate resp-gen
# What the header and the manual pages refer to; installed beside THIRD-PARTY.
PAGES      = CONFIGURATION.md ERRORS.md EVENTS.md STATISTICS.md TOPOLOGY.md \
  $(patsubst %,docs/%.md,doctor fork jobs logs migrate permissions pubsub scans scripts sharding tls tracing transactions)
COMMA      = ,
includedir = $(if $(filter /%,$(INCLUDEDIR)),$(INCLUDEDIR),$(PREFIX)/$(INCLUDEDIR))
# Texts for pkg-config: below ${prefix} wherever that is so, for packages that are moved.
pc_libdir     = $(patsubst $(PREFIX)/%,$${prefix}/%,$(libdir))
pc_includedir = $(patsubst $(PREFIX)/%,$${prefix}/%,$(includedir))
FILL = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(pc_libdir)|' -e 's|@INCLUDEDIR@|$(pc_includedir)|' \
  -e 's|@VERSION@|$(VERSION)|' -e 's|@MAJOR@|$(MAJOR)|' -e 's|@MINOR@|$(MINOR)|' -e 's|@SONAME@|$(SONAME)|' \
  $(if $(URL),-e 's|@URL@|$(URL)|',-e '/@URL@/d') -e 's|@SOFILE@|$(SOFILE)|' -e 's|@SYSLIBS@|$(SYSLIBS)|' -e 's|@SYSLIBNAMES@|$(subst -l,,$(SYSLIBS))|' \
  -e "s|@INCLUDE_FROM_LIB@|$$(realpath -m --relative-to='$(libdir)' '$(includedir)')|"
# Servers and interpreters that scripts/setup could not put into the system.
export PATH := $(CURDIR)/build/bin:$(PATH)

all: build/lib$(NAME).a build/lib$(NAME).so build/$(SONAME)

help:
	@echo 'make                build libvigie.so and libvigie.a into build/ (LTO=thin: faster to build; TLS=0: without TLS; RELR=0: for a glibc before 2.36)'
	@echo 'make install        install to PREFIX ($(PREFIX)); LIBDIR=, INCLUDEDIR= below it, DESTDIR= before it; DOCTOR=0: without the programs'
	@echo 'make uninstall      remove what install put there; give the same variables'
	@echo 'make demo           kill the primary of a real deployment while threads write, and show what happens'
	@echo 'make test           install what the tests need, then check, build and test everything'
	@echo 'make test-all       make test, then its long forms: the whole tests of the packages, 100,000 commands against the model of shards, 200 kills of vigie-migrate, and'
	@echo '                    vigie-migrate from each server of test-servers to each other one'
	@echo 'make packages         build the packages of the languages into build/packages: ONLY="cpp python"'
	@echo 'make test-packages    test what make packages has built: ONLY="cpp python"; VIGIE_QUICK=1: only the quick part'
	@echo 'make test-servers   the integration tests against Redis 6.2 and 8, Valkey 8 and 9: SERVERS=, FILTER=; WRITE=README.md: also the table'
	@echo 'make bench          the figures, next to other clients: BENCH_ARGS="--quick" and others'
	@echo 'make bench-idle       the processor time of clients that idle'
	@echo 'make bench-services   what many services cost on one handle, known and unknown ones'
	@echo 'make bench-vanish     what a host that vanishes costs a healthy service beside it (as root)'
	@echo 'make bench-pubsub     what a message costs its subscriber, next to hiredis'
	@echo 'make bench-shards     what several shards cost, next to the same work by hand'
	@echo 'make bench-migrate    how fast vigie-migrate copies, beside a loop of DUMP and RESTORE and beside redis-cli --pipe'
	@echo 'make size             how large the library is with TLS and without it; fails when it is too large'
	@echo 'make bench-tls        what TLS costs, next to hiredis with OpenSSL'
	@echo 'make fuzz             random inputs for each target, FUZZ_SECONDS=600 each'
	@echo 'make bench-languages  GET from Go, Node, Ruby and Python, next to their own clients'
	@echo 'make torture        the scenarios of failover over real servers: SCENARIO=n,n RUNS=k; without SCENARIO docs/torture.md is written, with it and WRITE=docs/torture.md its part there'
	@echo 'make msrv           build the library and run the demo with the oldest Rust that is supported, in a tree of Debian 13 (as root)'
	@echo 'make header         write include/vigie.h anew from the sources'
	@echo 'make clean          remove build/ and target/'

FEATURES := private-std$(if $(filter 0,$(TLS)),,$(comma)tls)
# Without TLS the library is for small systems: functions that are marked inline, the standard library's among them, are inlined where they are
# smaller. This takes 110 KB, and adds 5 % to the instructions of a GET; the functions that a call passes are inlined in any case.
SMALL := $(if $(filter 0,$(TLS)),-Cllvm-args=-inlinehint-threshold=100)
# Kept in a file so that another LTO= or TLS= builds anew.
build/lto: FORCE
	@mkdir -p build; echo '$(LTO) $(FEATURES)' | cmp -s - $@ || echo '$(LTO) $(FEATURES)' > $@
# fetch comes first because the paths to leave out of the library exist only after it.
$(RAW): $(SOURCES) build/lto
	$(CARGO) fetch --quiet
	CARGO_PROFILE_RELEASE_LTO=$(LTO) CARGO_ENCODED_RUSTFLAGS="$$(scripts/rustc-flags $(SMALL))" \
	  $(CARGO) rustc --release --lib --crate-type staticlib --no-default-features --features $(FEATURES) --target-dir build $(CARGOFLAGS)
	@touch $@
# Column 2 of the list is the version that introduced the symbol.
build/exports.txt: abi/exports.txt
	@mkdir -p build
	awk '/^[^#]/ {print $$1}' $< > $@
build/$(NAME).map: build/exports.txt Makefile
	(echo 'VIGIE_$(SOVER) { global:'; sed 's/$$/;/' $<; echo 'local: *; };') > $@
# No --gc-sections here (weak symbols would become strong), and groups are resolved so that the archive links next to another
# Rust library in either order. The bitcode sections confuse the plugins of old binutils.
build/lib$(NAME).a: $(RAW) build/exports.txt scripts/quiet-std
	$(LD) -r --force-group-allocation $$(sed 's/^/-u /' build/exports.txt) -o build/all.o $(RAW)
	$(OBJCOPY) --keep-global-symbols=build/exports.txt --remove-section=.llvmbc --remove-section=.llvmcmd build/all.o
	OBJCOPY='$(OBJCOPY)' scripts/quiet-std build/all.o
	rm -f $@
	$(AR) rcs $@ build/all.o
build/link: FORCE
	@mkdir -p build; echo '$(RELR) $(LDFLAGS)' | cmp -s - $@ || echo '$(RELR) $(LDFLAGS)' > $@
# nodelete: library threads outlive dlclose, so the code must stay mapped.
build/$(SOFILE): build/lib$(NAME).a build/$(NAME).map build/link
	$(CC) -shared $(LDFLAGS) $$(scripts/relr '$(RELR)' $(CC) $(LDFLAGS)) -Wl,--as-needed -Wl,-soname,$(SONAME) -Wl,--version-script=build/$(NAME).map \
	  -Wl,--gc-sections -Wl,--no-undefined -Wl,-z,relro,-z,now,-z,nodelete \
	  -o $@ -Wl,--whole-archive $< -Wl,--no-whole-archive -lgcc_s $(SYSLIBS) -lc
# Programs and language bindings can run against build/ as it is.
build/$(SONAME) build/lib$(NAME).so: build/$(SOFILE)
	ln -sf $(SOFILE) $@

# In a directory of its own: as the crate that the program is made with, the library would be built anew over build/release.
build/vigie-doctor build/vigie-migrate build/resp-gen &: $(SOURCES) $(wildcard doctor/*.rs migrate/*.rs) build/lto
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
	  CARGO_ENCODED_RUSTFLAGS="$$(scripts/rustc-flags)" $(CARGO) build --release $(PROGRAMS:%=--bin %) --no-default-features \
	  --features programs$(if $(filter 0,$(TLS)),,$(COMMA)tls) --target-dir build/doctor $(CARGOFLAGS)
	for program in $(PROGRAMS); do $(OBJCOPY) --strip-debug build/doctor/release/$$program build/$$program || exit 1; done

# Debug information stays in build/; function names remain in what is installed, for a readable backtrace.
install: all $(if $(filter 0,$(DOCTOR)),,$(PROGRAMS:%=build/%))
	install -d '$(DESTDIR)$(libdir)/pkgconfig' '$(DESTDIR)$(libdir)/cmake/$(NAME)' '$(DESTDIR)$(includedir)'
	$(OBJCOPY) --strip-debug build/lib$(NAME).a build/install.tmp
	install -m 644 build/install.tmp '$(DESTDIR)$(libdir)/lib$(NAME).a'
	$(OBJCOPY) --strip-debug build/$(SOFILE) build/install.tmp
	install -m 755 build/install.tmp '$(DESTDIR)$(libdir)/$(SOFILE)'
	rm -f build/install.tmp
	ln -sf $(SOFILE) '$(DESTDIR)$(libdir)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(libdir)/lib$(NAME).so'
	install -m 644 include/vigie.h include/vigie.hpp '$(DESTDIR)$(includedir)/'
	install -d '$(DESTDIR)$(includedir)/$(NAME)'
	install -m 644 include/vigie/*.hpp '$(DESTDIR)$(includedir)/$(NAME)/'
	$(if $(filter 0,$(DOCTOR)),,install -d '$(DESTDIR)$(PREFIX)/bin')
	$(if $(filter 0,$(DOCTOR)),,install -m 755 $(PROGRAMS:%=build/%) '$(DESTDIR)$(PREFIX)/bin/')
	$(if $(filter 0,$(DOCTOR)),,install -d '$(DESTDIR)$(mandir)/man1')
	$(if $(filter 0,$(DOCTOR)),,install -m 644 $(PROGRAMS:%=packaging/%.1) '$(DESTDIR)$(mandir)/man1/')
	install -d '$(DESTDIR)$(docdir)'
	install -m 644 THIRD-PARTY $(PAGES) '$(DESTDIR)$(docdir)/'
	@$(FILL) packaging/vigie.pc.in > '$(DESTDIR)$(libdir)/pkgconfig/$(NAME).pc'
	@$(FILL) packaging/vigie-config.cmake.in > '$(DESTDIR)$(libdir)/cmake/$(NAME)/$(NAME)-config.cmake'
	@$(FILL) packaging/vigie-config-version.cmake.in > '$(DESTDIR)$(libdir)/cmake/$(NAME)/$(NAME)-config-version.cmake'

# LIBDIR and INCLUDEDIR themselves stay: they may have been there before.
uninstall:
	cd '$(DESTDIR)$(libdir)' && rm -f lib$(NAME).a $(SOFILE) $(SONAME) lib$(NAME).so pkgconfig/$(NAME).pc \
	  cmake/$(NAME)/$(NAME)-config.cmake cmake/$(NAME)/$(NAME)-config-version.cmake
	rm -f $(PROGRAMS:%='$(DESTDIR)$(PREFIX)/bin/%') $(PROGRAMS:%='$(DESTDIR)$(mandir)/man1/%.1')
	cd '$(DESTDIR)$(includedir)' && rm -f vigie.h vigie.hpp $(patsubst include/%,%,$(wildcard include/vigie/*.hpp))
	-rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(includedir)/$(NAME)'
	rm -f '$(DESTDIR)$(docdir)/THIRD-PARTY' $(patsubst %,'$(DESTDIR)$(docdir)/%',$(notdir $(PAGES)))
	-rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(docdir)'
	-cd '$(DESTDIR)$(libdir)' && rmdir --ignore-fail-on-non-empty cmake/$(NAME) cmake pkgconfig

header:
	$(CARGO) build --features header

demo:
	@scripts/setup demo
	@echo 'Building the library and installing it to build/demo-prefix ...'
	@$(MAKE) -s --no-print-directory install DOCTOR=0 PREFIX='$(CURDIR)/build/demo-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	@scripts/demo build/demo-prefix

test:
	scripts/setup test
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path benches/compare/Cargo.toml
	$(CARGO) clippy --all-targets --features programs -- -D warnings
	scripts/msrv check
	scripts/versions --check
	$(MAKE) all
	$(MAKE) packages
	@rm -f build/torture.txt build/test.status; touch build/torture.txt
	@{ TORTURE_LOG='$(CURDIR)/build/torture.txt' $(CARGO) test --features programs --no-fail-fast -- --test-threads=$(TEST_THREADS); \
	  echo $$? > build/test.status; } 2>&1 | tee build/test.log; \
	  sort -n build/torture.txt; echo "torture: $$(wc -l < build/torture.txt) scenarios, $$(grep -c ' skipped: ' build/torture.txt) skipped"; \
	  scripts/test-failures build/test.log
	VIGIE_QUICK=1 $(MAKE) test-packages
	@exit $$(cat build/test.status)

# What takes too long for each time. Each part is a target of its own: one that fails is run again without the others.
test-all: test
	$(MAKE) test-packages
	$(MAKE) test-model
	$(MAKE) test-kills
	$(MAKE) test-versions
test-model:
	SHARDS_STEPS=$(or $(STEPS),100000) $(CARGO) test --features programs --test it -- shards_model::
test-kills:
	VIGIE_KILLS=$(or $(KILLS),200) $(CARGO) test --features programs --test it -- migrate::rows_141_144
test-versions:
	scripts/setup test
	FILTER=migrate TEST_THREADS='$(TEST_THREADS)' scripts/test-servers

# The packages of the languages; packages/README.md says how. ONLY='python ruby': only these. VIGIE_QUICK=1: the quick part of their tests.
packages: all
	@$(MAKE) -s --no-print-directory install DOCTOR=0 PREFIX='$(CURDIR)/build/packages/prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	ONLY='$(ONLY)' scripts/packages build
test-packages:
	ONLY='$(ONLY)' scripts/packages test

# Each server takes about as long as `make test`: SERVERS='redis-6.2 valkey-8', FILTER='pubsub:: fence::', WRITE=README.md.
test-servers:
	scripts/setup test
	FILTER='$(FILTER)' WRITE='$(WRITE)' TEST_THREADS='$(TEST_THREADS)' scripts/test-servers $(SERVERS)

msrv:
	scripts/setup msrv
	scripts/msrv

bench:
	scripts/setup bench
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench build/bench-prefix $(BENCH_ARGS)

size:
	scripts/size

bench-idle:
	scripts/setup bench
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-idle build/bench-prefix

bench-services:
	scripts/setup bench
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-services build/bench-prefix

bench-pubsub:
	scripts/setup bench
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-pubsub build/bench-prefix

bench-shards:
	scripts/setup bench
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-shards build/bench-prefix

# KEYS=1000000 ROUNDS=5
bench-migrate: build/vigie-migrate
	scripts/setup bench
	scripts/bench-migrate $(or $(KEYS),1000000) $(or $(ROUNDS),5)

# Its own certificate and server; the same cipher for both clients.
bench-tls:
	scripts/setup bench
	$(MAKE) install PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-tls build/bench-prefix

# The compiler counts the edges that an input runs through; build scripts are not counted, because they are no part of the target.
FUZZ_SECONDS ?= 600
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
fuzz:
	CARGO_TARGET_DIR=target/fuzz CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
	  RUSTFLAGS='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters' \
	  FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --release --target $(HOST) --lib -- fuzz_ --nocapture --test-threads=1

bench-vanish:
	scripts/setup bench
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-vanish build/bench-prefix

# WRITE=docs/performance.md: the table is also put there.
bench-languages:
	scripts/setup bench-languages
	$(MAKE) packages ONLY='python ruby'
	$(MAKE) install DOCTOR=0 PREFIX='$(CURDIR)/build/bench-prefix' DESTDIR= LIBDIR=lib INCLUDEDIR=include
	scripts/bench-languages $(if $(WRITE),--write '$(WRITE)') build/bench-prefix

# The library's code is the same as in a release; only the long optimisation at the end is left out.
torture:
	scripts/setup test
	SCENARIO='$(SCENARIO)' RUNS='$(RUNS)' OUT='$(if $(WRITE),$(CURDIR)/$(WRITE),$(if $(SCENARIO),,$(CURDIR)/docs/torture.md))' \
	  CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 $(CARGO) bench --bench torture

clean:
	rm -rf build target tests/languages/node_modules benches/languages/node_modules

FORCE:
.PHONY: all help install uninstall header demo test test-all packages test-packages test-model test-kills test-versions test-servers msrv bench size bench-idle bench-services bench-pubsub bench-shards bench-migrate bench-tls bench-vanish bench-languages fuzz torture clean FORCE
.DELETE_ON_ERROR:
