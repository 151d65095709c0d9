"""The command fetches over TLS from a server of this machine: when the certificate is known, and not otherwise.

GENOMILL names the command; openssl makes the certificates.
"""

import functools
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import threading

import pytest

COMMAND, OPENSSL = os.environ.get("GENOMILL"), shutil.which("openssl")
pytestmark = pytest.mark.skipif(not (COMMAND and OPENSSL), reason="GENOMILL is not set, or openssl is missing")

FASTA = b">phage\n" + b"ACGTTGCA" * 100 + b"\n"


def openssl(folder, *arguments):
    subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def certified(tmp_path):
    """A folder with `ca.pem` and a certificate for localhost that it signed."""
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    openssl(tmp_path, *new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a laboratory")
    openssl(tmp_path, *new, "-keyout", "key.pem", "-out", "request", "-subj", "/CN=localhost")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "cert.pem"]
    openssl(tmp_path, "x509", "-req", "-in", "request", *signed)
    return tmp_path


@pytest.fixture
def port(certified):
    served = certified / "served"
    served.mkdir()
    (served / "phage.fa").write_bytes(FASTA)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certified / "cert.pem", certified / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("known", [True, False])
def test_only_a_server_with_a_known_certificate_is_read(certified, port, known):
    workflow = certified / "https.yaml"
    pin = hashlib.sha256(FASTA).hexdigest()
    source = f'{{name: phage, fasta: "https://localhost:{port}/phage.fa", sha256: {pin}}}'
    workflow.write_text(f"name: https\nstages:\n  raw: {{uses: ingest, sources: [{source}]}}\n")
    environment = {**os.environ, "GENOMILL_CACHE": str(certified / "cache")}
    if known:
        environment["SSL_CERT_FILE"] = str(certified / "ca.pem")
    work = certified / "work"
    run = [COMMAND, "run", str(workflow), "--work", str(work)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == known, done.stderr
    assert (work / "https" / "raw").exists() == known
    assert known or "certificate" in done.stderr
