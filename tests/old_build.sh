#!/bin/sh
# Builds the release before this one (0.1.0, data format 1) from the history of this repository into
# target/old/pinfold, for tests/rolling_upgrade.rs. Dependencies are shared with the ordinary build; only pinfold
# itself is compiled. Does nothing when it is there already; says so and succeeds when the clone is too shallow.
set -eu
commit=cc218c36b142652f6277879725bd4fd641856f0d
cd "$(dirname "$0")/.."
root=$(pwd)
target=${CARGO_TARGET_DIR:-$root/target}
old=$target/old
if [ -x "$old/pinfold" ] && [ "$(cat "$old/commit" 2>/dev/null)" = "$commit" ]; then
    echo "$old/pinfold"
    exit 0
fi
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    echo "note: commit $commit is not in this clone, so there is no older build to upgrade from (git fetch --unshallow)" >&2
    exit 0
fi
tree=$old/tree
rm -rf "$tree"
mkdir -p "$tree"
git archive "$commit" | tar -x -C "$tree"
# Its own place for the executable, the common one for what the dependencies were compiled to.
(cd "$tree" && CARGO_TARGET_DIR=$target cargo build --quiet --locked --bin pinfold)
mv "$target/debug/pinfold" "$old/pinfold"
rm -rf "$tree"
echo "$commit" >"$old/commit"
echo "$old/pinfold"
