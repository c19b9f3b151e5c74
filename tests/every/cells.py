"""The cells of the matrix model x data: which there are, and how a test reaches data that needs a file."""

from layerlab.build import config_dir, models_for
from layerlab.signature import read_target

DATA = {  # data -> (its task, further overrides; {tmp} is the folder of the test)
    "digits": ("classify", []),
    "photos": ("classify", []),
    "mnist": ("classify", ["data.path={tmp}/mnist"]),
    "fashion_mnist": ("classify", ["data.path={tmp}/mnist"]),
    "cifar10": ("classify", ["data.path={tmp}/cifar"]),
    "cifar100": ("classify", ["data.path={tmp}/cifar"]),
    "torchvision": ("classify", ["data.name=USPS", "data.path={tmp}/usps", "data.size=16"]),
    "image_folder": ("classify", ["data.path={tmp}/photos", "data.size=16"]),
    "audio_folder": ("classify", ["data.path={tmp}/tones", "data.seconds=0.4"]),
    "text_csv": ("classify", ["data.path={tmp}/reviews.csv"]),
    "mnist1d": ("classify", []),
    "table": ("classify", []),
    "xor": ("classify", []),
    "moons": ("classify", []),
    "spirals": ("classify", []),
    "names": ("next_token", []),
    "makemore": ("next_token", ["data.path={shared}/names.txt"]),
    "shakespeare": ("next_token", ["data.path={shared}/tinyshakespeare.txt"]),
    "code": ("next_token", []),
    "text": ("next_token", ["data.path={tmp}/text.txt"]),
    "spelling": ("transduce", ["data.path={tmp}/pairs.tsv"]),
    "copy_task": ("classify", []),
    "lookup": ("classify", []),
    "recall": ("classify", []),
    "adding": ("regress", []),
    "series": ("forecast", []),
    "etth1": ("forecast", ["data.path={shared}/ETTh1.csv"]),
    "csv": ("forecast", ["data.path={tmp}/load.csv", "data.target=load", "data.time=time"]),
}


def options(group: str) -> list[str]:
    """Names of the yaml files of a group."""
    return sorted(f.stem for f in (config_dir() / group).glob("*.yaml"))


def kind_of(data: str) -> str:
    """What kind of x a data config gives."""
    text = (config_dir() / "data" / f"{data}.yaml").read_text("utf-8")
    target = next(line.split()[1] for line in text.splitlines() if line.startswith("_target_:"))
    return read_target(target).facts()["kind"]


CELLS = [(model, data) for data, (task, _) in DATA.items() for model in models_for(kind_of(data), task)]


def table() -> str:
    """The matrix as markdown, for the README."""
    models = options("model")
    lines = ["| data | kind | task | " + " | ".join(f"`{m}`" for m in models) + " |"]
    lines.append("|---|---|---|" + ":-:|" * len(models))
    for data, (task, _) in DATA.items():
        marks = ["✓" if (m, data) in CELLS else "" for m in models]
        lines.append(f"| `{data}` | {kind_of(data)} | {task} | " + " | ".join(marks) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
