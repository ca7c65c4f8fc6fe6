"""Which variant a listener gets: the assignment of Refrain, in one file without dependencies.

    from refrain_assignment import Experiments
    experiments = Experiments.load("refrain.toml")
    experiments.assign("home", "alice", {"country": "SE"}).variant

The same configuration (and journal, if it names one) gives the same unit the same variant as the
server does, with no network and no state. Python 3.11 or newer. The golden vectors in
``clients/golden`` hold both implementations to it.

It assumes a configuration that ``refrain experiment check`` accepts: it assigns, it does not lint.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

MASK = (1 << 64) - 1
GRID = 1_000_000
BASIS_POINTS = 10_000
C1, C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def _rotl(x: int, r: int) -> int:
    return ((x << r) | (x >> (64 - r))) & MASK


def _avalanche(k: int) -> int:
    k = (k ^ (k >> 33)) * 0xFF51AFD7ED558CCD & MASK
    k = (k ^ (k >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
    return k ^ (k >> 33)


def hash64(key: str | bytes) -> int:
    """Low 64 bits of MurmurHash3 x64-128 (Appleby 2011), seed 0, over UTF-8."""
    data = key.encode() if isinstance(key, str) else key
    h1 = h2 = 0
    whole = len(data) // 16 * 16
    for at in range(0, whole, 16):
        k1 = int.from_bytes(data[at : at + 8], "little")
        k2 = int.from_bytes(data[at + 8 : at + 16], "little")
        h1 ^= _rotl(k1 * C1 & MASK, 31) * C2 & MASK
        h1 = (_rotl(h1, 27) + h2) * 5 + 0x52DCE729 & MASK
        h2 ^= _rotl(k2 * C2 & MASK, 33) * C1 & MASK
        h2 = (_rotl(h2, 31) + h1) * 5 + 0x38495AB5 & MASK
    tail = data[whole:].ljust(16, b"\0")
    k1, k2 = int.from_bytes(tail[:8], "little"), int.from_bytes(tail[8:], "little")
    h1 ^= _rotl(k1 * C1 & MASK, 31) * C2 & MASK
    h2 ^= _rotl(k2 * C2 & MASK, 33) * C1 & MASK
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = h1 + h2 & MASK
    h2 = h2 + h1 & MASK
    h1, h2 = _avalanche(h1), _avalanche(h2)
    return h1 + h2 & MASK


def bucket(h: int, buckets: int) -> int:
    """Multiply-shift: keeps the order of hashes, so finer buckets never move a unit."""
    return h * buckets >> 64


def shuffled(seed: str) -> list[int]:
    """All basis points of a layer in the order that a seed draws (Fisher-Yates from the front)."""
    order = list(range(BASIS_POINTS))
    for i in range(BASIS_POINTS):
        pick = i + bucket(hash64(f"D:{seed}|{i}"), BASIS_POINTS - i)
        order[i], order[pick] = order[pick], order[i]
    return order


@dataclass(frozen=True)
class Assignment:
    """What a unit got, and why: SPLIT, DEFAULT, FORCED, HOLDOUT, TARGETING, PAUSED or EXTERNAL."""

    layer: str
    bucket: int
    reason: str
    variant: str
    experiment: str | None = None
    epoch: int = 0
    arm: str | None = None
    grid: int = 0
    contenders: tuple[str, str] | None = None
    holdout: str | None = None


class Experiments:
    """A configuration, ready to assign."""

    def __init__(self, config: dict, journal: str | None = None, admitted: dict[str, set[str]] | None = None):
        """``admitted``: the units of each experiment whose intake is closed (``admitted = "FILE"``)."""
        self._layers = config.get("layer", {})
        self._surfaces = config.get("surface", {})
        self._experiments = config.get("experiment", {})
        self._holdouts = config.get("holdout", {})
        self._enabled = config.get("assignment", {}).get("enabled", True)
        kinds = {name: a["type"] for name, a in config.get("attribute", {}).items()}
        self._targeting = {
            name: _Condition(e["targeting"], kinds)
            for name, e in self._experiments.items()
            if "targeting" in e
        }
        self._forced = {
            (e["layer"], f["unit"]): (name, f["arm"])
            for name, e in self._experiments.items()
            for f in e.get("force", [])
        }
        self._admitted = admitted or {}
        for name, e in self._experiments.items():
            if "admitted" in e and name not in self._admitted:
                raise ValueError(f"experiment.{name}.admitted: {e['admitted']!r} was not read")
        self._owners = self._draw() if journal is None else self._replay(journal)

    @classmethod
    def load(cls, path: str | Path) -> Experiments:
        """Reads a configuration, and the journal and the lists of units that it names."""
        path = Path(path)
        config = tomllib.loads(path.read_text(encoding="utf-8"))
        name = config.get("assignment", {}).get("journal")
        admitted = {
            name: _units(path.parent / e["admitted"])
            for name, e in config.get("experiment", {}).items()
            if "admitted" in e
        }
        if name is None:
            return cls(config, admitted=admitted)
        journal = path.parent / name
        return cls(config, journal.read_text(encoding="utf-8") if journal.exists() else "", admitted)

    def assign(
        self,
        surface: str,
        unit: str,
        attributes: dict[str, str] | None = None,
        arms: dict[str, str] | None = None,
    ) -> Assignment:
        """What ``unit`` gets on ``surface``; one that is not declared is answered as ``default``.

        ``arms`` are those that another system gave it, by experiment, for ``assigner = "external"``.
        Of a surface with several layers it is the first one's: see ``assign_layers``."""
        return self.assign_layers(surface, unit, attributes, arms)[0]

    def assign_layers(
        self,
        surface: str,
        unit: str,
        attributes: dict[str, str] | None = None,
        arms: dict[str, str] | None = None,
    ) -> list[Assignment]:
        """What ``unit`` gets in each layer of ``surface``. The arms of those after the first name no variant:
        they set parameters of the one that the first says."""
        place = self._surfaces.get(surface, self._surfaces["default"])
        return [self._decide(layer, place, unit, attributes or {}, arms or {}) for layer in _layers(place)]

    def _decide(self, layer, place, unit, attributes, arms) -> Assignment:
        at = bucket(hash64(f"L:{layer}:{self._layers[layer]['epoch']}|{unit}"), GRID)

        def default(reason: str, variant: str = place["variant"], held: str | None = None) -> Assignment:
            return Assignment(layer, at, reason, variant, holdout=held)

        if not self._enabled:
            return default("PAUSED")
        if (layer, unit) in self._forced:
            name, arm = self._forced[layer, unit]
            return self._give(name, arm, 0, layer, at, "FORCED", None, place["variant"])
        held = self.holdout(unit)
        if held == "held":
            return default("HOLDOUT", place.get("holdout_variant", place["variant"]), held)
        name = self._owners.get(layer, {}).get(at // (GRID // BASIS_POINTS))
        if name is None:
            return default("DEFAULT", held=held)
        experiment = self._experiments[name]
        if experiment.get("paused", False) or unit not in self._admitted.get(name, (unit,)):
            return default("PAUSED", held=held)
        if name in self._targeting and not self._targeting[name].holds(attributes):
            return default("TARGETING", held=held)
        if experiment.get("assigner", "hash") == "external":
            if arms.get(name) not in [arm["name"] for arm in experiment["arm"]]:
                return default("DEFAULT", held=held)
            return self._give(name, arms[name], 0, layer, at, "EXTERNAL", held, place["variant"])
        grid = bucket(hash64(f"E:{name}:{experiment['epoch']}|{unit}"), GRID)
        for arm, end in self._ends(experiment):
            if grid < end:
                return self._give(name, arm, grid, layer, at, "SPLIT", held, place["variant"])
        raise AssertionError("the last arm ends at the end of the grid")

    def shadows(self, surface: str, unit: str, attributes: dict[str, str] | None = None) -> list[tuple[str, str]]:
        """(experiment, arm) that are computed in the dark for the unit."""
        layers = _layers(self._surfaces.get(surface, self._surfaces["default"]))
        if not self._enabled or self.holdout(unit) == "held":
            return []
        found = []
        for name, e in self._experiments.items():
            grid = bucket(hash64(f"E:{name}:{e['epoch']}|{unit}"), GRID)
            if (
                e["kind"] == "shadow"
                and e["layer"] in layers
                and not e.get("paused", False)
                and grid < e["allocation_bp"] * (GRID // BASIS_POINTS)
                and (name not in self._targeting or self._targeting[name].holds(attributes or {}))
            ):
                found += [(name, arm["name"]) for arm in e["arm"]]
        return found

    def holdout(self, unit: str) -> str | None:
        """``held``, ``slice`` (as large, to compare with) or None."""
        group = None
        for name, h in sorted(self._holdouts.items()):
            at = bucket(hash64(f"H:{name}:{h['epoch']}|{unit}"), GRID)
            end = h["share_bp"] * (GRID // BASIS_POINTS)
            if at < end:
                return "held"
            if at < 2 * end:
                group = "slice"
        return group

    def _give(self, name, arm, grid, layer, at, reason, held, without) -> Assignment:
        experiment = self._experiments[name]
        # An arm that names none leaves the variant that its units would get anyway.
        variants = {a["name"]: a.get("variant", without) for a in experiment["arm"]}
        contenders = None
        variant = variants[arm]
        if experiment["kind"] == "interleave":
            contenders = tuple(variants.values())
            arm, variant = "interleaved", contenders[0]
        return Assignment(
            layer, at, reason, variant, name, experiment["epoch"], arm, grid, contenders, held
        )

    @staticmethod
    def _ends(experiment: dict) -> list[tuple[str, int]]:
        arms = experiment["arm"]
        total, running, ends = 0.0, 0.0, []
        for arm in arms:
            total += float(arm.get("weight", 1.0))
        for arm in arms:
            running += float(arm.get("weight", 1.0))
            # Halves go up, as in the server; Python's round() sends them to even.
            end = Decimal(running / total * GRID).quantize(Decimal(1), rounding=ROUND_HALF_UP)
            ends.append(min(int(end), GRID))
        ends[-1] = GRID
        return list(zip((arm["name"] for arm in arms), ends))

    def _draw(self) -> dict[str, dict[int, str]]:
        """Without a journal, experiments draw in the order of the file."""
        owners: dict[str, dict[int, str]] = {}
        for name, e in self._experiments.items():
            if e["kind"] == "shadow":
                continue
            layer = e["layer"]
            owned = owners.setdefault(layer, {})
            left = e["allocation_bp"]
            for point in shuffled(f"{layer}:{self._layers[layer]['epoch']}:{name}"):
                if left == 0:
                    break
                if point not in owned:
                    owned[point] = name
                    left -= 1
        return owners

    def _replay(self, journal: str) -> dict[str, dict[int, str]]:
        """With one, its lines say what each experiment holds. Every digest is checked."""
        drawn: dict[str, list[int]] = {}
        layer_of: dict[str, tuple[str, int]] = {}
        epochs: dict[str, int] = {}
        cooling: dict[str, dict[int, datetime]] = {}
        prev = "0" * 64

        def draw(layer: str, count: int, seed: str, now: datetime) -> list[int]:
            taken = {p for name, held in drawn.items() if layer_of[name][0] == layer for p in held}
            taken |= {p for p, until in cooling.get(layer, {}).items() if until > now}
            return [p for p in shuffled(seed) if p not in taken][:count]

        for number, line in enumerate(journal[: journal.rfind("\n") + 1].splitlines(), 1):
            body, _, digest = line.rpartition(',"digest":"')
            body += "}"
            entry = json.loads(body)
            if hashlib.sha256(body.encode()).hexdigest() != digest[:-2] or entry["prev"] != prev:
                raise ValueError(f"line {number} of the journal was changed")
            prev = digest[:-2]
            now = _instant(entry["time"])
            name, action = entry["experiment"], entry["action"]
            if action == "allocate":
                layer = entry["layer"]
                if epochs.get(layer) != entry["layer_epoch"]:
                    epochs[layer], cooling[layer] = entry["layer_epoch"], {}
                layer_of[name] = (layer, entry["layer_epoch"])
                drawn[name] = draw(layer, entry["bp"], entry["seed"], now)
            elif action in ("ramp", "step_back"):
                more = max(0, entry["to_bp"] - len(drawn[name]))
                if more:
                    drawn[name] += draw(layer_of[name][0], more, entry["seed"], now)
                del drawn[name][entry["to_bp"] :]
            elif action == "stop":
                gone = drawn.pop(name)
                layer, _ = layer_of.pop(name)
                if entry.get("cooldown_until"):
                    until = _instant(entry["cooldown_until"])
                    cooling.setdefault(layer, {}).update(dict.fromkeys(gone, until))
        owners: dict[str, dict[int, str]] = {}
        for name, points in drawn.items():
            if name in self._experiments:
                owners.setdefault(layer_of[name][0], {}).update(dict.fromkeys(points, name))
        return owners


def _units(path: Path) -> set[str]:
    """One unit a line; empty lines are passed over."""
    lines = path.read_bytes().decode("utf-8").split("\n")
    return {line.removesuffix("\r") for line in lines} - {""}


def _layers(surface: dict) -> list[str]:
    layers = surface["layer"]
    return [layers] if isinstance(layers, str) else layers


def _instant(text: str) -> datetime:
    # Nanoseconds are more than datetime holds.
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(text).astimezone(timezone.utc)


class _Condition:
    """``country in ["SE","DE"] && app_version >= "9.1"``, in three-valued logic."""

    _TOKEN = re.compile(r'\s*(&&|\|\||==|!=|<=|>=|[<>!()\[\],]|"[^"]*"|[A-Za-z0-9_+\-.]+)')

    def __init__(self, text: str, kinds: dict[str, str]):
        self._tokens = [m.group(1) for m in self._TOKEN.finditer(text)]
        self._kinds = kinds
        self._at = 0
        self._root = self._or()
        if self._at != len(self._tokens):
            raise ValueError(f"cannot read the condition {text!r}")

    def holds(self, attributes: dict[str, str]) -> bool:
        return self._root(attributes) is True

    def _take(self, *wanted: str) -> str | None:
        if self._at < len(self._tokens) and self._tokens[self._at] in wanted:
            self._at += 1
            return self._tokens[self._at - 1]
        return None

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _many(self, part, sign: str, decisive: bool):
        parts = [part()]
        while self._take(sign):
            parts.append(part())

        def evaluate(a):
            values = [p(a) for p in parts]
            if decisive in values:
                return decisive
            return None if None in values else not decisive

        return evaluate

    def _or(self):
        return self._many(self._and, "||", True)

    def _and(self):
        return self._many(self._unary, "&&", False)

    def _unary(self):
        if self._take("!"):
            inner = self._unary()
            return lambda a: None if inner(a) is None else not inner(a)
        if self._take("("):
            inner = self._or()
            self._next()
            return inner
        name = self._next()
        kind = self._kinds[name]
        if sign := self._take("==", "!=", "<=", ">=", "<", ">"):
            value = self._next().strip('"')
            test = {
                "==": lambda c: c == 0,
                "!=": lambda c: c != 0,
                "<=": lambda c: c <= 0,
                ">=": lambda c: c >= 0,
                "<": lambda c: c < 0,
                ">": lambda c: c > 0,
            }[sign]

            def compare(a):
                order = _order(kind, a.get(name), value)
                return None if order is None else test(order)

            return compare
        wanted = self._next() != "not" or self._next() != "in"
        self._next()
        values = [self._next().strip('"')]
        while self._take(","):
            values.append(self._next().strip('"'))
        self._next()

        def among(a):
            orders = [_order(kind, a.get(name), value) for value in values]
            return None if None in orders else (0 in orders) == wanted

        return among


def _order(kind: str, given: str | None, value: str) -> int | None:
    if given is None:
        return None
    try:
        if kind == "string":
            a, b = given.encode(), value.encode()
        elif kind == "number":
            a, b = float(given), float(value)
        else:
            a = [int(part) for part in given.strip().split(".")]
            b = [int(part) for part in value.split(".")]
            longest = max(len(a), len(b))
            a += [0] * (longest - len(a))
            b += [0] * (longest - len(b))
    except ValueError:
        return None
    return (a > b) - (a < b)
