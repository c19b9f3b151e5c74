"""CPU seconds of `layerlab report` over many runs, made up as files, and of a sweep of as many jobs.

python benchmarks/report.py [--runs 500]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def made_up(place: Path, runs: int) -> None:
    """Folders as runs and a sweep leave them."""
    jobs = []
    for i in range(runs):
        folder = place / "logs" / "mlp-digits" / f"2026-01-01-{i:08x}"
        folder.mkdir(parents=True)
        metrics = {"test/acc": 0.9 + i % 7 / 100, "val/acc": 0.9}
        (folder / "manifest.json").write_text(json.dumps({"started": f"2026-01-01T00:{i % 60:02d}:00"}))
        (folder / "status.json").write_text(json.dumps({"status": "ok"}))
        (folder / "results.json").write_text(json.dumps({"metrics": metrics, "monitor": "val/acc"}))
        job = {"number": i, "overrides": [f"model.width={i // 5}", f"seed={i % 5}"], "status": "ok", "metrics": metrics}
        jobs.append(job | {"seconds": 1.0, "error": None})
    settings = [
        {
            "name": f"model.width={w}",
            "overrides": [f"model.width={w}"],
            "values": {f"seed={s}": 0.9 + s / 100 for s in range(5)},
            "mean": 0.92,
            "half_width_95": 0.02,
            "bootstrap_95": [0.91, 0.93],
            "parameters": 1000,
            "cpu_s": 1.0,
        }
        for w in range(runs // 5)
    ]
    facts = {"figure": "test/acc", "settings": settings, "comparisons": [], "control": "", "best": "model.width=1"}
    sweep = place / "logs" / "sweeps" / "widths"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"common": ["model=mlp"], "jobs": jobs}))
    (sweep / "statistics.json").write_text(json.dumps(facts | {"not_distinguishable_from_the_best": []}))


def cost(place: Path, *arguments: str) -> float:
    """CPU seconds of the command, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "layerlab.cli", "report", *arguments], check=True, cwd=place)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the CPU seconds of both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made_up(Path(folder), options.runs)
        for name, arguments in (("all of logs", ()), ("a sweep", ("run=logs/sweeps/widths",))):
            print(f"{options.runs} runs, {name}: {cost(Path(folder), *arguments):.1f} CPU s")


if __name__ == "__main__":
    main()
