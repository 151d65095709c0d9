"""What tools/libtorch.py promises, against a server on loopback and wheels of a few kilobytes."""

import base64
import errno
import hashlib
import http.server
import json
import random
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import libtorch

LIBRARY = random.Random(7).randbytes(300_000)
MEMBERS = {
    "torch/unwanted.bin": random.Random(8).randbytes(500_000),
    "torch/include/a.h": b"#define A 1\n" * 100,
    "torch/include/deep/b.h": b"",
    "torch/lib/libtorch_cpu.so": LIBRARY,
    "torch/lib/libgomp.so.1": b"gomp",
}
WANTED = {
    "torch/include/": "include/",
    "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
    "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, and misbehaves as the test asks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, data = self.server, self.server.data
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked and server.ranges else (0, len(data))
        server.asked.append((start, end))
        body = server.damage(bytearray(data[start:end]), start)
        self.send_response(206 if asked and server.ranges else 200)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.ranges, self.cut, self.asked = data, True, None, []
        self.damage = lambda body, start: body
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/torch.whl"

    def bytes_sent(self):
        return sum(end - start for start, end in self.asked)


class Pip:
    """Stands in for pip: says where the wheel is, and copies it when asked to download it."""

    def __init__(self, server, wheel_path):
        self.server, self.wheel_path, self.calls, self.fault, self.old = server, wheel_path, [], None, False

    def __call__(self, *arguments):
        self.calls.append(arguments[0])
        if self.fault:
            return subprocess.CompletedProcess(arguments, 1, "", self.fault)
        if arguments[0] == "install" and self.old:
            return subprocess.CompletedProcess(arguments, 2, "", "no such option: --dry-run")
        if arguments[0] == "install":
            info = {"url": self.server.address, "archive_info": {"hash": "sha256=" + sha256(self.server.data)}}
            return subprocess.CompletedProcess(arguments, 0, json.dumps({"install": [{"download_info": info}]}), "")
        folder = Path(arguments[arguments.index("--dest") + 1])
        folder.mkdir(parents=True)
        (folder / "torch.whl").write_bytes(self.wheel_path.read_bytes())
        return subprocess.CompletedProcess(arguments, 0, "", "")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def record_line(name, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def make_wheel(path):
    """A wheel with members stored and deflated; returns the text of its RECORD."""
    record_name = "torch-9.9.dist-info/RECORD"
    record = "".join(record_line(*member) for member in MEMBERS.items()) + f"{record_name},,\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("torch/include/", b"")
        for name, data in MEMBERS.items():
            archive.writestr(name, data, zipfile.ZIP_STORED if name.endswith("gomp.so.1") else None)
        archive.writestr(record_name, record)
    return record


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A server, a pip and the pins of a tiny wheel in place of the real ones."""
    wheel_path = tmp_path / "served.whl"
    record = make_wheel(wheel_path)
    data = wheel_path.read_bytes()
    server = Server(data)
    pip = Pip(server, wheel_path)
    wheel = libtorch.Wheel("torch==9.9", sha256(data), sha256(record.encode()), WANTED)
    monkeypatch.setattr(libtorch, "WHEELS", [wheel])
    monkeypatch.setattr(libtorch, "PINNED_FILES", {"lib/libtorch_cpu.so": sha256(LIBRARY)})
    monkeypatch.setattr(libtorch, "SPACE", 2_000_000)
    monkeypatch.setattr(libtorch, "PIECE", 10_000)
    monkeypatch.setattr(libtorch, "ATTEMPTS", 2)
    monkeypatch.setattr(libtorch, "check_platform", lambda *_: None)
    monkeypatch.setattr(libtorch, "pip", pip)
    monkeypatch.delenv("LIBTORCH", raising=False)
    monkeypatch.delenv("LIBTORCH_USE_PYTORCH", raising=False)
    monkeypatch.setattr(libtorch.time, "sleep", lambda _: None)
    server.pip, server.into = pip, tmp_path / "libtorch" / "torch"
    monkeypatch.setattr(sys, "argv", ["libtorch.py", "--into", str(server.into)])
    yield server
    server.shutdown()
    server.server_close()


def expect_whole(into):
    assert (into / "lib/libtorch_cpu.so").read_bytes() == LIBRARY
    assert (into / "lib/libgomp.so").read_bytes() == b"gomp"
    assert (into / "lib/libtorch.so").read_text().endswith("INPUT(-ltorch_cpu)\n")
    assert (into / "include/a.h").read_bytes() == MEMBERS["torch/include/a.h"]
    assert (into / "include/deep/b.h").read_bytes() == b""
    assert (into / "build-version").read_text() == libtorch.VERSION + "\n"
    files = {str(path.relative_to(into)) for path in into.rglob("*") if not path.is_dir()}
    assert files == {
        "include/a.h", "include/deep/b.h", "lib/libtorch_cpu.so", "lib/libtorch.so", "lib/libgomp.so.1",
        "lib/libgomp.so", "build-version", "pins.json",
    }  # fmt: skip
    assert not into.with_name("torch.part").exists()


def library_span(server):
    with zipfile.ZipFile(server.pip.wheel_path) as archive:
        start = archive.getinfo("torch/lib/libtorch_cpu.so").header_offset
        return start, archive.getinfo("torch/lib/libgomp.so.1").header_offset


def members_asked_for(server):
    """The spans that were asked for, without the first byte (for the size) and the directory."""
    with zipfile.ZipFile(server.pip.wheel_path) as archive:
        return [span for span in server.asked if span != (0, 1) and span[0] < archive.start_dir]


def test_only_the_wanted_members_are_fetched(world):
    assert libtorch.main() == 0
    expect_whole(world.into)
    assert world.bytes_sent() < len(world.data) - 400_000


def test_a_second_run_asks_nobody(world):
    libtorch.main()
    world.asked.clear()
    world.pip.calls.clear()
    assert libtorch.main() == 0
    assert (world.asked, world.pip.calls) == ([], [])


def test_other_pins_replace_the_folder(world, monkeypatch):
    libtorch.main()
    (world.into / "pins.json").write_text("other")
    (world.into / "stale").write_text("")
    assert libtorch.main() == 0
    expect_whole(world.into)


def test_a_server_without_ranges_serves_the_whole_wheel(world, capsys):
    world.ranges = False
    assert libtorch.main() == 0
    expect_whole(world.into)
    assert world.pip.calls == ["install", "download"]
    assert "does not answer range requests" in capsys.readouterr().err


def test_an_old_pip_fetches_the_whole_wheel(world):
    world.pip.old = True
    assert libtorch.main() == 0
    expect_whole(world.into)
    assert (world.asked, world.pip.calls) == ([], ["install", "download"])


def test_a_whole_wheel_with_another_hash_is_refused(world, capsys):
    world.ranges = False
    damaged = bytearray(world.data)
    damaged[2000] ^= 1
    world.pip.wheel_path.write_bytes(damaged)
    assert libtorch.main() == 1
    assert f"expected {sha256(world.data)}" in capsys.readouterr().err
    assert not world.into.exists()


def flip(server, times):
    """Damages a byte in the middle of the library's bytes, the first `times` that they are sent."""
    target = sum(library_span(server)) // 2
    left = [times]

    def damage(body, start):
        if start <= target < start + len(body) and left[0] > 0:
            left[0] -= 1
            body[target - start] ^= 0xFF
        return body

    server.damage = damage


def test_a_damaged_member_is_fetched_again(world, capsys):
    flip(world, 1)
    assert libtorch.main() == 0
    expect_whole(world.into)
    assert "torch/lib/libtorch_cpu.so: " in capsys.readouterr().err


def test_a_member_damaged_twice_is_an_error(world, capsys):
    flip(world, 2)
    assert libtorch.main() == 1
    error = capsys.readouterr().err
    assert re.search(r"error: torch/lib/libtorch_cpu\.so: .*, twice", error), error
    assert not world.into.exists()
    assert libtorch.main() == 0
    expect_whole(world.into)


def test_bytes_that_pass_the_crc_must_still_pass_the_record(world, capsys, monkeypatch):
    monkeypatch.setattr(libtorch, "read_record", lambda _: dict.fromkeys(MEMBERS, "0" * 64))
    assert libtorch.main() == 1
    assert re.search(r"torch/\S+: sha256 is [0-9a-f]{64}, expected 0{64}, twice", capsys.readouterr().err)
    assert not world.into.exists()


def test_another_record_is_refused(world, capsys, monkeypatch):
    wheel = libtorch.dataclasses.replace(libtorch.WHEELS[0], record_sha256="0" * 64)
    monkeypatch.setattr(libtorch, "WHEELS", [wheel])
    assert libtorch.main() == 1
    assert re.search(r"RECORD: sha256 is [0-9a-f]{64}, expected 0{64}, twice", capsys.readouterr().err)


def test_a_library_that_is_not_the_pinned_one_is_refused(world, capsys, monkeypatch):
    monkeypatch.setattr(libtorch, "PINNED_FILES", {"lib/libtorch_cpu.so": "0" * 64})
    assert libtorch.main() == 1
    assert "lib/libtorch_cpu.so is not the pinned one" in capsys.readouterr().err
    assert not world.into.exists()


def test_an_interrupted_transfer_goes_on_where_it_stopped(world, capsys):
    start, end = library_span(world)
    world.cut = 100_000  # of each answer; two attempts do not suffice for 300 000 bytes
    assert libtorch.main() == 1
    assert "the network fails: the transfer stopped after 200000 of" in capsys.readouterr().err
    world.cut = None
    world.asked.clear()
    assert libtorch.main() == 0
    expect_whole(world.into)
    assert (start + 200_000, end) in members_asked_for(world)
    assert all(asked_start > start for asked_start, _ in members_asked_for(world))


def test_what_is_fetched_and_right_is_not_fetched_again(world):
    flip(world, 2)
    libtorch.main()
    start, end = library_span(world)
    fetched = (world.into.with_name("torch.part") / "include/a.h").stat().st_mtime_ns
    world.asked.clear()
    assert libtorch.main() == 0
    assert (world.into / "include/a.h").stat().st_mtime_ns == fetched
    assert (start, end) in members_asked_for(world)
    assert all(asked_start >= start for asked_start, _ in members_asked_for(world))


def test_what_is_fetched_and_damaged_since_is_fetched_again(world):
    flip(world, 2)
    libtorch.main()
    header = world.into.with_name("torch.part") / "include/a.h"
    header.write_bytes(b"#define B 1\n" * 100)
    assert libtorch.main() == 0
    expect_whole(world.into)


def test_a_full_disk_is_seen_before(world, capsys, monkeypatch):
    monkeypatch.setattr(libtorch, "SPACE", 1 << 60)
    assert libtorch.main() == 1
    assert "MB free, and libtorch needs" in capsys.readouterr().err
    assert world.pip.calls == []


def test_a_disk_that_fills_up_keeps_what_is_there(world, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(libtorch, "copy", full)
        assert libtorch.main() == 1
    assert "is full; what has been fetched is kept" in capsys.readouterr().err
    assert libtorch.main() == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("WARNING: NewConnectionError\nERROR: No matching distribution found", "there seems to be no network"),
        ("ERROR: No matching distribution found", "pip's index lacks it"),
        ("/usr/bin/python3: No module named pip", "apt install python3-pip"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
    ],
)
def test_what_pip_cannot_do_is_explained(world, capsys, words, expected):
    world.pip.fault = words
    assert libtorch.main() == 1
    assert expected in capsys.readouterr().err


def test_an_index_with_another_wheel_is_refused(world, capsys, monkeypatch):
    wheel = libtorch.dataclasses.replace(libtorch.WHEELS[0], sha256="0" * 64)
    monkeypatch.setattr(libtorch, "WHEELS", [wheel])
    assert libtorch.main() == 1
    assert f"is not the pinned wheel: sha256 is one of {sha256(world.data)}" in capsys.readouterr().err


def test_an_own_libtorch_wins(world, capsys, monkeypatch, tmp_path):
    own = tmp_path / "own"
    (own / "include").mkdir(parents=True)
    (own / "lib").mkdir()
    (own / "lib/libtorch_cpu.so").touch()
    (own / "build-version").write_text("1.0+cpu\n")
    monkeypatch.setenv("LIBTORCH", str(own))
    assert libtorch.main() == 0
    said = capsys.readouterr().err
    assert f"LIBTORCH is set: using {own}" in said and "that is libtorch 1.0+cpu" in said
    assert world.pip.calls == [] and not world.into.exists()


def test_an_own_libtorch_that_is_none_is_an_error(world, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LIBTORCH", str(tmp_path))
    assert libtorch.main() == 1
    assert "correct it or unset it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [("Darwin", "arm64", ""), ("Linux", "aarch64", "glibc"), ("Linux", "x86_64", "")],
)
def test_another_platform_is_told_what_to_do(system, machine, libc):
    with pytest.raises(libtorch.Failure, match="export LIBTORCH="):
        libtorch.check_platform(system, machine, libc)


def test_the_real_pins_are_complete():
    assert all(len(wheel.sha256) == len(wheel.record_sha256) == 64 for wheel in libtorch.WHEELS)
    assert libtorch.WHEELS[1].record == "nvidia_cuda_runtime-13.0.96.dist-info/RECORD"
    libtorch.check_platform("Linux", "x86_64", "glibc")
