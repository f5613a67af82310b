"""What is linked into the executable for one target: the crates, and the parts that are no crates.

The list of crates comes from `cargo tree`, which resolves features as the build does (`cargo metadata` also counts
what only tests ask for). Build scripts, procedural macros and tests are no part of the executable and are not listed.
Where their sources lie, and so their licence files, comes from `cargo metadata`; their checksums from Cargo.lock.

Nothing here reaches the network by itself: it is `cargo` that fetches what `cargo build` would fetch.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTICES = ROOT / "packaging" / "notices"
TARGETS = (
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-musleabihf",
    "arm-unknown-linux-musleabihf",
)


class Trouble(Exception):
    """One sentence for the person who started the script."""


@dataclasses.dataclass
class Part:
    """One crate, or one library in another language."""

    name: str
    version: str
    licence: str
    authors: list
    home: str
    files: list  # of pathlib.Path: its licence files
    sources: pathlib.Path = None
    kind: str = "crate"  # or "library"
    within: str = ""  # the crate that carries it
    checksum: str = ""
    about: str = ""
    needs: list = dataclasses.field(default_factory=list)  # names and versions of what it uses


def cargo(*words):
    """What cargo prints."""
    try:
        done = subprocess.run(
            [os.environ.get("CARGO", "cargo"), *words], cwd=ROOT, stdout=subprocess.PIPE, check=False
        )
    except FileNotFoundError as error:
        raise Trouble("cargo was not found; install a Rust toolchain or set CARGO") from error
    if done.returncode != 0:
        raise Trouble(f"`cargo {' '.join(words)}` failed; what it said stands above")
    return done.stdout.decode()


def version():
    """The version of the release."""
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


def _tree(target):
    """Name and version of all that is linked, and for each what it uses itself."""
    text = cargo(
        *"tree --locked --edges normal,no-proc-macro --prefix depth --no-dedupe".split(), "--target", target, "--format", " {p}"
    )
    uses, path = {}, []
    for line in text.splitlines():
        match = re.match(r"(\d+) (\S+) v(\S+)", line)
        if not match:
            raise Trouble(f"`cargo tree` printed a line that is not understood: {line}")
        depth, key = int(match[1]), (match[2], match[3])
        uses.setdefault(key, set())
        del path[depth:]
        if path:
            uses[path[-1]].add(key)
        path.append(key)
    return uses


def _licence_files(folder):
    """The licence files at the top of a crate's sources."""
    words = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
    found = [path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(words)]
    return sorted(found, key=lambda path: path.name)


def crates(target):
    """Every crate in the executable but pinfold itself, sorted, and what pinfold uses directly."""
    uses = _tree(target)
    known = {
        (package["name"], package["version"]): package
        for package in json.loads(cargo(*"metadata --locked --format-version 1 --filter-platform".split(), target))["packages"]
    }
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    sums = {(package["name"], package["version"]): package.get("checksum", "") for package in lock}
    parts, own = [], []
    for key in sorted(uses):
        package = known[key]
        if package["source"] is None:
            own = sorted(uses[key])
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        licence = (package["license"] or "").replace(" / ", " OR ").replace("/", " OR ")
        if not licence:
            raise Trouble(f"{key[0]} {key[1]} names no licence; say in packaging/lib/linked.py what its sources say")
        parts.append(
            Part(
                name=key[0],
                version=key[1],
                licence=licence,
                authors=[re.sub(r"\s*<[^>]*>", "", author) for author in package["authors"]],
                home=package["repository"] or package["homepage"] or "",
                files=_licence_files(folder),
                sources=folder,
                checksum=sums[key],
                about=" ".join((package["description"] or "").split()),
                needs=sorted(uses[key]),
            )
        )
    return parts, own


def _lmdb(parts):
    """LMDB's sources lie in the crate that wraps them."""
    for part in parts:
        if part.name == "lmdb-master-sys":
            folder = part.sources / "lmdb" / "libraries" / "liblmdb"
            header = (folder / "lmdb.h").read_text()
            numbers = [re.search(rf"MDB_VERSION_{level}\s+(\d+)", header) for level in ("MAJOR", "MINOR", "PATCH")]
            if not all(numbers):
                raise Trouble(f"{folder}/lmdb.h does not say its version as before; mend packaging/lib/linked.py")
            return Part(
                name="lmdb",
                version=".".join(number[1] for number in numbers),
                licence="OLDAP-2.8",
                authors=["Howard Chu, Symas Corp."],
                home="https://www.symas.com/mdb",
                files=[folder / "COPYRIGHT", folder / "LICENSE"],
                kind="library",
                within=f"{part.name} {part.version}",
                about="Lightning Memory-Mapped Database, in C",
            )
    raise Trouble("lmdb-master-sys is no longer linked; mend packaging/lib/linked.py")


def _boringssl(parts):
    """What ring has taken over from BoringSSL, in C and assembler; no version is given there."""
    for part in parts:
        if part.name == "ring":
            return Part(
                name="boringssl",
                version="",
                licence="Apache-2.0 AND ISC",
                authors=["The OpenSSL Project Authors", "Google Inc."],
                home="https://boringssl.googlesource.com/boringssl",
                files=[part.sources / "LICENSE-BoringSSL", part.sources / "LICENSE-other-bits"],
                kind="library",
                within=f"{part.name} {part.version}",
                about="The parts of BoringSSL that ring carries, in C and assembler",
            )
    raise Trouble("ring is no longer linked; mend packaging/lib/linked.py")


def libraries(target, parts):
    """What is linked and is no crate of Cargo.lock. Texts that no source on this machine has for sure are kept in
    packaging/notices."""
    rust = re.match(r"rustc (\S+)", subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, check=True).stdout.decode())
    found = [
        _lmdb(parts),
        _boringssl(parts),
        Part(
            name="rust-std",
            version=rust[1] if rust else "",
            licence="MIT OR Apache-2.0",
            authors=["The Rust Project Developers (see https://thanks.rust-lang.org)"],
            home="https://github.com/rust-lang/rust",
            files=[NOTICES / "rust-std.txt"],
            kind="library",
            about="The Rust standard library, with the crates that are part of it",
        ),
    ]
    if "musl" in target:
        found += [
            Part(
                name="musl",
                version="1.2.5",
                licence="MIT",
                authors=["Rich Felker, et al."],
                home="https://musl.libc.org",
                files=[NOTICES / "musl.txt"],
                kind="library",
                about="The C library, linked statically",
            ),
            Part(
                name="llvm-libunwind",
                version="",
                licence="Apache-2.0 WITH LLVM-exception",
                authors=["the LLVM Project's contributors"],
                home="https://llvm.org",
                files=[NOTICES / "llvm.txt"],
                kind="library",
                about="Unwinding of the stack",
            ),
            Part(
                name="zig-compiler-rt",
                version="",
                licence="MIT",
                authors=["Zig contributors"],
                home="https://ziglang.org",
                files=[NOTICES / "zig.txt"],
                kind="library",
                about="What the compiler calls where the processor has no instruction",
            ),
        ]
    return found


def linked(target):
    """All parts of the executable for a target: (crates and libraries, what pinfold uses directly)."""
    parts, own = crates(target)
    return parts + libraries(target, parts), own


def run(main):
    """Runs a script; what goes wrong is one sentence on standard error."""
    try:
        main()
    except Trouble as trouble:
        print(f"{pathlib.Path(sys.argv[0]).name}: {trouble}", file=sys.stderr)
        sys.exit(1)
