"""How often a verdict is the same when the seeds are fresh: 10 sets for the claims that are gates, 3 for the others.

    python benchmarks/repeat.py [claim ...] [--gates] [--logs logs/repeats]

A row of benchmarks/results/repeats.csv for each claim and set; a set that is there is skipped, so a cut run goes on,
and a claim whose yaml has changed begins anew. `python benchmarks/claims.py --repeats` writes the table of
docs/claims.md.
"""

import argparse
import csv
from pathlib import Path

from layerlab.claims import run as claims
from layerlab.claims.claim import names, read, yaml_hash
from layerlab.compose import composer

TABLE = Path(__file__).parent / "results" / "repeats.csv"
COLUMNS = ("claim", "yaml", "first_seed", "verdict", "why", "cpu_s")
GATES, OTHERS = 10, 3
APART = 1000  # first seeds of the sets: 1000, 2000, ...


def rows() -> list[dict[str, str]]:
    """What is there."""
    if not TABLE.is_file():
        return []
    with TABLE.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def write(found: list[dict[str, str]]) -> None:
    """The table, whole or not at all."""
    part = TABLE.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(found, key=lambda r: (r["claim"], int(r["first_seed"]))))
    part.replace(TABLE)


def main() -> None:
    """Run the sets that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*")
    parser.add_argument("--gates", action="store_true", help="those that are gates alone")
    parser.add_argument("--logs", type=Path, default=Path("logs", "repeats"))
    options = parser.parse_args()
    shared, known = composer(), {}  # relu_dying and leaky_cures have runs in common
    for name in options.claims or names():
        claim = read(name)
        if options.gates and not claim.gate:
            continue
        for i in range(1, (GATES if claim.gate else OTHERS) + 1):
            first = str(i * APART)
            here = [r for r in rows() if r["claim"] == name]
            if any(r["first_seed"] == first and r["yaml"] == yaml_hash(name) for r in here):
                continue
            planned = claims.check(claim, "quick", int(first), shared)
            how = {"first": int(first), "say": lambda line: None, "planned": planned, "known": known}
            record = claims.run(claim, options.logs, **how)
            kept = [r for r in rows() if (r["claim"], r["first_seed"]) != (name, first)]
            facts = (name, yaml_hash(name), first, record["verdict"], record["why"], f"{record['cpu_seconds']:.0f}")
            write([*kept, dict(zip(COLUMNS, facts, strict=True))])
            print(f"{name}  seeds from {first}  {record['verdict']}  {record['why']}", flush=True)


if __name__ == "__main__":
    main()
