#!/bin/sh
# Looks for bytes that break a property of the parsers, with cargo-fuzz and libFuzzer.
#
#   packaging/fuzz.sh [SECONDS [TARGET...]]    each target for so long, a minute unless said; fails at the first find
#   packaging/fuzz.sh keep [TARGET...]         takes what was found to reach new code into fuzz/corpus/, and nothing else
#
# Any Rust will do: the crate has no unsafe code of its own, so no sanitizer is asked for, and what does without one needs no
# nightly. New inputs go below fuzz/target/, so that a run changes nothing in the repository. `make test` tries the
# inputs of fuzz/corpus/ again without any of this.
set -eu
cd "$(dirname "$0")/.."

say() { echo "fuzz: $*" >&2; }

what=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- head introduction chunked answer http2_backend lines configuration

command -v cargo-fuzz >/dev/null || {
    say "installing cargo-fuzz"
    cargo install cargo-fuzz --locked || { say "cargo-fuzz is missing: cargo install cargo-fuzz --locked"; exit 1; }
}

for target; do
    mkdir -p "fuzz/target/found/$target"
    if [ "$what" = keep ]; then
        say "$target: what reaches new code"
        cargo fuzz run --fuzz-dir fuzz --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/target/found/$target" -- \
            -merge=1 -max_len=4096 -verbosity=0
    else
        say "$target: $what s"
        cargo fuzz run --fuzz-dir fuzz --sanitizer none "$target" "fuzz/target/found/$target" "fuzz/corpus/$target" -- \
            -max_total_time="$what" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1
    fi
done
