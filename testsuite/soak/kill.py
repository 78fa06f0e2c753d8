"""kill -9 at random moments of the first start, then a start: no corrupt cache is ever loaded.

Each round takes an empty cache, or the one that the last kill left, starts `sinter serve`, and kills it within the time
that a start takes. Then the server is started to the end, and greedy answers must be those of an untouched cache. Last,
files of the cache are cut short or have a bit turned, which must be noticed and told, and change no answer.

`--device vgpu` does the same where kernels for GPUs are compiled while the server runs; it wants a sinter that can compile
them, and kills the server also while it answers.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))
import server

PROMPTS = [[1, 4, 551, 2, 5], list(range(6, 80)), [7, 9, 11]]


def flags(device):
    # A step on the virtual GPU takes its time.
    return ("--log", "off", "--device", device, "--stalled-after", "120")


def ask(url, prompt, tokens):
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        choice = json.load(response)["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def answers(cache, device):
    """What a server with this cache says, how long it took to listen and to say it, and what it told."""
    os.environ["SINTER_CACHE"] = str(cache)
    begun = time.monotonic()
    with server.serve(*flags(device)) as started:
        listens = time.monotonic() - begun
        texts = [ask(started.url, prompt, 24 if device == "host" else 6) for prompt in PROMPTS]
        return texts, (listens, time.monotonic() - begun), started.told()


def kill_within(cache, seconds, device):
    """Starts a server, asks it if it listens in time, and kills it; whether it was still starting."""
    environment = {**os.environ, "SINTER_CACHE": str(cache)}
    command = [server.binary(), "--json", "serve", str(server.MODEL), "--port", "0", *flags(device)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    threading.Timer(seconds, process.send_signal, (signal.SIGKILL,)).start()
    listened = process.stdout.readline()
    try:
        while listened and process.poll() is None:
            for prompt in PROMPTS:
                ask("http://" + json.loads(listened)["address"], prompt, 6)
    except (OSError, http.client.HTTPException):
        pass  # It was killed while it answered.
    process.wait()
    return not listened


def damage(cache, draw):
    """Cuts or turns a bit of each file; how many."""
    files = sorted(path for path in cache.rglob("*") if path.is_file() and path.stat().st_size)
    for path in files:
        data = bytearray(path.read_bytes())
        at = draw.randrange(len(data))
        if draw.random() < 0.5:
            data = data[:at]
        else:
            data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
    return len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--damages", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="host")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        wanted, took, _ = answers(cache, args.device)
        assert any(path.is_file() for path in cache.rglob("*")), "the server caches nothing, so nothing is shown"
        killed = wrong = silent = 0
        for _ in range(args.rounds):
            if draw.random() < 0.7:
                shutil.rmtree(cache, ignore_errors=True)
                cache.mkdir()
            # On the host everything is compiled before the server listens.
            killed += kill_within(cache, draw.uniform(0, took[args.device != "host"]), args.device)
            wrong += answers(cache, args.device)[0] != wanted
        damaged = 0
        for _ in range(args.damages):
            damaged += damage(cache, draw)
            texts, _, told = answers(cache, args.device)
            wrong += texts != wanted
            silent += "is not used" not in told
    print(json.dumps({"rounds": args.rounds, "killed_while_starting": killed, "damaged_files": damaged,
                      "damages_not_told": silent, "wrong": wrong}))
    sys.exit(0 if wrong == silent == 0 and killed > 0 and damaged > 0 else 1)


if __name__ == "__main__":
    main()
