"""Train a model: `python train.py model=lstm data=names`; every group and option: `python train.py --help`."""

import sys

from layerlab.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
