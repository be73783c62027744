# What people type. Each target does its own set-up on a fresh Debian machine with Rust.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help demo test test-otlp test-web test-all-postgres pictures interop retries fuzz audit counts counts-accept test-pg-upgrade lint schema released bench bench-peers bench-hostile faults soak setup

help:
	@echo "make demo     a whole system on a throwaway PostgreSQL, narrated"
	@echo "make test     the tests, against a PostgreSQL they start themselves"
	@echo "make test-web the console in a browser, the API against its description, metrics and alerts"
	@echo "make test-otlp the export of spans (feature otlp)"
	@echo "make interop  every signature profile and envelope against verifiers and receivers of others"
	@echo "make retries  every retry policy, followed attempt by attempt"
	@echo "make fuzz     random inputs for ten minutes (FUZZ_SECONDS), against oracles, and SQL against Rust"
	@echo "make faults   what is promised when things die: a model, single faults, 200 runs with faults drawn from seeds (ARGS='--runs 20'), and a report"
	@echo "make soak     an hour of load and faults: does anything grow?"
	@echo "make test-all-postgres  the tests on PostgreSQL 14 to 18 (VERSIONS='14 18')"
	@echo "make test-pg-upgrade  PostgreSQL's own upgrade, with Debian's next server"
	@echo "make released what the tests of upgrades start from (VERSION=0.1.0 at a release)"
	@echo "make audit    dependencies: licences, sources, duplicates, versions taken back, advisories where reachable"
	@echo "make counts   instructions of the pure parts against benches/instructions.tsv (valgrind)"
	@echo "make counts-accept  write that table and tests/costs.tsv (statements, buffers and WAL a delivery) anew"
	@echo "make lint     rustfmt, clippy, and a fresh database: sql/schema.sql, sql/granted.txt, what runs with its owner's rights"
	@echo "make schema   write sql/schema.sql and sql/granted.txt anew, after a change below sql/"
	@echo "make bench    throughput, latency, and what a producer pays (release build; ARGS='--quick' or what outboxd bench --help says)"
	@echo "make bench-peers  what the machine could carry, and job queues of others beside outboxd (release build)"
	@echo "make bench-hostile  what healthy subscriptions feel beside hostile receivers (release build)"

# PostgreSQL's server programs: installed where they are missing. OUTBOXD_PG_BIN names others.
setup:
	@bash tests/setup.sh

demo: setup
	@cargo build --quiet
	@target/debug/outboxd demo $(ARGS)

# Fetches the newest PostgreSQL beside the installed one, if it can be had: a test runs on both.
test: setup
	@bash tests/postgres/setup.sh 18 client || echo "not tested on PostgreSQL 18"
	cargo test --no-fail-fast $(ARGS)

# Everything on each PostgreSQL of tests/postgres/versions.tsv, or on those of VERSIONS; ARGS go to the tests.
test-all-postgres: setup
	@VERSIONS="$(VERSIONS)" bash tests/postgres/run.sh $(ARGS)

# The export of spans, which is behind a feature.
test-otlp: setup
	cargo test --features otlp --test it traces::

# PostgreSQL's own upgrade. Debian's next server is fetched below target/newer-postgres where it is missing.
test-pg-upgrade: setup
	newer=$$(bash tests/postgres/newer.sh); OUTBOXD_PG_NEWER=$$newer cargo test --quiet --test it -- --ignored pg_upgrade:: --nocapture

# Installs Chromium, Prometheus' promtool, Node and Python packages where they are missing, below target/web.
test-web: setup
	bash tests/web/setup.sh
	cargo build --quiet
	cargo test --quiet --test web -- $(ARGS)

# The pictures in docs/, taken anew.
pictures: setup
	bash tests/web/setup.sh
	cargo build --quiet
	OUTBOXD_PICTURES=$(CURDIR)/docs/pictures cargo test --quiet --test web -- console incident

# Installs Node, Python, PHP, Go and Ruby packages where they are missing, below target/interop.
interop: setup
	bash tests/interop/setup.sh
	cargo build --quiet --example receiver
	cargo test --quiet --test interop

retries: setup
	@cargo test --quiet --test it retry_schedule::every_policy -- --nocapture

# The properties that make test runs with 256 inputs each (PROPTEST_CASES).
fuzz: setup
	bash tests/fuzz.sh

# Installs cargo-deny below target/tools where it is missing. OUTBOXD_AUDIT_REQUIRE=1: unreachable is a failure.
audit:
	bash tests/audit.sh

# What is counted is built as benches/instructions/profile.toml says, and always in one piece.
INSTRUCTIONS := CARGO_INCREMENTAL=0 cargo bench --quiet --profile dev --config benches/instructions/profile.toml --bench instructions

counts:
	bash tests/setup.sh valgrind
	$(INSTRUCTIONS)

# Look at what it changes before you commit it.
counts-accept:
	bash tests/setup.sh valgrind
	OUTBOXD_WRITE_COUNTS=1 $(INSTRUCTIONS)
	OUTBOXD_WRITE_COUNTS=1 cargo test --quiet --test it costs::

lint: setup
	cargo fmt --check
	cargo clippy --all-targets --test '*' -- -D warnings
	cargo test --quiet --test it -- schema_dump rights::

schema: setup
	OUTBOXD_WRITE_SCHEMA=1 cargo test --quiet --test it -- schema_dump rights::granted

# What the tests of upgrades start from; VERSION=0.1.0 at a release, see docs/operations.md.
released: setup
	OUTBOXD_WRITE_RELEASED=$(or $(VERSION),unreleased) cargo test --quiet --test it -- upgrade::released_files

# Installs real payloads where they are missing, below target/bench.
bench: setup
	bash benches/setup.sh
	cargo build --release
	target/release/outboxd bench $(ARGS)

# Installs job queues of others where they are missing, below target/peers.
bench-peers: setup
	bash benches/peers/setup.sh
	cargo build --release
	target/release/outboxd bench --scenario limits --peers $(ARGS)

# The model, each fault alone, and a thousand faults drawn from seeds: one report below target/faults, whatever fails.
faults: setup
	rm -f target/faults/model.txt target/faults/scenarios.txt
	cargo build --quiet
	failed=; cargo test --quiet --test model || failed=1; \
	cargo test --quiet --test it -- failover:: restores:: exhaustion:: crash_points:: upgrade:: pooler:: || failed=1; \
	cargo test --quiet --test faults -- --whole yes $(ARGS) || failed=1; \
	[ -z "$$failed" ]

bench-hostile: setup
	cargo test --quiet --release --test hostile -- $(ARGS)

# Steady load with relays killed, PostgreSQL crashed and segments dropped: does anything grow? See docs/soak.md.
soak: setup
	cargo test --quiet --release --test soak -- $(ARGS)
