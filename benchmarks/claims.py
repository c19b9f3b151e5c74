"""Write the verdicts and the stability of verdicts into docs/claims.md.

layerlab claim name=all && python benchmarks/claims.py [--logs logs]      verdicts of logs/claim/*/quick.json
python benchmarks/claims.py --stability                                   of benchmarks/results/stability.csv
python benchmarks/claims.py --repeats                                     of benchmarks/results/repeats.csv
python benchmarks/claims.py --statements                                  what each statement of the text has
python benchmarks/claims.py --changes                                     which thresholds were others before, and why
"""

import argparse
import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from layerlab.claims.claim import names, read, statements, yaml_hash
from layerlab.claims.run import effect

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "claims.md"


def between(text: str, name: str, inner: str) -> str:
    """The page with what stands between two marks replaced."""
    begin, end = f"<!-- {name}: written by benchmarks/claims.py -->", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{inner}\n\n{end}{rest.split(end)[1]}"


def verdicts(logs: Path) -> str:
    """A row for each claim: the sentence, every check with its effect, the verdict, the cost."""
    found = [json.loads(f.read_text("utf-8")) for f in sorted((logs / "claim").glob("*/quick.json"))]
    found = [r for r in found if r["yaml"] == yaml_hash(r["name"])]  # else the claim has changed since
    if not found:
        raise SystemExit(f"{logs}: no record of a claim as it stands; run layerlab claim name=all first")
    found.sort(key=lambda r: (r["topic"], r["name"]))
    lines = ["| claim | the text says | measured | verdict | CPU s |", "|---|---|---|---|---|"]
    for r in found:
        measured = "<br>".join(_checks(r, kind) for kind in ("expect", "control", "limits") if r["checks"][kind])
        word = f"**{r['verdict']}**" + (f"<br>{r['why']}" if r["why"] else "")
        lines.append(f"| `{r['name']}` | {r['says']} | {r['scope']}<br>{measured} | {word} | {r['cpu_seconds']:.0f} |")
    machine = found[0]
    versions = machine["versions"]
    told = (
        f"{len(found)} claims, {sum(r['runs'] for r in found)} runs, {sum(r['cpu_seconds'] for r in found):.0f} CPU s; "
    )
    told += f"{machine['cpu_count']} cores, torch {versions['torch']}, Python {machine['python']}."
    return "\n".join([*lines, "", told])


def _checks(record: dict[str, Any], kind: str) -> str:
    told = []
    for check in record["checks"][kind]:
        for found in check["found"]:
            data = f" on {found['data']}" if found["data"] else ""
            told.append(
                f"{found['answer']}: `{check['check']}`{data} {'; '.join(dict.fromkeys(map(effect, found['links'])))}"
            )
    return f"{kind} " + "; ".join(told)


def results(name: str) -> list[dict[str, str]]:
    """A table of benchmarks/results."""
    with (ROOT / "benchmarks" / "results" / f"{name}.csv").open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def repeats() -> str:
    """A row for each claim: the verdicts of its sets of fresh seeds."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in results("repeats"):
        if row["yaml"] == yaml_hash(row["claim"]):  # else the claim has changed since
            groups[row["claim"]].append(row)
    lines = ["| claim | verdicts with fresh seeds | the same in | CPU s a set |", "|---|---|---|---|"]
    for claim, sets in groups.items():
        counts = Counter(r["verdict"] for r in sets).most_common()
        told = ", ".join(f"{n} {word}" for word, n in counts)
        cost = sum(float(r["cpu_s"]) for r in sets) / len(sets)
        lines.append(f"| `{claim}` | {told} | {counts[0][1]} of {len(sets)} | {cost:.0f} |")
    return "\n".join(lines)


def stability() -> str:
    """A row for each claim and data set: how often each verdict came out, over fresh seed sets."""
    rows = results("stability")
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["claim"], row["data"]].append(row)
    lines = ["| claim | data | seeds a set | verdicts of the sets | the same in |", "|---|---|---|---|---|"]
    for (claim, data), sets in groups.items():
        counts = Counter(r["verdict"] for r in sets).most_common()
        told = ", ".join(f"{n} {word}" for word, n in counts)
        lines.append(f"| {claim} | {data} | {sets[0]['n']} | {told} | {counts[0][1]} of {len(sets)} |")
    return "\n".join(lines)


def table_of_statements() -> str:
    """A row for each statement: its line, its words, and its claim, its test, or why it has none."""
    lines = ["| line | the text says | claim, test, or opinion |", "|---|---|---|"]
    for s in statements():
        kind = next(k for k in ("claim", "test", "opinion") if k in s)
        what = {"claim": "claim `{}`", "test": "test `tests/{}`", "opinion": "{}"}[kind].format(s[kind])
        lines.append(f"| {s['line']} | {s['says']} | {what} |")
    counts = Counter(next(k for k in ("claim", "test", "opinion") if k in s) for s in statements())
    told = ", ".join(f"{n} {kind}s" for kind, n in counts.items())
    return "\n".join([*lines, "", f"{sum(counts.values())} statements: {told}."])


def changes() -> str:
    """What the thresholds and settings of claims were before, and why they are not."""
    lines = ["| claim | what was changed, and why |", "|---|---|"]
    lines += [f"| `{c.name}` | {'<br>'.join(c.changed)} |" for c in map(read, names()) if c.changed]
    return "\n".join(lines)


TABLES = {"stability": stability, "repeats": repeats, "statements": table_of_statements, "changes": changes}


def main() -> None:
    """Rewrite what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, default=ROOT / "logs")
    for name in TABLES:
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    asked = [name for name in TABLES if getattr(options, name)]
    tables = {name: TABLES[name]() for name in asked} or {"verdicts": verdicts(options.logs)}
    text = PAGE.read_text("utf-8")
    for name, inner in tables.items():
        text = between(text, name, inner)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
