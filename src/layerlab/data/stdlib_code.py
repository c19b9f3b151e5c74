"""The sources of Python's own standard library as text: on every machine, 4.4 MB, not a download."""

import sysconfig
from pathlib import Path

from layerlab.contract import Count, DataError
from layerlab.data.split import hashed
from layerlab.data.text import Text


class StdlibCode(Text):
    """Top-level *.py files of the standard library that are ASCII; split by the hash of the file's name.

    The text depends on the Python version: numbers compare within one version only, which the manifest records.
    """

    carved = False

    def __init__(self, batch_size: Count = 32, context: Count = 64):
        super().__init__(batch_size, None, context)

    def parts(self) -> tuple[dict[str, str], str]:
        folder = Path(sysconfig.get_path("stdlib"))
        texts = {}
        for file in sorted(folder.glob("*.py")):
            raw = file.read_bytes()
            if raw.isascii():
                texts[file.name] = raw.decode("ascii").replace("\r\n", "\n")
        if len(texts) < 50:
            raise DataError(f"data=code: {len(texts)} Python sources in {folder}; this Python comes without them")
        return {part: "".join(texts[n] for n in names) for part, names in hashed(texts).items()}, "code"
