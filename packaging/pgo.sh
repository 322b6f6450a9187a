#!/bin/sh
# Builds tollgate with profile-guided optimisation: target/pgo/tollgate.
#
#   packaging/pgo.sh [--no-compare]
#
# A build that counts what it runs answers the cases of benches/compare-builds.sh on loopback; llvm-profdata merges the counts;
# a second build lays out and inlines by them. At the end the result is measured against the plain release build, in alternating
# rounds, unless --no-compare says otherwise. Everything is built twice: it takes a little over two times a release build.
#
# llvm-profdata has to be able to read what this rustc's LLVM writes. It is taken from LLVM_PROFDATA, from the toolchain's
# component llvm-tools, which is installed when rustup can, or from an LLVM of the system of the same major version. Where none
# is found, or another tool is missing, this stops with exit code 3 before it builds anything.
set -eu
cd "$(dirname "$0")/.."

compare=yes
case ${1:-} in
    '') ;;
    --no-compare) compare= ;;
    *) echo "usage: packaging/pgo.sh [--no-compare]" >&2; exit 2 ;;
esac

say() { echo "pgo: $*" >&2; }

host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
component=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata

find_profdata() {
    if [ -n "${LLVM_PROFDATA:-}" ]; then
        profdata=$LLVM_PROFDATA
        return
    fi
    if [ ! -x "$component" ] && command -v rustup >/dev/null; then
        say "installing the component llvm-tools with rustup"
        rustup component add llvm-tools >&2 || say "rustup could not install it"
    fi
    for profdata in "$component" "llvm-profdata-$llvm" llvm-profdata; do
        major=$("$profdata" --version 2>/dev/null | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p')
        [ "$major" != "$llvm" ] || return 0
    done
    say "no llvm-profdata of LLVM $llvm, which is the one of $(rustc --version)"
    say "  with rustup:     rustup component add llvm-tools"
    say "  Debian, Ubuntu:  apt-get install llvm-$llvm, where the release has it"
    say "  elsewhere:       LLVM_PROFDATA=/path/to/llvm-profdata make pgo"
    exit 3
}

find_profdata
say "merging with $profdata"
for tool in bash h2load openssl taskset; do
    command -v "$tool" >/dev/null || {
        say "$tool is missing, which the training run needs (Debian: apt-get install bash nghttp2-client openssl util-linux)"
        exit 3
    }
done

# With a target named, RUSTFLAGS do not count for build scripts and macros, which would only be slower and write counts of
# their own.
out=target/pgo
build() { # flags of rustc
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --release --locked --bin tollgate --target "$host" --target-dir "$out"
}

mkdir -p "$out"
raw=$PWD/$out/raw
rm -rf "$raw" "$out"/*.profdata
mkdir "$raw"

say "the build that counts"
build -Cprofile-generate
cp "$out/$host/release/tollgate" "$out/tollgate-counting"

say "the training run"
LLVM_PROFILE_FILE="$raw/%p-%m.profraw" bash benches/compare-builds.sh --rounds 1 "$out/tollgate-counting" >&2
"$profdata" merge -o "$out/merged" "$raw"/*.profraw
rm -r "$raw"
# Cargo looks at flags, not at the file that they name: counts with a name of their own are never taken for older ones.
profile=$PWD/$out/$(cksum <"$out/merged" | cut -d' ' -f1).profdata
mv "$out/merged" "$profile"

say "the build that uses the counts"
build "-Cprofile-use=$profile"
cp "$out/$host/release/tollgate" "$out/tollgate"

if [ -n "$compare" ]; then
    say "the plain release build, to compare with"
    cargo build --release --locked --bin tollgate --target-dir target
    say "both side by side, which takes some minutes"
    bash benches/compare-builds.sh target/release/tollgate "$out/tollgate" >"$out/comparison"
    cat "$out/comparison"
    ratios=$(awk -v b="$out/tollgate" '$NF == b {printf "%s%s %s", comma, $1, $3; comma = ", "}' "$out/comparison")
    say "$out/tollgate is ready; its CPU time a request against target/release/tollgate: $ratios"
else
    say "$out/tollgate is ready"
fi
