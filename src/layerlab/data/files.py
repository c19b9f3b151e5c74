"""Finding, checking and fetching files."""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from layerlab.contract import DataError

TIMEOUT_S = 20
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)  # RuntimeError: encrypted


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


def digest_of(path: Path, like: str) -> str:
    """Hexadecimal digest of a file, of the kind of another: SHA-256, or MD5 where that is all a publisher states."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "md5" if len(like) == 32 else "sha256").hexdigest()


def checked(path: str | None, *, name: str, url: str, digest: str, instead: str) -> Path:
    """A published file: the user's copy at `path`, or downloaded once into data/. Its SHA-256 must be `digest`.

    instead: what to do with a file of one's own. Raises DataError where it is missing, offline or another file.
    """
    place = existing(path, f"a copy of {name}", folder=False) if path else _fetch(name, url, digest)
    if (found := digest_of(place, digest)) != digest:
        raise DataError(f"{place}: not {name} (digest {found[:12]}, expected {digest[:12]}); {instead}")
    return place


def _fetch(name: str, url: str, digest: str) -> Path:
    return fetch(Path("data", name), [url], digest, "a local copy")


def fetch(place: Path, urls: Sequence[str], digest: str, what: str) -> Path:
    """A published file at `place`, downloaded from the first of `urls` that has it; nothing happens where it is there.

    what: what to give with data.path= where that fails. Two runs at once download once. Raises DataError.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if place.is_file():
            return place
        part = place.with_name(f".{place.name}.{os.getpid()}")
        problems = []
        for url in urls:
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT_S) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                if (found := digest_of(part, digest)) == digest:
                    part.replace(place)  # atomic: no half file by its name
                    return place
                problems.append(f"{url}: digest {found[:12]}, expected {digest[:12]}")
            except (urllib.error.URLError, OSError) as e:
                problems.append(str(e))
            finally:
                part.unlink(missing_ok=True)
    raise DataError(f"{place.name}: cannot be downloaded ({problems[-1]}); give {what} with data.path=")
