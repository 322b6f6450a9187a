#!/bin/sh
# Puts limitador's source into target/limitador, for Cargo.toml's patch: as it comes it does not build with its Redis storage
# alone, since what all of its storages use is there with another one's feature only.
set -eu
cd "$(dirname "$0")"
version=0.14.0
place=target/limitador
[ ! -e "$place/Cargo.toml" ] || exit 0
mkdir -p target/fetch/src
printf '[package]\nname = "fetch"\nedition = "2021"\n[workspace]\n[dependencies]\nlimitador = "=%s"\n' "$version" >target/fetch/Cargo.toml
: >target/fetch/src/lib.rs
cargo fetch --quiet --manifest-path target/fetch/Cargo.toml
cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/limitador-$version "$place"
sed -i '/^ *#\[cfg(feature = "disk_storage")\]$/d' "$place/src/storage/keys.rs" "$place/src/counter.rs"
