"""Tiny Shakespeare, with the split of nanoGPT."""

from layerlab.contract import Count
from layerlab.data import files
from layerlab.data.text import Text, cut

NAME = "tinyshakespeare.txt"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Shakespeare(Text):
    """1,115,394 characters: the first 90 % train (their last 5 % are val), the last 10 % test.

    path: a local copy; without it the file is downloaded once into data/. Its SHA-256 is checked either way.
    Source: karpathy/char-rnn @6f9487a (public domain).
    """

    def __init__(self, batch_size: Count = 32, path: str | None = None, context: Count = 64):
        super().__init__(batch_size, path, context)

    def parts(self) -> tuple[dict[str, str], str]:
        instead = "for a text of your own use data=text data.path=..."
        place = files.checked(self.path, name=NAME, url=URL, digest=SHA256, instead=instead)
        return cut(files.read_text(place)), "shakespeare"
