"""A claim from its yaml to its verdict: every run that is missing, the numbers, the checks, the record."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from layerlab.build import ConfigError, locate, suggest
from layerlab.claims import grammar
from layerlab.claims.claim import FULL_SEEDS, GATE_SEEDS, LISTS, PARAMETERS, Claim, names, read, yaml_hash
from layerlab.claims.grammar import Judged
from layerlab.claims.verdict import LEAST_UNITS, Verdict, verdict
from layerlab.compose import Composed, Composer, composer, quote
from layerlab.contract import flat
from layerlab.sweep.launch import jobs_at_once, launch
from layerlab.sweep.ledger import Ledger
from layerlab.train.manifest import config_hash, machine, write_json

Size = Literal["quick", "full", "gate"]
DIVERGED = "diverged"
QUIET = 40  # runs that are over before one wants to know how far they are


def chosen(wanted: str) -> list[Claim]:
    """The claims that `name=` names: one, several with commas, all, topic=3, or a file. Raises ConfigError."""
    if wanted.startswith("topic="):
        topic = wanted.partition("=")[2]
        found = [c for c in map(read, names()) if str(c.topic) == topic]
        if not found:
            raise ConfigError(f"topic={topic}: no claim of it; topics are 0 to 8")
        return found
    return [read(name) for name in (names() if wanted == "all" else wanted.split(","))]


def resized(claim: Claim, size: Size) -> Claim:
    """The claim in a size: quick as it stands, full with seeds for publication, gate with a few for CI.

    One that counts seeds keeps its own: `count(...) >= 4` means 4 of those. The budget grows with them. A gate may name
    overrides that make it shorter; it is then of the first data set alone, and notes which checks of others it leaves
    out. Raises ConfigError for an unknown size, and for a gate that no check is left for.
    """
    if size not in get_args(Size):
        raise ConfigError(f"size={size}: expected one of {', '.join(get_args(Size))}")
    if size == "gate" and claim.shorter:
        others = {name.lower() for name in list(claim.data)[1:]}
        checks = {
            kind: tuple(c for c in found if not grammar.fixed(c.text, grammar.DATA) & others)
            for kind, found in claim.checks.items()
        }
        if not (checks["expect"] and checks["control"]):
            raise ConfigError(f"claim {claim.name}: gate: no check is left for {next(iter(claim.data))} alone")
        left = [c.text for kind, found in claim.checks.items() for c in found if c not in checks[kind]]
        notes = *claim.notes, *(f"not in the gate: {text}" for text in left)
        own = dict(list(claim.data.items())[:1])
        claim = replace(claim, data=own, last=claim.shorter, checks=checks, notes=notes)
    counts = any("count(" in check.text for listed in claim.checks.values() for check in listed)
    if claim.unit != "seed" or size == "quick" or counts:
        return claim
    seeds = max(FULL_SEEDS, claim.seeds) if size == "full" else min(GATE_SEEDS, claim.seeds)
    return replace(claim, seeds=seeds, minutes=claim.minutes * max(1, seeds / claim.seeds))


def plan(claim: Claim, compose: Composer, first: int | None = None) -> list[tuple[Composed, str]]:
    """The config of every run and the place of its record; all composed and compared before anything runs.

    first: the first seed, where it is not that of the claim. Raises ConfigError where one does not compose, or arms
    differ in more than they say.
    """
    measures, start = _measures(claim), claim.first_seed if first is None else first
    code = {name: _source(node["_target_"]) for name, node in measures.items()}
    found: list[tuple[Composed, str]] = []
    for cell in claim.cells:
        for seed in range(start, start + claim.seeds):
            overrides = ["record=light", "progress=none", *cell.overrides, f"seed={seed}"]
            try:
                one = compose([quote(o.replace("${seed}", str(seed))) for o in overrides])
            except ConfigError as e:
                raise ConfigError(*(f"claim {claim.name}, {cell.name}: {line}" for line in str(e).splitlines())) from e
            one.config["measures"], one.config["measure_only"] = measures, not claim.trains
            one.config["measured_by"] = code
            found.append((one, f"{cell.name}/{seed}.json"))
    _refuse_unlogged(claim, found[0][0].config)
    _refuse_other_differences(claim, [one.config for one, _ in found])
    return found


def _source(target: str) -> str:
    """Eight digits that stand for the code of a measure: a row that another measured is no row of this one."""
    file = Path(__file__).with_name("measures") / f"{target.rpartition('.')[2]}.py"
    return blake2b(file.read_bytes(), digest_size=4).hexdigest()


def _refuse_unlogged(claim: Claim, config: dict[str, Any]) -> None:
    """Refuse figures that a run does not log: it logs those of its task, of each split. Raises ConfigError."""
    task: Any = locate(config["task"]["_target_"])
    figures = task.figures()
    logged = [f"{split}/{name}" for split in ("train", "val", "test") for name in figures]
    logged += [f"test/{name}" for name in task.further] + ["train/loss_step"]
    for metric, source in claim.metrics.items():
        if source.measure or source.name == PARAMETERS:
            continue
        if not claim.trains:
            raise ConfigError(
                f"claim {claim.name}: measure.{metric}: {source.name}: with trains: false nothing is logged"
            )
        if source.name not in logged:
            told = suggest(source.name, logged)
            raise ConfigError(f"claim {claim.name}: measure.{metric}: {source.name}: never logged here; {told}")


def check(
    claim: Claim, size: Size = "quick", first: int | None = None, compose: Composer | None = None
) -> list[tuple[Composed, str]]:
    """The plan of a claim in a size, which runs nothing; empty where an asset is missing. Raises ConfigError.

    compose: that of other claims, which knows what they have in common.
    """
    return [] if _missing(claim) else plan(resized(claim, size), compose or composer(), first)


def _missing(claim: Claim) -> list[str]:
    """The packages that it needs and that are not installed."""
    return [asset for asset in claim.needs if find_spec(asset) is None]


def _measures(claim: Claim) -> dict[str, dict[str, Any]]:
    """The nodes of its measures. Raises ConfigError for one that there is not, or that does not give what is asked."""
    nodes = {}
    for metric, source in claim.metrics.items():
        if not (name := source.measure):
            continue
        home = f"layerlab.claims.measures.{name}"
        if find_spec(home) is None:
            there = [p.stem for p in Path(__file__).with_name("measures").glob("[!_]*.py")]
            raise ConfigError(f"claim {claim.name}: measure.{metric}: {name}: no such measure; {suggest(name, there)}")
        module = importlib.import_module(home)
        if source.name not in module.GIVES:
            told = suggest(source.name, list(module.GIVES))
            raise ConfigError(f"claim {claim.name}: measure.{metric}: {name} does not give {source.name}; {told}")
        if source.inner != (given := module.GIVES[source.name]):
            form = f"{name}.{source.name}" + (f"({', '.join(given)})" if given else "")
            raise ConfigError(f"claim {claim.name}: measure.{metric}: expected {form}")
        takes = inspect.signature(getattr(module, name)).parameters
        nodes[name] = {"_target_": f"{home}.{name}", **{a: list(v) for a, v in claim.within.items() if a in takes}}
    return nodes


def _refuse_other_differences(claim: Claim, configs: Sequence[dict[str, Any]]) -> None:
    """Runs may differ in what their axes set, and in the seed. Raises ConfigError naming any other key."""
    axes = [o for own in (*claim.arms.values(), *claim.data.values()) for o in own]
    axes += [f"{key}=" for key, _ in claim.grid.values()] + ["seed="] + (["data=", "task="] if claim.data else [])
    axes += [o for o in claim.base if "${seed}" in o]
    said = {o.partition("=")[0] for o in axes}
    first = dict(flat(configs[0]))
    for other in configs[1:]:
        own = dict(flat(other))
        differing = (k for k in first.keys() | own.keys() if first.get(k) != own.get(k))
        hidden = sorted(k for k in differing if not any(k == s or k.startswith(f"{s}.") for s in said))
        if hidden:
            raise ConfigError(
                f"claim {claim.name}: {hidden[0]} is {first.get(hidden[0])} in one run and {own.get(hidden[0])} in "
                f"another, but no arm says so; set it in base, or name it in every arm"
            )


# --- running and judging


def run(
    claim: Claim,
    logs: Path,
    size: Size = "quick",
    first: int | None = None,
    say: Callable[[str], None] = print,
    planned: list[tuple[Composed, str]] | None = None,
    known: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Run what is missing, judge, and leave `logs/<name>/<size>.json`; the record. Raises ConfigError.

    planned: what `check` gave for it. known: the rows of claims before it by the hash of their configs, whose runs are
    not repeated; those of this one are added.
    """
    planned = check(claim, size, first) if planned is None else planned
    claim, missing = resized(claim, size), _missing(claim)
    known = {} if known is None else known
    place = logs / claim.name
    places = [place / p for _, p in planned]
    hashes = [config_hash(c.config) for c, _ in planned]
    rows = [read_row(file) for file in places]
    left = []
    for i, (file, digest) in enumerate(zip(places, hashes, strict=True)):
        if not _stands(rows[i], digest) and digest in known:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, known[digest])
            rows[i] = known[digest]
        elif not _stands(rows[i], digest):
            left.append(i)
    if left:
        _launch(claim, [planned[i] for i in left], place, say)
    for i in left:
        rows[i] = read_row(places[i])
    known |= {digest: row for row, digest in zip(rows, hashes, strict=True) if _stands(row, digest)}
    record = judged(claim, rows, f"needs {missing[0]}" if missing else "")
    record |= {
        "size": size,
        "first_seed": claim.first_seed if first is None else first,
        "yaml": yaml_hash(claim.name),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **machine(),
    }
    place.mkdir(parents=True, exist_ok=True)
    name = size if first in (None, claim.first_seed) else f"{size}-{first}"
    write_json(place / f"{name}.json", record)
    return record


def _launch(claim: Claim, planned: list[tuple[Composed, str]], place: Path, say: Callable[[str], None]) -> None:
    """These runs, as jobs of a sweep in the folder of the claim."""
    configs, places = [c for c, _ in planned], [p for _, p in planned]
    ledger = Ledger(place, [f"claim={claim.name}"])
    try:
        at_once = jobs_at_once("auto", configs[0].config)
        labels = [p.removesuffix(".json").split("/") for p in places]
        launch(configs, labels, ledger, at_once, say=_sparingly(claim.name, say), places=places, forecast=False)
    finally:
        ledger.close()


def _stands(row: dict[str, Any], digest: str) -> bool:
    """Whether a row is the outcome of the run of this config; to have diverged is one."""
    return row.get("config_hash") == digest and (row["status"] == "ok" or row.get("reason") == DIVERGED)


def _sparingly(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    """Of what a sweep tells of each job, the failures, and four times how far it is."""

    def tell(line: str) -> None:
        done, _, total = line.partition("  ")[0].partition("/")
        if ": failed" in line:
            say(line)
        elif done.isdigit() and total.isdigit() and int(done) % max(int(total) // 4, 1) == 0 and int(total) > QUIET:
            say(f"{name}  {done} of {total} runs{line[line.rfind('   ') :] if line.endswith(' left') else ''}")

    return tell


def read_row(file: Path) -> dict[str, Any]:
    """The record of one run; {} where it left none."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def judged(claim: Claim, rows: Sequence[dict[str, Any]], missing: str = "") -> dict[str, Any]:
    """The verdict and all that it follows from, of rows in the order of cells and seeds.

    missing: why nothing could be run.
    """
    values = {m: _gathered(claim, m, rows) for m in claim.metrics} if rows else {}
    cpu_s = sum(row.get("cpu_seconds", {}).get("total", 0.0) for row in rows)
    failed = [r for r in rows if r.get("status") != "ok" and r.get("reason") != DIVERGED]
    absent = _absent(claim, values) if rows and not failed else []
    checks: dict[str, list[tuple[Any, list[Judged]]]] = {kind: [] for kind in LISTS}
    why = missing
    if values and not failed:
        scored = [row["scored"] for row in rows if "scored" in row]
        table = claim.table(values, min(scored, default=None))
        checks = {k: [(c, grammar.judge(c.text, table)) for c in claim.checks[k]] for k in LISTS}
    answers = {kind: [j.answer for _, found in checks[kind] for j in found] for kind in LISTS}
    if failed:
        why = f"{len(failed)} of {len(rows)} runs failed: {failed[0].get('error') or 'left no record'}"
    elif absent:
        why = f"no value of {absent[0]}"
    elif rows and len(claim.units) < LEAST_UNITS:
        why = f"{len(claim.units)} {claim.unit}s: needs {LEAST_UNITS}"
    elif cpu_s > claim.minutes * 60:
        why = f"took {cpu_s / 60:.1f} CPU minutes, the budget is {claim.minutes:g}"
    decided: Verdict = "not decided" if why else verdict(answers["expect"], answers["control"], answers["limits"])
    if decided == "not decided" and not why:
        why = _undecided(checks)
    return {
        "name": claim.name,
        "says": claim.says,
        "topic": claim.topic,
        "verdict": decided,
        "why": why,
        "scope": scope(claim),
        "checks": {k: [_told(c, found) for c, found in listed] for k, listed in checks.items()},
        "notes": list(claim.notes),
        "changed": list(claim.changed),
        "concludes": claim.concludes,
        "literature": claim.literature,
        "plot": claim.plot,
        "experiment": claim.experiment,
        "axes": {k: list(map(str, v)) for k, v in (claim.axes | {claim.unit: claim.units}).items()},
        "dims": {m: list(claim.dims(m)) for m in values},
        "values": {m: _plain(v) for m, v in values.items()},
        "runs": len(rows),
        "cpu_seconds": round(cpu_s, 1),
        "command": f"layerlab claim name={claim.name}",
    }


def _absent(claim: Claim, values: dict[str, np.ndarray]) -> list[str]:
    """Metrics that no run has, with what they are called there."""
    nowhere = [m for m, v in values.items() if np.isnan(v).all()]
    return [f"{m} ({claim.metrics[m].key(dict.fromkeys(claim.metrics[m].inner, '...'))})" for m in nowhere]


def _undecided(checks: dict[str, list[tuple[Any, list[Judged]]]]) -> str:
    opened = [
        c.text for kind in ("expect", "control") for c, found in checks[kind] for j in found if j.answer == "open"
    ]
    return f"open: {opened[0]}" if opened else "the control failed: the setup could not have shown it"


def _told(check: Any, found: list[Judged]) -> dict[str, Any]:
    return {"check": check.text, "then": check.then, "found": [_finite(asdict(j)) for j in found]}


def _finite(node: Any) -> Any:
    """The same with what is no finite number as text: JSON knows none."""
    if isinstance(node, dict):
        return {k: _finite(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(v) for v in node]
    return str(node) if isinstance(node, float) and not np.isfinite(node) else node


def _plain(array: np.ndarray) -> Any:
    """Nested lists; what is no number as text, for JSON knows none."""
    return [_plain(a) for a in array] if array.ndim else (float(array) if np.isfinite(array) else str(float(array)))


def scope(claim: Claim) -> str:
    """What a verdict speaks of: data, model, units."""
    said = dict(o.split("=", 1) for o in claim.base if "=" in o)
    data = " and ".join(claim.data) or said.get("data", "")
    models = {o.partition("=")[2] for own in claim.arms.values() for o in own if o.startswith("model=")}
    model = said.get("model") or ", ".join(sorted(models))
    width = f", width {said['model.width']}" if "model.width" in said else ""
    unit = "" if claim.unit == "seed" else f" {claim.unit}"
    return f"{claim.scope or f'on {data}, {model}{width}'}, n={len(claim.units)}{unit}"


def _gathered(claim: Claim, metric: str, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """The values of a metric, by cell, by the axes that its measure gives, and by unit."""
    source = claim.metrics[metric]
    found = np.full(claim.shape(metric), np.nan)
    dims, axes = claim.dims(metric), claim.axes | {claim.unit: claim.units}
    inner = [[(a, i, v) for i, v in enumerate(axes[a])] for a in source.inner]
    for i, (cell, seed) in enumerate(itertools.product(claim.cells, range(claim.seeds))):
        at = {"seed": seed} | {a: list(map(str, axes[a])).index(v) for a, v in cell.labels.items()}
        for places in itertools.product(*inner):
            own = at | {a: n for a, n, _ in places}
            value = _value(rows[i], source, {a: v for a, _, v in places})
            found[tuple(own[d] for d in dims)] = value
    return found


def _value(row: dict[str, Any], source: Any, inner: dict[str, Any]) -> float:
    logged = [r[source.name] for r in row.get("history", []) if source.name in r]
    if source.at == "first" and logged:
        return logged[0]
    if row.get("reason") == DIVERGED:  # an outcome, not a missing value
        return np.inf if source.name.endswith("loss") or source.name.endswith("nll") else np.nan
    if source.name == PARAMETERS:
        return row.get(PARAMETERS, np.nan)
    if source.at:
        return logged[-1] if logged else np.nan
    return row.get("metrics", {}).get(source.key(inner), np.nan)


def text(record: dict[str, Any]) -> str:
    """A verdict for a terminal: the sentence, its scope, each check with effect and interval, then the word."""
    lines = [f"{record['name']}  {record['says']}"]
    for kind, listed in record["checks"].items():
        for check in listed:
            for found in check["found"]:
                data = f" [{found['data']}]" if found["data"] else ""
                told = "; ".join(dict.fromkeys(map(effect, found["links"])))
                lines.append(f"  {kind:8} {found['answer']:5} {check['check']}{data}   {told}")
            if check["then"] and any(f["answer"] == "yes" for f in check["found"]):
                lines.append(f"                 {check['then']}")
    why = f" ({record['why']})" if record["why"] else ""
    lines.append(
        f"  {record['scope']} | {record['runs']} runs, {record['cpu_seconds']} CPU s | {record['verdict']}{why}"
    )
    return "\n".join(lines)


def effect(link: dict[str, Any]) -> str:
    """The side that is compared with a number, else the difference of both, with its interval."""
    left, right = ({k: float(v) for k, v in link[side].items()} for side in ("left", "right"))
    constant = [side["low"] == side["high"] and side["n"] == 0 for side in (left, right)]
    side = left if constant[1] else right if constant[0] else {k: float(v) for k, v in link["difference"].items()}
    return f"{side['mean']:.3g}" + ("" if side["low"] == side["high"] else f" [{side['low']:.3g}, {side['high']:.3g}]")
