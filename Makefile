# The commands of tollgate's development. `make` alone lists them.

# Rust from rustup is found also where no login shell has put it on the path.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# rust-toolchain.toml names a version. Where rustup neither has it nor can get it, the stable one does, if it is new enough.
ifeq ($(shell PATH="$(PATH)" cargo --version 2>/dev/null),)
export RUSTUP_TOOLCHAIN ?= stable
endif
# Cargo spreads its own jobs; make's job server, which it cannot reach, would only make it warn.
unexport MAKEFLAGS MFLAGS

.PHONY: help setup setup-tests run fleet test test-fleet test-ui check bench bench-quick bench-check bench-fleet pgo schema openapi man fuzz-api deb test-docker test-package test-upgrade clean fuzz
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

setup: ## check for Rust, cmake and a C compiler; install what is missing on Debian and Ubuntu
	@sh packaging/setup.sh

setup-tests: ## the same, and the servers and clients that tests put before and behind tollgate
	@sh packaging/setup.sh tests

# As `make test` builds it, which then takes what is there. Link-time optimisation alone takes longer than all of this.
run: setup ## build and run the demo: the proxy on 127.0.0.1:8080 over three sample backends
	@cargo run --locked -- demo

fleet: setup ## build, and run three nodes with one budget for each client over a Redis or Valkey on loopback
	@cargo build --locked
	@sh packaging/fleet.sh $${CARGO_TARGET_DIR:-target}/debug/tollgate

# The second command sends every request by Pingora's loop (`direct: false`), which has to look the same from outside.
test: setup-tests ## run all tests, those on the whole binary both ways of a request
	cargo test --locked --no-fail-fast
	TOLLGATE_TEST_DIRECT=false cargo test --locked --no-fail-fast --test it
	@sh packaging/setup.sh skipped

# The tests' own binary is not optimised, the nodes are; one test at a time, as each is to have the machine for itself.
test-fleet: setup-tests ## run the fleet's tests in their long forms, and print the tables of docs/fleet.md; some half an hour once built
	cargo build --release --locked
	@log=$${CARGO_TARGET_DIR:-target}/tmp/test-fleet.log; export TOLLGATE_TEST_FLEET=long; \
	(TOLLGATE_TEST_BINARY=$$(realpath $${CARGO_TARGET_DIR:-target})/release/tollgate \
		cargo test --locked --no-fail-fast --test it fleet_ -- --nocapture --test-threads 1; code=$$?; \
	cargo test --locked --lib fleet::simulation::scale -- --nocapture && exit $$code) \
		>$$log 2>&1; \
	code=$$?; grep -o '| .* |$$' $$log; grep '^test result' $$log; \
	[ $$code -eq 0 ] || { grep -A 2 panicked $$log; echo "all of it is in $$log"; exit $$code; }
	@sh packaging/setup.sh skipped

test-ui: setup-tests ## run the test of the page in a browser
	cargo test --locked --test it page::
	@sh packaging/setup.sh skipped

check: setup ## formatting, lints, docs, floors, dependencies, every configuration
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --bench peers --bench scale --bench parts --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --document-private-items
	cargo test --locked --test floors
	@if command -v cargo-deny >/dev/null; then \
		echo "cargo deny check bans licenses sources"; \
		cargo deny --locked --log-level error check bans licenses sources; \
	else \
		echo "cargo deny: skipped, it is not installed (cargo install cargo-deny --locked)"; \
	fi
	@for file in conf/*.yaml packaging/*.yaml; do \
		echo "tollgate check -c $$file"; \
		cargo run --quiet --locked -- check -c "$$file" || exit; \
	done

bench: setup ## run the benchmarks, also beside nginx and HAProxy, and write that into docs/benchmarks.md; some forty minutes
	cargo bench --locked
	@sh benches/peers/setup.sh
	cargo bench --locked --bench peers -- --write

bench-quick: setup ## run the benchmark beside nginx and HAProxy with short rounds; some five minutes once built
	@sh benches/peers/setup.sh
	cargo bench --locked --bench peers -- --quick

bench-check: setup ## fail if a cost beside nginx's is over 10 % worse than in benches/peers/figures.json; some seven minutes
	@sh benches/peers/setup.sh
	cargo bench --locked --bench peers -- --check

bench-fleet: setup-tests ## what a fleet costs, and beside other ways to count over many nodes: the tables of docs/fleet.md; half an hour
	@sh benches/peers/setup.sh
	cargo build --release --locked
	@benches/fleet-cost.sh
	@sh benches/contenders/setup.sh
	cargo run --release --manifest-path benches/contenders/Cargo.toml

pgo: setup ## build target/pgo/tollgate by a profile of our own load, and say what that gains; needs h2load and llvm-profdata
	@sh packaging/pgo.sh

schema: setup ## write conf/tollgate.schema.json anew from the code
	cargo run --quiet --locked -- schema >conf/tollgate.schema.json.new || { rm conf/tollgate.schema.json.new; exit 1; }
	mv conf/tollgate.schema.json.new conf/tollgate.schema.json

openapi: setup ## write docs/openapi.json anew from the code
	UPDATE=1 cargo test --quiet --locked --lib admin::openapi

man: setup ## write packaging/man/tollgate.1 anew from the code and packaging/man/tollgate.1.in
	UPDATE=1 cargo test --quiet --locked --lib cli::manual

fuzz: setup ## look for bytes that break a property of the parsers, a minute for each, by cargo-fuzz; the first build takes minutes
	@sh packaging/fuzz.sh 60

fuzz-api: setup ## send the admin API what its OpenAPI document allows and what it does not, for two minutes
	cargo build --locked
	@sh packaging/fuzz-api.sh target/debug/tollgate 120

deb: setup ## build the Debian package; needs cargo-deb (cargo install cargo-deb --locked)
	@command -v cargo-deb >/dev/null || { echo "make deb: cargo-deb is missing: cargo install cargo-deb --locked" >&2; exit 1; }
	cargo deb --locked

test-docker: ## build the image, run docker-compose.yml and what docs/operations.md says of it; needs a Docker engine
	@sh packaging/test-docker.sh

test-package: setup ## check unit, scripts and manual page; as root also install the package and run it under systemd
	@sh packaging/test-package.sh

test-upgrade: setup ## upgrade from the commit before the last rebuilding, and roll back to it, under load; builds both, some minutes
	@sh packaging/test-upgrade.sh

clean: ## remove what was built; data/ stays
	cargo clean
