# Common tasks, by `just` (https://just.systems): `just` lists them. Each is one command; nothing needs just.

set positional-arguments

# list the recipes
[private]
default:
    @"{{ just_executable() }}" --list --unsorted

# everything that CI does
ci:
    .ci/run

# the CUDA build, on the software device
cuda *args:
    .ci/cuda "$@"

# all tests
test *args:
    cargo test --workspace "$@"

# formatting and lints
lint:
    cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings

# format the sources
fmt:
    cargo fmt --all

# accept what snapshot tests print now: read the differences first
snapshots:
    INSTA_UPDATE=always cargo test --workspace

# regenerate docs/nodes.md and docs/graph.schema.json
reference:
    cargo run --quiet -- nodes --markdown > docs/nodes.md && cargo run --quiet -- schema > docs/graph.schema.json

# the libraries' documentation
doc:
    cargo doc --workspace --no-deps --open

# docs/ as a book in book/, with its links checked
book:
    tools/book/build

# spelling
typos *args:
    "$(.ci/tools)"/typos "$@"

# licences, sources, duplicates and advisories of the dependencies
deny *args='check':
    PATH="$(.ci/tools):$PATH" cargo deny "$@"

# cycles between files, long files, long functions
structure:
    python3 tools/structure/cycles.py

# benchmarks: of a package, by name, such as `just bench -p lsregen-engine`
bench *args:
    cargo bench "$@"

# speed of two commits beside each other: `just compare main`
compare *args:
    tools/bench/compare "$@"

# plants bugs and reports those that tests miss (tools/mutants): `just mutants plant`, then `just mutants run --only bugs`
mutants *args:
    cargo run --quiet --manifest-path tools/mutants/Cargo.toml -- "$@"

# checks graphs at random until stopped: `just fuzz 1000000`
fuzz *args:
    cargo run --release --example fuzz -- "$@"
