"""Requests of all kinds, well formed and not, against every path of `/openapi.json`; beside them one stream that must not change.

schemathesis makes the requests from the server's own description. What must hold: no response is a 5xx, the server goes on
running and is idle in the end, responses are as described, and a sampled answer with log probabilities that is asked for
over and over beside them is equal to the bit to what it was alone. The numbers of responses are the server's own. The
report is JSON; the exit code says whether all held.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))
import server

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance", "unsupported_method")
CANARY = {"prompt": list(range(40, 90)), "max_tokens": 24, "temperature": 1.2, "seed": 7, "logprobs": 3, "n": 2,
          "ignore_eos": True, "stream": True}


def canary(started):
    """The texts and log probabilities of the canary's two answers."""
    request = urllib.request.Request(started.url + "/v1/completions", json.dumps(CANARY).encode(),
                                     {"content-type": "application/json"})
    answers = [[], []]
    with urllib.request.urlopen(request, timeout=120) as response:
        lines = [line[5:].strip() for line in response if line.startswith(b"data:")]
    assert lines[-1] == b"[DONE]", f"the canary's stream ends {lines[-1:]}"
    for event in map(json.loads, lines[:-1]):
        assert "error" not in event, event
        for choice in event["choices"]:
            shown = choice["logprobs"] or {}
            # Which tokens share an event depends on the time; the tokens and their numbers do not.
            tokens = zip(shown.get("tokens", []), shown.get("token_logprobs", []), shown.get("top_logprobs", []))
            answers[choice["index"]] += tokens
    assert all(len(answer) == CANARY["max_tokens"] for answer in answers), "the canary's answer is short"
    return answers


class Beside(threading.Thread):
    """Asks for the canary's answer until it is told to stop."""

    def __init__(self, started):
        super().__init__()
        self.started, self.wanted = started, canary(started)
        self.over, self.rounds, self.wrong = threading.Event(), 0, []

    def run(self):
        while not self.over.is_set():
            try:
                if canary(self.started) != self.wanted:
                    self.wrong.append(f"round {self.rounds} differs")
            except Exception as error:
                self.wrong.append(f"round {self.rounds}: {type(error).__name__}: {error}")
                time.sleep(0.1)
            self.rounds += 1


def responses(started):
    """How many responses of each hundred of statuses there were."""
    with urllib.request.urlopen(started.url + "/metrics", timeout=30) as page:
        lines = re.findall(r'^sinter:responses_total\{.*status="(\dxx)"\} (\d+)', page.read().decode(), re.M)
    return {hundred: int(count) for hundred, count in lines}


def idle(started):
    for _ in range(600):
        state = started.get("/v1/state")
        if state["running"] == state["waiting"] == 0 and state["requests"] == state["finished"]:
            break
        time.sleep(0.1)
    return state


def fuzz(started, args, folder, phase, workers):
    """One run of schemathesis; its exit code, its words, and the statuses that came."""
    report = folder / "report.json"
    command = [str(Path(sys.executable).parent / "st"), "run", started.url + "/openapi.json", "--workers", str(workers),
               "--max-examples", str(args.examples), "--seed", str(args.seed), "--checks", ",".join(CHECKS),
               "--phases", phase, "--continue-on-failure", "--no-color", "--no-shrink", "--warnings", "off",
               "--suppress-health-check", "all", "--request-timeout", "120", "--report", "json",
               "--report-json-path", str(report), "--generation-database", "none"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="requests for each path at most, besides those of the coverage phase")
    parser.add_argument("--cases", type=int, default=10_000, help="responses that there must be at least")
    parser.add_argument("--phases", default="coverage,fuzzing")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    flags = ("--max-queue", "4096", "--kv-memory", "16MiB", "--max-context", "256", "--log", "off")
    with server.serve(*flags) as started, tempfile.TemporaryDirectory() as folder:
        beside = Beside(started)
        before, begun = responses(started), time.monotonic()
        beside.start()
        code, words = 0, ""
        for phase in args.phases.split(","):
            # Several threads at once upset Python's parser (3.11), which this phase calls for each value.
            workers = 1 if phase == "coverage" else args.workers
            found, told = fuzz(started, args, Path(folder), phase, workers)
            code, words = code or found, words + told
        seconds = time.monotonic() - begun
        beside.over.set()
        beside.join()
        after, state = responses(started), idle(started)
        alive = started.process.poll() is None
    counts = {hundred: after[hundred] - before.get(hundred, 0) for hundred in after}
    cases = sum(counts.values()) - beside.rounds
    held = {
        "schemathesis found nothing": code == 0,
        "no response is a 5xx": counts.get("5xx", 0) == 0,
        "there were enough requests": cases >= args.cases,
        "the server runs": alive and state["failed"] == 0,
        "nothing is left when idle": state["blocks"]["used"] == state["running"] == state["waiting"] == 0,
        "the canary is the same to the bit": not beside.wrong and beside.rounds >= 3,
    }
    print(json.dumps({"cases": cases, "responses": counts, "canaries": beside.rounds, "seconds": round(seconds, 1),
                      "seed": args.seed, "wrong": beside.wrong[:10], "held": held}, indent=1))
    if code:
        print(words[-12_000:], file=sys.stderr)
    sys.exit(0 if all(held.values()) else 1)


if __name__ == "__main__":
    main()
