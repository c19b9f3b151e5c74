"""What the lock may and may not hold."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PINS = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", LOCK, re.MULTILINE))
FLOORS = {"torch": "2.10", "lightning": "2.6.6", "pytorch-lightning": "2.6.6", "hydra-core": "1.3.8", "wandb": "0.31"}


def numbers(version):
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0]))


@pytest.mark.row(48)
@pytest.mark.parametrize("package", FLOORS)
def test_floors(package):
    assert numbers(PINS[package]) >= numbers(FLOORS[package])


@pytest.mark.row(48)
@pytest.mark.parametrize("package", ["lightning", "pytorch-lightning"])
def test_the_compromised_releases_are_not_there(package):
    assert PINS[package] not in ("2.6.2", "2.6.3"), "GHSA-w37p-236h-pfx3: steals credentials on import"


@pytest.mark.row(48)
def test_every_pin_has_hashes_and_no_host_is_named():
    for name in ("requirements.lock", "requirements-uv.lock"):
        text = (ROOT / name).read_text("utf-8")
        assert "://" not in text
        assert "--index-url" not in text
        blocks = re.split(r"\n(?=[a-z0-9])", "\n" + text.split("make lock\n", 1)[1])
        assert all("--hash=sha256:" in b for b in blocks if b.strip()), name


@pytest.mark.row(48)
def test_no_second_lock():
    assert not (ROOT / "uv.lock").exists() or "uv.lock" in (ROOT / ".gitignore").read_text()
