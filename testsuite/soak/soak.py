"""A server under mixed load for a long time: what must hold is checked while it runs and when it is over.

The load: streams and whole answers, greedy and sampled, of several lengths and choices; a fifth of the requests are
given up at a random moment; some readers never read; now and then a thousand requests with one beginning come at once.

What must hold: every request that is not given up ends exactly once; the server counts as many ends as requests, and
no failure; no block is in use when it is idle; memory after the warm-up does not grow by more than 1 %; answers that
were given in company are given again alone, to the last character. Memory is judged only after a warm-up of 300 s, so in
runs of 600 s and more; a shorter run tells its growth, and says that it was not judged. The report is JSON; the exit code
says whether all held. Only the standard library is used.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))
import server

GIVEN_UP = 0.2
NEVER_READ = 0.02
BURST = 1000
GROWTH = 0.01
WARM = 300


class Gone(Exception):
    """The client itself went away."""


async def ask(address, body, leave_after=None):
    """One request over a connection of its own; its events, or its one object. `leave_after` closes it that early."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        data = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n"
        writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        try:
            text = (await asyncio.wait_for(reader.read(), leave_after)).decode()
        except asyncio.TimeoutError:
            raise Gone from None
    finally:
        writer.close()
    head, _, rest = text.partition("\r\n\r\n")
    status = int(head.split()[1])
    if "transfer-encoding: chunked" in head.lower():
        rest = dechunk(rest)
    if status != 200:
        return status, rest, None
    return status, rest, [line[5:].strip() for line in rest.splitlines() if line.startswith("data:")]


def dechunk(text):
    data, whole = text.encode(), b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole, data = whole + data[:length], data[length + 2:]
        if length == 0:
            return whole.decode()
    raise AssertionError("the answer broke off before its last chunk")


def answer(body, rest, events):
    """The texts of an answer; what is wrong with it is an AssertionError."""
    count = body.get("n", 1)
    if not body.get("stream"):
        choices = json.loads(rest)["choices"]
        assert [choice["index"] for choice in choices] == list(range(count)), "choices are missing"
        assert all(choice["finish_reason"] in ("stop", "length") for choice in choices), rest
        return [choice["text"] for choice in choices]
    assert events.count("[DONE]") == 1 and events[-1] == "[DONE]", f"a stream ends {events[-3:]}"
    texts, ends = [""] * count, [0] * count
    for event in map(json.loads, events[:-1]):
        assert "error" not in event, event
        for choice in event["choices"]:
            assert ends[choice["index"]] == 0, "text after the end"
            texts[choice["index"]] += choice["text"]
            ends[choice["index"]] += choice["finish_reason"] is not None
    assert ends == [1] * count, f"the choices ended {ends} times"
    return texts


class Soak:
    def __init__(self, started, args):
        self.server, self.args = started, args
        self.random = random.Random(args.seed)
        self.counts = dict.fromkeys(("asked", "answered", "given_up", "never_read", "refused", "bursts"), 0)
        self.wrong, self.kept, self.memory = [], [], []
        self.began = time.monotonic()

    def prompt(self, length):
        return [self.random.randrange(6, 1000) for _ in range(length)]

    def body(self):
        draw = self.random
        shared = random.Random(draw.randrange(4))
        prompt = [shared.randrange(6, 1000) for _ in range(draw.choice((0, 40, 120)))] + self.prompt(draw.randrange(1, 60))
        body = {"prompt": prompt, "max_tokens": draw.choice((1, 8, 24, 60)), "stream": draw.random() < 0.6,
                "temperature": draw.choice((0, 0.8, 1.5)), "seed": draw.randrange(1 << 30), "ignore_eos": True}
        if draw.random() < 0.15:
            body["n"] = draw.randrange(2, 5)
        if draw.random() < 0.2:
            body["stop"] = ["e"]
        return body

    async def one(self, body, keep):
        self.counts["asked"] += 1
        # Some are answered before they can be given up, so that nearly all are tried while too few have been.
        few = self.counts["given_up"] < GIVEN_UP * self.counts["asked"]
        leaves = self.random.random() < (0.8 if few else 0.1) and not keep
        try:
            status, rest, events = await ask(self.server.address, body, self.random.expovariate(5) if leaves else None)
            if status == 429:
                self.counts["refused"] += 1
                return
            assert status == 200, f"{status} {rest[:300]}"
            texts = answer(body, rest, events)
            self.counts["answered"] += 1
            if keep:
                self.kept.append((body, texts))
        except Gone:
            self.counts["given_up"] += 1
        except (AssertionError, OSError, ValueError, IndexError, KeyError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    async def never_read(self):
        self.counts["never_read"] += 1
        host, port = self.server.address.rsplit(":", 1)
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        data = json.dumps({**self.body(), "stream": True, "max_tokens": 200, "logprobs": 5}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
        writer.write(f"{head}\r\n\r\n".encode() + data)
        await asyncio.sleep(self.random.uniform(1, 8))
        writer.transport.abort()

    async def burst(self):
        self.counts["bursts"] += 1
        prefix = self.prompt(100)
        bodies = [{"prompt": prefix + self.prompt(3), "max_tokens": 2, "temperature": 0} for _ in range(BURST)]
        gate = asyncio.Semaphore(500)

        async def gated(body):
            async with gate:
                await self.one(body, False)

        await asyncio.gather(*map(gated, bodies))

    async def client(self, until):
        while time.monotonic() < until:
            if self.random.random() < NEVER_READ:
                await self.never_read()
            else:
                await self.one(self.body(), self.random.random() < 0.03)

    async def watch(self, until):
        while time.monotonic() < until:
            await asyncio.sleep(min(2, self.args.seconds / 20))
            self.memory.append((time.monotonic() - self.began, self.server.rss()))

    async def bursts(self, until):
        pause = max(self.args.seconds / 12, 8)
        await asyncio.sleep(pause / 4)
        while time.monotonic() < until:
            await self.burst()
            await asyncio.sleep(pause)

    async def run(self):
        until = self.began + self.args.seconds
        clients = [self.client(until) for _ in range(self.args.clients)]
        await asyncio.gather(*clients, self.bursts(until), self.watch(until))

    async def idle(self):
        """Waits until nothing runs, and gives the numbers."""
        for _ in range(600):
            state = self.server.get("/v1/state")
            if state["running"] == state["waiting"] == 0 and state["requests"] == state["finished"]:
                break
            await asyncio.sleep(0.1)
        return state

    async def again(self):
        different = []
        for body, texts in self.kept[-self.args.check:]:
            status, rest, events = await ask(self.server.address, body)
            if status != 200 or answer(body, rest, events) != texts:
                different.append(body)
        return different

    def growth(self):
        warm = self.args.warm
        after = [rss for at, rss in self.memory if at >= warm]
        if len(after) < 10:
            return None
        part = max(5, len(after) // 5)  # Of the bursts some lie in each part.
        return statistics.median(after[-part:]) / statistics.median(after[:part]) - 1


async def soak(started, args):
    run = Soak(started, args)
    await run.run()
    state = await run.idle()
    different = await run.again()
    growth = run.growth()
    held = {
        "every request that was not given up ended exactly once": not run.wrong,
        "the server counts as many ends as requests": state["requests"] == state["finished"] and state["failed"] == 0,
        "no block is in use when idle": state["blocks"]["used"] == 0 and state["running"] == state["waiting"] == 0,
        "answers are the same alone": not different and len(run.kept) > 0,
        "a fifth was given up": abs(run.counts["given_up"] / run.counts["asked"] - GIVEN_UP) < 0.05 or args.seconds < 60,
    }
    if growth is not None and args.warm >= WARM:
        held["memory is flat"] = growth <= GROWTH
    return {
        "seconds": args.seconds, "seed": args.seed, **run.counts, "asked_again_alone": len(run.kept[-args.check:]),
        "memory_growth_after_warm_up": growth,
        "memory_by_second": [(round(at), rss) for at, rss in run.memory[:: max(1, len(run.memory) // 40)]],
        "wrong": run.wrong[:20], "different": different[:3], "state": state, "held": held,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--warm", type=float, help="seconds before memory counts; 300, or half of a shorter run, in which its growth is told but not judged")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--check", type=int, default=100, help="answers that are asked for again alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the report")
    args = parser.parse_args()
    args.warm = min(WARM, args.seconds / 2) if args.warm is None else args.warm
    flags = ("--max-queue", "4096", "--kv-memory", "16MiB", "--log", "off")
    with server.serve(*flags) as started:
        report = asyncio.run(soak(started, args))
    text = json.dumps(report, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)
    if "memory is flat" not in report["held"]:
        print(f"**** memory was NOT judged: the warm-up is shorter than {WARM} s, or too little came after it ****",
              file=sys.stderr)
    sys.exit(0 if all(report["held"].values()) else 1)


if __name__ == "__main__":
    main()
