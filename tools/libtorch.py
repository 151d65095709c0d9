#!/usr/bin/env python3
"""Fetches the CPU part of libtorch, which the feature `train` links against.

    python3 tools/libtorch.py            # into third_party/libtorch/torch, where cargo looks for it

The wheels of torch hold everything that a C++ program needs, but they and what they depend on take 4.7 GB. A wheel
is a zip, so this script reads its directory by HTTP range request and fetches only the members that a CPU build
needs: 132 MB over the wire, 500 MB on disk. `pip` says where the wheels are, so its own settings (an index, a proxy,
a folder of wheels) are honoured.

What is fetched is pinned: each wheel by version and sha256, each member by the wheel's RECORD (whose sha256 is pinned
here) and by its CRC32. An interrupted fetch goes on where it stopped. The folder gets its name only when it is whole.

Needs Python 3.9 or newer and its pip, nothing else. A LIBTORCH that is already set is left alone and used.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import dataclasses
import errno
import fcntl
import hashlib
import http.client
import io
import json
import os
import platform
import shutil
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Callable, TypeVar

VERSION = "2.11.0"
INTO = Path(__file__).resolve().parent.parent / "third_party" / "libtorch" / "torch"

#: Bytes on disk when all is done, with room for the piece under way.
SPACE = 600_000_000
#: Bytes after which a run of neighbouring members is cut, so that a fault costs little.
PIECE = 8 << 20
#: Seconds without a byte after which a connection counts as dead, and how often it is opened anew.
TIMEOUT, ATTEMPTS = 60, 5
COPY = 1 << 18

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One pinned wheel and what is wanted of it: prefixes of member names, and what takes their place."""

    requirement: str
    sha256: str
    record_sha256: str
    wanted: dict[str, str]

    @property
    def record(self) -> str:
        """The member that lists the sha256 of all others."""
        name, version = self.requirement.split("==")
        return f"{name.replace('-', '_')}-{version}.dist-info/RECORD"

    def target(self, member: str) -> str | None:
        """Where a member goes, below the folder of libtorch; None if it is not wanted."""
        for prefix, place in self.wanted.items():
            if member.startswith(prefix) and not member.endswith("/"):
                return place + member[len(prefix) :]
        return None


WHEELS = [
    Wheel(
        requirement=f"torch=={VERSION}",
        sha256="0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
        record_sha256="64d76220aff1572ba2ee949e3c4e5633a21f7aa626c634ee1730609464777fc5",
        wanted={
            "torch/include/": "include/",
            "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
            "torch/lib/libc10.so": "lib/libc10.so",
            "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
            "torch/version.py": "version.py",
        },
    ),
    # libtorch_cpu.so of this wheel loads two libraries of CUDA even where there is no GPU.
    Wheel(
        requirement="nvidia-cuda-runtime==13.0.96",
        sha256="7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        record_sha256="34c7a65651597fd8a376b049b69bb26db399a9ea443a7a142ccd34f5a10f79c4",
        wanted={"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"},
    ),
    Wheel(
        requirement="nvidia-cuda-cupti==13.0.85",
        sha256="4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        record_sha256="f8ae8ddce85f8e319abac90e956bf45a572e31f4ff01af2d634f37aa3d78e3eb",
        wanted={"nvidia/cu13/lib/libcupti.so.13": "lib/libcupti.so.13"},
    ),
]
#: sha256 of files that must come out right whatever the wheels say of themselves.
PINNED_FILES = {
    "lib/libtorch_cpu.so": "2e1034d418c1c881c86f67fc357b8723efc3f22bdb266f06aace8e6ca9c170b3",
}

#: The wheels' platform, whatever Python runs this script.
WHEEL_TAGS = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
for _glibc in ("2_28", "2_25", "2_17"):
    WHEEL_TAGS += ["--platform", f"manylinux_{_glibc}_x86_64"]


class Failure(Exception):
    """Something that the user has to settle; the message says what."""


class Unreachable(Failure):
    """The wheel cannot be read in parts; fetching it whole may still work."""


class Corrupt(Exception):
    """A member's bytes are not the pinned ones."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=INTO, help="the folder to make (default: %(default)s)")
    into = parser.parse_args().into.absolute()
    try:
        ensure(into)
    except Failure as failure:
        say(f"error: {failure}")
        return 1
    except OSError as error:
        say(f"error: {explain(error, into)}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run it again and it goes on from here")
        return 130
    return 0


def ensure(into: Path) -> None:
    """Makes sure that there is a libtorch: the user's own, the one already here, or a fetched one."""
    if os.environ.get("LIBTORCH"):
        return accept_own(Path(os.environ["LIBTORCH"]))
    if os.environ.get("LIBTORCH_USE_PYTORCH"):
        return say("LIBTORCH_USE_PYTORCH is set: using the installed Python package torch, fetching nothing")
    if is_whole(into):
        return say(f"libtorch {VERSION} is in {into}")
    check_platform(platform.system(), platform.machine(), platform.libc_ver()[0])
    with only_one_at_a_time(into):
        if not is_whole(into):
            fetch(into)
    return say(f"libtorch {VERSION} is in {into}")


def accept_own(folder: Path) -> None:
    if not (folder / "include").is_dir() or not list((folder / "lib").glob("libtorch_cpu.*")):
        raise Failure(f"LIBTORCH is {folder}, which has no include/ or no lib/libtorch_cpu.*; correct it or unset it")
    say(f"LIBTORCH is set: using {folder}, fetching nothing")
    with contextlib.suppress(OSError):
        found = (folder / "build-version").read_text().strip()
        if found.split("+")[0] != VERSION:
            say(f"note: that is libtorch {found}, and tch wants {VERSION}; the build will probably refuse it")


def is_whole(into: Path) -> bool:
    with contextlib.suppress(OSError):
        return (into / "pins.json").read_text() == pins()
    return False


def pins() -> str:
    """What a finished folder was made from, to notice one made from other pins."""
    return json.dumps([dataclasses.asdict(wheel) for wheel in WHEELS], indent=1)


def check_platform(system: str, machine: str, libc: str) -> None:
    if (system, machine, libc) == ("Linux", "x86_64", "glibc"):
        return
    raise Failure(
        f"this script knows libtorch for Linux on x86_64 with glibc, and this is {system} on {machine}"
        f"{f' with {libc}' if libc else ''}.\n"
        f"Install torch for Python instead, whose wheel for this machine holds libtorch, and point LIBTORCH to it:\n"
        f"    python3 -m pip install torch=={VERSION}\n"
        f"    export LIBTORCH=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')\n"
        f"Without libtorch everything but training and evaluating works: cargo install --path ."
    )


@contextlib.contextmanager
def only_one_at_a_time(into: Path) -> Iterator[None]:
    into.parent.mkdir(parents=True, exist_ok=True)
    with (into.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- fetching ---------------------------------------------------------------------------------------------------------


def fetch(into: Path) -> None:
    """Fills `<into>.part` and renames it when every file in it has been checked."""
    part = into.with_name(into.name + ".part")
    pieces = part / ".pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    check_space(part, SPACE)
    addresses = locate(WHEELS)
    for wheel in WHEELS:
        fetch_wheel(wheel, addresses, part, pieces)
    check_pinned_files(part)
    finish(part, pieces)
    publish(part, into)


def fetch_wheel(wheel: Wheel, addresses: dict[str, str], part: Path, pieces: Path) -> None:
    try:
        if wheel.requirement not in addresses:
            raise Unreachable("pip does not say where it is")
        source: Source = Ranged(addresses[wheel.requirement], pieces / wheel.sha256[:16])
    except Unreachable as reason:
        say(f"{wheel.requirement} cannot be fetched in parts ({reason}); fetching it whole")
        source = Whole(fetch_whole(wheel, pieces))
    with source:
        take_members(wheel, source, part, pieces)


def take_members(wheel: Wheel, source: Source, part: Path, pieces: Path) -> None:
    entries = {info.filename: info for info in source.entries}
    if wheel.record not in entries:
        raise Failure(f"{wheel.requirement} has no member {wheel.record}; is it the right wheel?")
    record_path = pieces / f"{wheel.sha256[:16]}.record"
    take(source, [Member(entries[wheel.record], record_path, wheel.record_sha256)])
    hashes = read_record(record_path)
    wanted = [
        Member(info, part / place, hashes[name])
        for name, info in entries.items()
        if (place := wheel.target(name)) is not None
    ]
    if len(wanted) < len(wheel.wanted):
        raise Failure(f"{wheel.requirement} holds {len(wanted)} wanted members, expected at least {len(wheel.wanted)}")
    missing = [member for member in wanted if not member.is_there()]
    bytes_missing = sum(member.info.compress_size for member in missing)
    say(f"{wheel.requirement}: {len(missing)} of {len(wanted)} files to fetch, {bytes_missing / 1e6:.1f} MB")
    take(source, wanted)


@dataclasses.dataclass(frozen=True)
class Member:
    """A member of a wheel, the file that it becomes, and the sha256 (hex) that this file must have."""

    info: zipfile.ZipInfo
    path: Path
    sha256: str

    def is_there(self) -> bool:
        if not self.path.is_file() or self.path.stat().st_size != self.info.file_size:
            return False
        return sha256_of(self.path) == self.sha256


@dataclasses.dataclass(frozen=True)
class Piece:
    """A run of neighbouring members: bytes `start..end` of the wheel."""

    start: int
    end: int
    members: list[Member]


def take(source: Source, members: list[Member]) -> None:
    """Brings each member to its file. The pieces depend only on the members, so a later run finds those of this one."""
    for piece in cut(members, source.ends):
        missing = [member for member in piece.members if not member.is_there()]
        if missing:
            take_piece(source, piece, missing)
        source.drop(piece)


def cut(members: list[Member], ends: dict[int, int]) -> list[Piece]:
    pieces: list[Piece] = []
    for member in sorted(members, key=lambda member: member.info.header_offset):
        start = member.info.header_offset
        last = pieces[-1] if pieces else None
        if last and last.end == start and ends[start] - last.start <= PIECE:
            pieces[-1] = Piece(last.start, ends[start], [*last.members, member])
        else:
            pieces.append(Piece(start, ends[start], [member]))
    return pieces


def take_piece(source: Source, piece: Piece, members: list[Member]) -> None:
    """Fetches and unpacks a piece; a corrupt one is fetched once more."""
    try:
        unpack_piece(source, piece, members)
    except Corrupt as fault:
        say(f"{fault}; fetching it again")
        source.drop(piece)
        try:
            unpack_piece(source, piece, members)
        except Corrupt as again:
            source.drop(piece)
            raise Failure(f"{again}, twice; the server or the way to it damages the file") from again


def unpack_piece(source: Source, piece: Piece, members: list[Member]) -> None:
    with source.bring(piece) as (file, offset):
        for member in members:
            unpack(file, member.info.header_offset - offset, member)


def unpack(file: BinaryIO, at: int, member: Member) -> None:
    """Inflates the member whose local header is at byte `at`, checks it, and gives it its name."""
    member.path.parent.mkdir(parents=True, exist_ok=True)
    draft = member.path.with_name(member.path.name + ".draft")
    crc, size, digest = 0, 0, hashlib.sha256()
    with draft.open("wb") as out:
        for block in inflated(file, at, member.info):
            out.write(block)
            crc, size = zlib.crc32(block, crc), size + len(block)
            digest.update(block)
    name = member.info.filename
    expect(name, "bytes", size, member.info.file_size)
    expect(name, "CRC32", f"{crc:08x}", f"{member.info.CRC:08x}")
    expect(name, "sha256", digest.hexdigest(), member.sha256)
    draft.replace(member.path)


def inflated(file: BinaryIO, at: int, info: zipfile.ZipInfo) -> Iterator[bytes]:
    file.seek(at)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Corrupt(f"{info.filename}: no zip header at byte {info.header_offset} of the wheel")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if info.compress_type == zipfile.ZIP_DEFLATED else None
    left = info.compress_size
    try:
        while left and (block := file.read(min(COPY, left))):
            left -= len(block)
            yield inflater.decompress(block) if inflater else block
        if inflater:
            yield inflater.flush()
    except zlib.error as error:
        raise Corrupt(f"{info.filename}: {error}") from error


def expect(name: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Corrupt(f"{name}: {what} is {found}, expected {expected}")


def read_record(path: Path) -> dict[str, str]:
    """The sha256 (hex) of each member, from lines `name,sha256=<base64>,bytes`."""
    with path.open(newline="") as lines:
        return {name: hex_of(digest) for name, digest, _ in csv.reader(lines) if digest}


def hex_of(digest: str) -> str:
    text = digest.split("=", 1)[1]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()


# --- where the bytes come from ----------------------------------------------------------------------------------------


class Source:
    """A wheel that can be read: its directory (`entries`), and pieces of it as open files."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self.archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise Unreachable(f"it does not read as a zip: {error}") from error
        self.entries = self.archive.infolist()
        starts = sorted(info.header_offset for info in self.entries)
        #: The end of each member, by its start: where the next one or the directory begins.
        self.ends = dict(zip(starts, [*starts[1:], self.archive.start_dir]))

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def bring(self, piece: Piece) -> contextlib.AbstractContextManager[tuple[BinaryIO, int]]:
        """A file that holds the piece, and the byte of the wheel at which that file begins."""
        raise NotImplementedError

    def drop(self, piece: Piece) -> None:
        """Forgets the piece's bytes."""


class Whole(Source):
    """A wheel that lies on disk as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(path.open("rb"))

    @contextlib.contextmanager
    def bring(self, piece: Piece) -> Iterator[tuple[BinaryIO, int]]:
        with self.path.open("rb") as file:
            yield file, 0


class Ranged(Source):
    """A wheel at an address whose server answers range requests; pieces under way lie in files `<folder>.<start>`."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder
        super().__init__(io.BufferedReader(Remote(address), 1 << 20))

    def _path(self, piece: Piece) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{piece.start}-{piece.end}")

    @contextlib.contextmanager
    def bring(self, piece: Piece) -> Iterator[tuple[BinaryIO, int]]:
        path = self._path(piece)
        patiently(lambda: self._continue(piece, path))
        with path.open("rb") as file:
            yield file, piece.start

    def _continue(self, piece: Piece, path: Path) -> None:
        """Appends what is missing at the end of the piece's file."""
        wanted, have = piece.end - piece.start, path.stat().st_size if path.exists() else 0
        if have < wanted:
            with request(self.address, piece.start + have, piece.end) as reply, path.open("ab") as out:
                copy(reply, out, wanted)
            have = path.stat().st_size
        if have != wanted:
            raise ConnectionError(f"the transfer stopped after {have} of {wanted} bytes")

    def drop(self, piece: Piece) -> None:
        self._path(piece).unlink(missing_ok=True)


def copy(reply: http.client.HTTPResponse, out: BinaryIO, wanted: int) -> None:
    """Copies what comes, and now and then says how far it is."""
    told = time.monotonic()
    while block := reply.read(COPY):
        out.write(block)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say(f"  {out.tell() / 1e6:.0f} of {wanted / 1e6:.0f} MB")


class Remote(io.RawIOBase):
    """A remote file as `zipfile` wants it; every read is one range request, so put a buffer before it."""

    def __init__(self, address: str) -> None:
        self.address, self.at = address, 0
        with patiently(lambda: request(address, 0, 1)) as reply:
            self.size = int(reply.headers["Content-Range"].split("/")[1])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer) -> int:
        end = min(self.at + len(buffer), self.size)
        if end <= self.at:
            return 0
        data = patiently(lambda: read_range(self.address, self.at, end))
        buffer[: len(data)] = data
        self.at = end
        return len(data)


def read_range(address: str, start: int, end: int) -> bytes:
    with request(address, start, end) as reply:
        data = reply.read()
    if len(data) != end - start:
        raise ConnectionError(f"the transfer stopped after {len(data)} of {end - start} bytes")
    return data


def request(address: str, start: int, end: int) -> http.client.HTTPResponse:
    """Asks for bytes `start..end`; Unreachable if the server gives something else."""
    headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    try:
        reply = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
        raise Unreachable(f"the server answers {error.code} {error.reason}") from error
    if reply.status != 206 or not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-{end - 1}/"):
        reply.close()
        raise Unreachable("the server does not answer range requests")
    return reply


def patiently(action: Callable[[], T]) -> T:
    """Does it again, after a growing pause, when the network fails."""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            fault = error
            time.sleep(2**attempt / 4)
    raise Unreachable(f"the network fails: {fault}") from fault


# --- pip --------------------------------------------------------------------------------------------------------------


def locate(wheels: list[Wheel]) -> dict[str, str]:
    """The address of each wheel, by requirement, as pip finds it; those that can only be had through pip are absent."""
    asking = ["--dry-run", "--quiet", "--report", "-", "--ignore-installed", "--no-deps", "--target", "none"]
    reply = pip("install", *asking, *WHEEL_TAGS, *(wheel.requirement for wheel in wheels))
    if reply.returncode != 0 and "no such option" in reply.stderr:
        return {}  # before pip 22.2
    if reply.returncode != 0:
        raise Failure(pip_failed("find libtorch", reply))
    found = [item["download_info"] for item in json.loads(reply.stdout)["install"]]
    by_hash = {info["archive_info"]["hash"].removeprefix("sha256="): info["url"] for info in found}
    for wheel in wheels:
        if wheel.sha256 not in by_hash:
            raise Failure(
                f"the index's {wheel.requirement} is not the pinned wheel: "
                f"sha256 is one of {', '.join(by_hash)}, expected {wheel.sha256}"
            )
    return {
        wheel.requirement: address
        for wheel in wheels
        if (address := by_hash[wheel.sha256]).startswith(("http:", "https:"))
    }


def fetch_whole(wheel: Wheel, pieces: Path) -> Path:
    """The wheel itself, by pip; one that an earlier run fetched is taken if it is the pinned one."""
    folder = pieces / wheel.sha256[:16]
    whole = next((path for path in folder.glob("*.whl") if sha256_of(path) == wheel.sha256), None)
    if whole:
        return whole
    shutil.rmtree(folder, ignore_errors=True)
    reply = pip("download", "--quiet", "--no-deps", "--dest", str(folder), *WHEEL_TAGS, wheel.requirement)
    if reply.returncode != 0:
        raise Failure(pip_failed(f"fetch {wheel.requirement}", reply))
    whole = next(folder.glob("*.whl"))
    if (found := sha256_of(whole)) != wheel.sha256:
        raise Failure(f"{whole.name} is not the pinned wheel: sha256 is {found}, expected {wheel.sha256}")
    return whole


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *arguments, "--retries", "2", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def pip_failed(what: str, reply: subprocess.CompletedProcess[str]) -> str:
    """The likely cause first, then pip's own words."""
    words = reply.stderr.strip() or reply.stdout.strip()
    if "No module named pip" in words:
        return f"pip is needed to {what}: install it (Debian, Ubuntu: apt install python3-pip) or set LIBTORCH"
    if "No space left on device" in words:
        return f"the disk is full; pip could not {what}"
    network = ("NewConnectionError", "ConnectTimeout", "NameResolutionError", "ProxyError", "Max retries", "Retrying")
    cause = "there seems to be no network" if any(word in words for word in network) else "pip's index lacks it"
    lines = [line for line in words.splitlines() if "ERROR" in line] or words.splitlines()[-3:]
    last = "\n".join(f"    {line}" for line in lines)
    return (
        f"pip could not {what}: {cause}. It says:\n{last}\n"
        f"Without a network: set LIBTORCH to an unpacked libtorch {VERSION}, or put the wheels "
        f"{', '.join(wheel.requirement for wheel in WHEELS)} into a folder and set PIP_NO_INDEX=1 and "
        f"PIP_FIND_LINKS=<folder>."
    )


# --- the folder -------------------------------------------------------------------------------------------------------


def check_space(part: Path, needed: int) -> None:
    have = sum(path.stat().st_size for path in part.rglob("*") if path.is_file() and not path.is_symlink())
    free = shutil.disk_usage(part).free
    if have + free < needed:
        raise Failure(
            f"{part.parent} has {free / 1e6:.0f} MB free, and libtorch needs {(needed - have) / 1e6:.0f} MB; "
            f"make room or set LIBTORCH to a libtorch elsewhere"
        )


def check_pinned_files(part: Path) -> None:
    for name, expected in PINNED_FILES.items():
        if (found := sha256_of(part / name)) != expected:
            raise Failure(f"{name} is not the pinned one: sha256 is {found}, expected {expected}")


def finish(part: Path, pieces: Path) -> None:
    """What the wheels lack: a linkable libtorch.so without CUDA, the linker's name of libgomp, and the version."""
    (part / "lib" / "libtorch.so").write_text("/* The CPU part alone; a linker script. */\nINPUT(-ltorch_cpu)\n")
    gomp = part / "lib" / "libgomp.so"
    gomp.unlink(missing_ok=True)
    gomp.symlink_to("libgomp.so.1")
    (part / "build-version").write_text(VERSION + "\n")
    (part / "pins.json").write_text(pins())
    shutil.rmtree(pieces)


def publish(part: Path, into: Path) -> None:
    if into.exists():
        shutil.rmtree(into)
    part.rename(into)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(COPY):
            digest.update(block)
    return digest.hexdigest()


def explain(error: OSError, into: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {into.parent} is full; what has been fetched is kept, so make room and run it again"
    return f"{error}"


def say(text: str) -> None:
    print(f"libtorch: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
