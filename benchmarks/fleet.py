"""How many cards it takes: a simulation of cards behind one door, fed with what one card was measured to do.

    python -m sglang_moss.benchmarks.fleet --lines benchmarks/results/release_h100.jsonl --out fleet.jsonl

A card runs up to 128 requests; a step gives each of them a frame, and takes as long as the measured closed loops say
for so many: a line through the least and the most, so that the loads between them, and two cards, are predictions to be
held against measurement (`--check`). A request's first audio comes as long after it is let in as the measured streams
say.

What nobody has measured is not in it: a prompt whose voice a card does not know costs no more than one it knows, so
the policies differ by what they do to the load alone. Requests come at random times (Poisson), each with one of many
voices of very different popularity (Zipf), and speak for as long as the measured ones.
"""

import argparse
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglang_moss.request.ranks import Ranks, by_preference

from .loads.ranks import n_cards
from .runs.record import read_lines, record

FRAME_SECONDS = 0.08
_PLACES = 128  # running on a card


@dataclass(frozen=True)
class CardModel:
    """What one card does, from lines of `serving`.

    Attributes:
        step_s: of a step without a request, and what each adds.
        first_audio_s: likewise, from when a request is let in to its first audio.
        audio_seconds: of a request.
    """

    step_s: tuple[float, float]
    first_audio_s: tuple[float, float]
    audio_seconds: float

    @classmethod
    def of(cls, lines: Iterable[dict[str, Any]]) -> "CardModel":
        """
        Raises:
            ValueError: the lines do not hold closed loops of one card at two loads, whole and streamed.
        """
        lines = [line for line in lines if _is_closed_loop(line) and n_cards(line) == 1]
        whole = {n: _mean(v) for n, v in _by_load(lines, stream=False, key="steady_audio_s_per_s").items()}
        streamed = {n: _mean(v) for n, v in _by_load(lines, stream=True, key="ttfa_ms_p50").items()}
        if len(whole) < 2 or len(streamed) < 2:
            raise ValueError("expected closed loops of one card at two loads or more, whole answers and streams")
        steps = {n: n * FRAME_SECONDS / rate for n, rate in whole.items()}
        firsts = {n: ms / 1e3 for n, ms in streamed.items()}
        return cls(_line_through(steps), _line_through(firsts), lines[0]["audio_seconds"])

    def step(self, n: int) -> float:
        return self.step_s[0] + self.step_s[1] * n

    def first_audio(self, n: int) -> float:
        return self.first_audio_s[0] + self.first_audio_s[1] * n


@dataclass
class Request:
    """One request; times are seconds of the simulation."""

    number: int
    voice: bytes
    came: float
    frames_left: int
    first_audio: float = 0.0
    done: float = 0.0


class Card:
    """Requests that run, and those that wait for a place."""

    def __init__(self, model: CardModel) -> None:
        self.model = model
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()

    @property
    def n_requests(self) -> int:
        return len(self.running) + len(self.waiting)

    def step(self, now: float) -> tuple[float, list[Request]]:
        """Let in what there is place for, and do a step: when it ends, and what has ended with it."""
        while self.waiting and len(self.running) < _PLACES:
            request = self.waiting.popleft()
            self.running.append(request)
            request.first_audio = now + self.model.first_audio(len(self.running))
        ends = now + self.model.step(len(self.running))
        for request in self.running:
            request.frames_left -= 1
        ended = [request for request in self.running if request.frames_left == 0]
        self.running = [request for request in self.running if request.frames_left]
        for request in ended:
            request.done = ends
        return ends, ended


Policy = Callable[[Request, Sequence[Card]], int]  # the card that a request goes to


def simulate(model: CardModel, n: int, arrivals: Iterator[Request], choose: Policy, ended: Callable) -> list[Request]:
    """Every request of `arrivals` on `n` cards; `ended` is told of each."""
    cards = [Card(model) for _ in range(n)]
    order = itertools.count()
    events: list[tuple[float, int, int]] = []  # when, and which card's step may begin
    done: list[Request] = []
    for request in arrivals:
        while events and events[0][0] <= request.came:
            _step(events, cards, order, done, ended)
        card = choose(request, cards)
        is_idle = not (cards[card].running or cards[card].waiting)
        cards[card].waiting.append(request)
        if is_idle and not any(index == card for _, _, index in events):
            heapq.heappush(events, (request.came, next(order), card))
    while events:
        _step(events, cards, order, done, ended)
    return done


def _step(events: list, cards: list[Card], order: Iterator[int], done: list[Request], ended: Callable) -> None:
    now, _, index = heapq.heappop(events)
    card = cards[index]
    if card.running or card.waiting:
        ends, over = card.step(now)
        for request in over:
            done.append(request)
            ended(request)
        heapq.heappush(events, (ends, next(order), index))


def poisson(model: CardModel, rate: float, seconds: float, n_voices: int, seed: int) -> Iterator[Request]:
    """Requests for `seconds`, `rate` of them a second in the mean."""
    rng = random.Random(seed)
    shares = [1 / (k + 1) for k in range(n_voices)]
    now, frames = 0.0, round(model.audio_seconds / FRAME_SECONDS)
    for number in itertools.count():
        now += rng.expovariate(rate)
        if now > seconds:
            return
        [voice] = rng.choices(range(n_voices), shares)
        yield Request(number, b"%d" % voice, now, frames)


def policies(n: int) -> dict[str, tuple[Policy, Callable[[Request], None]]]:
    """By name: how a card is chosen, and what is told of a request's end."""
    ranks = Ranks(n)

    def share(request: Request, _cards: Sequence[Card]) -> int:
        return ranks.choose(str(request.number), request.voice) or 0

    def hashed(request: Request, _cards: Sequence[Card]) -> int:
        return by_preference(request.voice, n)[0]

    def until_full(request: Request, cards: Sequence[Card]) -> int:
        order = by_preference(request.voice, n)
        return next((card for card in order if cards[card].n_requests < _PLACES), order[0])

    def least(_request: Request, cards: Sequence[Card]) -> int:
        return min(range(n), key=lambda i: cards[i].n_requests)

    return {
        "voice within its share": (share, lambda request: ranks.release(str(request.number))),
        "voice until its card is full": (until_full, lambda _request: None),
        "voice alone": (hashed, lambda _request: None),
        "least busy": (least, lambda _request: None),
    }


def fleets(model: CardModel, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for each number of cards, load and policy."""
    full = _PLACES * FRAME_SECONDS / model.step(_PLACES) / model.audio_seconds  # requests a second of one card
    for n, load in itertools.product(args.cards, args.loads):
        for name, (choose, ended) in policies(n).items():
            arrivals = poisson(model, load * full * n, args.seconds, args.voices, args.seed)
            requests = simulate(model, n, arrivals, choose, ended)
            first = [1e3 * (request.first_audio - request.came) for request in requests if request.came > args.warm_up]
            yield {
                "benchmark": "fleet",
                "cards": n,
                "policy": name,
                "load": load,
                "requests_per_s": load * full * n,
                "audio_s_per_s": load * full * n * model.audio_seconds,
                "ttfa_ms_p50": float(np.percentile(first, 50)),
                "ttfa_ms_p95": float(np.percentile(first, 95)),
            }


def checks(model: CardModel, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Measured closed loops beside simulated ones; two cards share the clients."""
    for line in lines:
        if _is_closed_loop(line) and not line["stream"] and line.get("tp_size", 1) == 1:
            on_card = line["concurrency"] / n_cards(line)
            simulated = n_cards(line) * on_card * FRAME_SECONDS / model.step(round(on_card))
            measured = line["steady_audio_s_per_s"]
            cards = {"cards": n_cards(line), "concurrency": line["concurrency"]}
            ratio = {"measured": measured, "simulated": simulated, "simulated_over_measured": simulated / measured}
            yield {"benchmark": "fleet", "check": "closed loop", **cards, **ratio}


def _is_closed_loop(line: dict[str, Any]) -> bool:
    usual = line.get("workload") == "dialogue" and not line.get("spread") and not line.get("uncached_references")
    precise = line.get("quantization") is None
    return line.get("benchmark") == "serving" and bool(line.get("concurrency")) and usual and precise


def _by_load(lines: Iterable[dict[str, Any]], *, stream: bool, key: str) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for line in lines:
        if line["stream"] is stream and line.get(key):
            found.setdefault(line["concurrency"], []).append(line[key])
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _line_through(points: dict[int, float]) -> tuple[float, float]:
    """Intercept and slope of the line through the first and the last point."""
    first, last = min(points), max(points)
    slope = (points[last] - points[first]) / (last - first)
    return points[first] - slope * first, slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, nargs="+", required=True, help="lines of `serving`")
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 2, 8, 64])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.7, 0.9], help="of what the cards can speak")
    parser.add_argument("--voices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of arrivals (%(default)s)")
    parser.add_argument("--warm-up", type=float, default=30.0, help="of them, that count for nothing (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="measured closed loops beside simulated ones, and no more")
    parser.add_argument("--out", type=Path, default=Path("fleet.jsonl"))
    args = parser.parse_args()
    lines = [line for path in args.lines for line in read_lines(path)]
    model = CardModel.of(lines)
    record(args.out, checks(model, lines) if args.check else fleets(model, args))


if __name__ == "__main__":
    main()
