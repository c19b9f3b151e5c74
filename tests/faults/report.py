"""Run every test that is for a row of the fault table, and write the table into docs/reliability.md.

python -m tests.faults.report            make test-faults: the long ones too, up to 20 minutes on two cores
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- rows: written by python -m tests.faults.report -->", "<!-- end of rows -->"
ROWS = {
    1: "crash in mid-epoch",
    2: "crash on the last batch; fewer steps than planned",
    3: "resume with other num_workers: there are no workers, the option is refused",
    4: "resume with augmentation and dropout",
    5: "resume with weight averaging: EMA exact, SWA refused",
    6: "epoch figures across a resume",
    7: "resume with another seed, batch size, data or config",
    8: "resume with another number of devices",
    9: "kill -9 while saving; a run taken up twice",
    10: "the same, TMPDIR on another filesystem",
    11: "leftover temporary files",
    12: "dangling links: there are none",
    13: "flipped bit in a checkpoint",
    14: "truncated, empty, text or foreign checkpoint",
    15: "disk full",
    16: "folder that cannot be written",
    17: "SIGTERM",
    18: "SIGINT, also of a sweep",
    19: "two signals 10 ms apart",
    20: "Slurm: USR1, requeue, restart",
    21: "a job of a sweep raises",
    22: "a job calls sys.exit, also with 0",
    23: "a job dies by a signal or os._exit",
    24: "a sweep run again; its parent killed",
    25: "loss or weights that are no numbers",
    26: "exploding loss or gradients",
    27: "misspelled key or group",
    28: "+unknown=...",
    29: "wrong type or range",
    30: "nan, on, null parsed by YAML",
    31: "more devices than there are",
    32: "labels against outputs",
    33: "corrupt image",
    34: "empty or extra class folder, one class",
    35: "csv with gaps, text, irregular time",
    36: "series shorter than window and horizon",
    37: "unknown symbol at predict",
    38: "copies across the split",
    39: "data changed between runs",
    40: "a rank crashes",
    41: "wandb down, no key, network cut in mid-run; a logger that breaks in mid-run",
    42: "pickle with code as a checkpoint",
    43: "names of code in hyper-parameters",
    44: "_target_ outside the allow-list, also from a run folder or through Hydra",
    45: "names that lead out of their folder",
    46: "image or zip bomb",
    47: "secrets in config, argv, environment, git remote",
    48: "bad versions in the lock",
    49: "pickled data",
    50: "the same seed in two processes, 0 too",
    51: "ranks with different configs",
    52: "runs that start at once",
    53: "resume after stages were unfrozen",
    54: "cut between the last batch and the end of validation",
    55: "ranks see disjoint examples",
    56: "a path that Hydra's grammar refuses",
}


def run() -> tuple[int, Path]:
    """All tests with a row; pytest's exit code and its report."""
    file = Path(tempfile.mkdtemp()) / "report.xml"
    places = ["tests/faults", "tests/unit", "tests/test_cli.py", "tests/test_run.py", "tests/test_layers.py"]
    places += ["tests/test_wandb.py"]
    options = [
        "-m",
        "row or (row and slow)",
        "-n",
        "2",
        f"--junitxml={file}",
        "-o",
        "junit_family=xunit2",
        "--durations=10",
    ]
    command = [sys.executable, "-m", "pytest", *places, "tests/test_lock.py", *options]
    return subprocess.run(command, cwd=ROOT, check=False).returncode, file


def table(reports: list[Path]) -> str:
    """The rows as markdown, each with its tests and what came out, and the counts."""
    cases = {(c.get("classname"), c.get("name")): c for r in reports for c in ET.parse(r).iter("testcase")}
    tests: dict[int, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    counts: Counter = Counter()
    total = 0
    for case in cases.values():
        name = case.get("name", "").split("[")[0]
        place = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        result = next((c.tag for c in case if c.tag in ("failure", "error", "skipped")), "passed")
        total += result == "passed"
        for p in case.iter("property"):
            if p.get("name") == "row":
                tests[int(p.get("value", ""))][f"{place}::{name}"][result] += 1
            else:
                counts[p.get("name", "")] += int(p.get("value", ""))
    lines = ["| row | fault | tests | result |", "|---|---|---|---|"]
    for row, fault in ROWS.items():
        found = tests.get(row, {})
        names = "<br>".join(f"`{n}`" for n in found) or "none"
        results = sum(found.values(), Counter())
        lines.append(f"| {row} | {fault} | {names} | {', '.join(f'{n} {r}' for r, n in sorted(results.items()))} |")
    refused = sum(sum(t.values()) for row in (27, 28, 29, 30) for n, t in tests[row].items() if "test_cli" in n) // 4
    told = (
        f"{total} tests passed; {counts['kills']} kills while saving survived, {counts['flips']} flipped bytes caught, "
    )
    told += f"{refused} bad command lines refused, nothing lost."
    return "\n".join([told, "", *lines])


def main() -> int:
    """Run, write the page, and end as pytest did."""
    given = [Path(a) for a in sys.argv[1:]]
    code = 0
    if not given:
        code, report = run()
        given = [report]
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(given)}\n\n{END}{after}", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
