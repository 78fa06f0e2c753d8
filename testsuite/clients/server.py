"""A `sinter serve` for a test, on a free port."""

import contextlib
import json
import os
import subprocess
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "tiny_chat" / "model"


def binary():
    """SINTER, or the newest of the release and the dev build."""
    if named := os.environ.get("SINTER"):
        return named
    built = [path for kind in ("release", "debug") if (path := ROOT / "target" / kind / "sinter").exists()]
    assert built, "no sinter is built: cargo build -p sinter-driver"
    return str(max(built, key=lambda path: path.stat().st_mtime))


class Server:
    """A running server: where it listens, its process, and the file of what it says on stderr."""

    def __init__(self, process, address, log):
        self.process, self.address, self.url, self.log = process, address, f"http://{address}", log

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.load(response)

    def told(self):
        """What it has said so far. The place in the file is the server's too, so it is left alone."""
        return os.pread(self.log.fileno(), 1 << 24, 0).decode()

    def rss(self):
        """Bytes that the process has in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.split("VmRSS:")[1].split()[0])


@contextlib.contextmanager
def serve(*flags, model=MODEL):
    """Starts a server and gives it; what it said is shown if it does not start."""
    with tempfile.TemporaryFile("w+") as log:
        command = [binary(), "--json", "serve", str(model), "--port", "0", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read()}")
            yield Server(process, json.loads(line)["address"], log)
            assert process.poll() is None, f"the server ended with {process.poll()}"
            process.terminate()
            assert process.wait(60) == 0, f"the server ended with {process.returncode}"
        finally:
            process.kill()
            process.wait()
