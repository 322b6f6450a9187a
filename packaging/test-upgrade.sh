#!/bin/sh
# Builds the binary before this one and has the two take over from each other under load, and read each other's database.
# usage: test-upgrade.sh [COMMIT]
set -eu
commit=${1:-5e107eca593c3b92e768d5c38e8ff2f7dd6bca7c}
root=$(git rev-parse --show-toplevel 2>/dev/null) || root=
if [ -z "$root" ] || ! git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null; then
	echo "test-upgrade: 2 tests skipped: the history of this clone does not reach back to $commit (git fetch --unshallow)"
	exit 0
fi
cd "$root"
source=$(mktemp -d)
trap 'git worktree remove --force "$source/before" 2>/dev/null; rm -rf "$source"' EXIT
trap 'exit 1' INT TERM
git worktree add --quiet --detach "$source/before" "$commit"
echo "test-upgrade: building $(git log -1 --format='%h %s' "$commit")"
# Built beside what is built here, so that the next run has little to do.
(cd "$source/before" && cargo build --locked --target-dir "$root/target/before")
TOLLGATE_BEFORE=$root/target/before/debug/tollgate \
	cargo test --locked --test it upgrade_before -- --ignored
