#!/usr/bin/env bash
# One static, stripped binary for a board, in dist/: of one compiler the same bytes wherever and whenever it is built.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/build.sh [--cross] [--dry-run] BOARD

Builds dist/pandaproxy-BOARD for a folder of boards/ and checks the binary: the processor it is
for, that it is static and stripped, and its size.

The standard library for the board's target comes from `rustup target add` where that works. Where it
does not, it is built from Debian's source of it (rustc-web, cargo-web, rust-web-src). C compiler and
linker are zig's, from the Python packages ziglang and cargo-zigbuild, kept in target/.
Missing packages are installed if you are root, else listed.

  --cross     build with `cross` and its containers instead
  --dry-run   print the commands and run nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

# The largest binary of a board, in bytes: it shares a small board's memory with everything else. On x86-64 the libraries
# have code for several generations of processors.
readonly LARGEST=$((3 * 1024 * 1024)) LARGEST_X86_64=$((4 * 1024 * 1024))

cross='' dry='' board=''
for option in "$@"; do
    case $option in
    --help) usage; exit 0 ;;
    --cross) cross=1 ;;
    --dry-run) dry=1 ;;
    -*) misuse "the option $option is unknown" ;;
    *) [ -z "$board" ] || misuse "'$option' is one word too many"
       board=$option ;;
    esac
done
[ -n "$board" ] || misuse "the board is missing"

cd "$(dirname "$0")/.."
root=$PWD
read_board "$board"
binary=dist/pandaproxy-$board

need file file
need readelf binutils

# RUSTFLAGS is split at spaces.
[[ $root${CARGO_HOME:-$HOME} != *[[:space:]]* ]] || die "a space in $root or ${CARGO_HOME:-$HOME}: build it elsewhere"

# Nothing in the binary tells where it was built.
flags="-Ctarget-feature=+crt-static --remap-path-prefix=$root=/pandaproxy"
flags+=" --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo $RUSTFLAGS_CPU"
build=(build --locked --release --bin pandaproxy --target "$TARGET")
out=target/boards
export BOARD=$board CARGO_TARGET_DIR=$root/$out
unset RUSTC CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS

# Whether rustup has the standard library for the target, or can get it.
rustup_has_it() {
    command -v rustup >/dev/null || return 1
    rustup target list --installed | grep -qx "$TARGET" && return
    [ -z "$dry" ] && timeout 300 rustup target add "$TARGET" >/dev/null 2>&1
}

zig() {
    # boards/zig.txt has the versions, and a hash for each file.
    local venv
    venv=$root/target/zig-$(cksum <boards/zig.txt | cut -d' ' -f1)
    if [ ! -e "$venv/installed" ]; then
        need python3 python3 python3-venv
        python3 -c 'import ensurepip' 2>/dev/null || need /usr/share/doc/python3-venv python3-venv
        run python3 -m venv --clear "$venv"
        run "$venv/bin/pip" install --quiet --require-hashes --no-deps -r boards/zig.txt
        run touch "$venv/installed"
    fi
    PATH=$venv/bin:$PATH
    build[0]=zigbuild
}

if [ -n "$cross" ]; then
    # The folder is another one inside the container.
    command -v cross >/dev/null || die "cross is missing; \`cargo install cross\`, and podman or docker"
    flags+=" --remap-path-prefix=/project=/pandaproxy"
    export CARGO_TARGET_DIR=$out
    cargo=(cross)
elif rustup_has_it; then
    zig
    cargo=(cargo)
else
    printf 'rustup has no %s here: building the standard library from Debian'\''s source\n' "$TARGET"
    source=/usr/lib/rustlib/src/rust
    need $source/library/std/Cargo.toml rustc-web cargo-web rust-web-src
    zig
    # The compiler is a release; only building the standard library needs what it calls unstable.
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    flags+=" -Clink-self-contained=no --remap-path-prefix=$source=/rustc"
    build+=(-Z "build-std=std,panic_abort")
    cargo=(/usr/bin/cargo)
fi
export RUSTFLAGS=$flags

run "${cargo[@]}" "${build[@]}"
[ -z "$dry" ] || exit 0

mkdir -p dist
cp "$out/$TARGET/release/pandaproxy" "$binary.new"

# Checks the binary: a toolchain that emits ARMv7 code for ARMv6 has been seen.
check() {
    local what=$1 found=$2 wanted=$3
    grep -qE -- "$wanted" <<<"$found" || die "$binary.new: $what is not $wanted but: $found"
}
check "its kind" "$(file -b "$binary.new")" 'static(ally|-pie) linked'
check "its kind" "$(file -b "$binary.new")" ', stripped'
machine=$(readelf -h "$binary.new" | sed -n 's/ *Machine: *//p')
arch=$(readelf -A "$binary.new")
case $TARGET in
arm-*)
    check processor "$arch" 'Tag_CPU_arch: v6($|[^-0-9])'
    check "floating point" "$arch" 'Tag_FP_arch: VFPv2'
    if grep -q Advanced_SIMD <<<"$arch"; then die "$binary.new: NEON in an ARMv6 program"; fi
    ;;
armv7-*) check processor "$arch" 'Tag_CPU_arch: v7' ;;
aarch64-*) check processor "$machine" AArch64 ;;
x86_64-*) check processor "$machine" X86-64 ;;
*) die "no check for the target $TARGET" ;;
esac
size=$(stat -c %s "$binary.new") largest=$LARGEST
case $TARGET in x86_64-*) largest=$LARGEST_X86_64 ;; esac
[ "$size" -lt "$largest" ] || die "$binary.new: $size bytes, more than $largest"

mv "$binary.new" "$binary"
printf '%s: %d bytes, %s, sha256 %s\n' "$binary" "$size" "$TARGET" \
    "$(sha256sum "$binary" | cut -d' ' -f1)"
