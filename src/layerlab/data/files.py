"""Finding, checking and fetching files."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from layerlab.contract import DataError

TIMEOUT_S = 20


def existing(path: str, what: str, key: str = "data.path", folder: bool = True) -> Path:
    """The path, `~` expanded. key: the option that named it. Raises DataError where nothing, or only a folder, is."""
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{key}={path!r}: no such file or folder; give {what}")
    if place.is_dir() and not folder:
        raise DataError(f"{key}={path!r}: a folder; give {what}")
    return place


def read_text(path: Path) -> str:
    """A UTF-8 text with \\n line ends. Raises DataError naming the first byte that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8 at byte {e.start}; save it as UTF-8") from e


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checked(path: str | None, *, name: str, url: str, digest: str, instead: str) -> Path:
    """A published file: the user's copy at `path`, or downloaded once into data/. Its SHA-256 must be `digest`.

    instead: what to do with a file of one's own. Raises DataError where it is missing, offline or another file.
    """
    place = existing(path, f"a copy of {name}", folder=False) if path else _fetch(name, url, digest)
    if (found := sha256(place)) != digest:
        raise DataError(f"{place}: not {name} (sha256 {found[:12]}, expected {digest[:12]}); {instead}")
    return place


def _fetch(name: str, url: str, digest: str) -> Path:
    place = Path("data", name)
    if place.is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as source:
            part.write_bytes(source.read())
        if (found := sha256(part)) != digest:
            raise DataError(f"{url}: sha256 {found[:12]}, expected {digest[:12]}; give a good copy with data.path=")
        part.replace(place)  # atomic: two runs at once end with one whole file
    except (urllib.error.URLError, OSError) as e:
        raise DataError(f"{name}: cannot be downloaded ({e}); give a local copy with data.path=") from e
    finally:
        part.unlink(missing_ok=True)
    return place
