"""The weights that travel with the package: where they lie, and that they are whole.

`manifest.json` names each file with its checksum; README.md beside it is their card.
"""

import hashlib
from pathlib import Path

from transfer.errors import InputError
from transfer.storage.atomic import read_json

BUNDLED, FASHION = "bundled", "fashion"
MADE_FROM = {
    BUNDLED: "pretrained on fractals",
    FASHION: "pretrained on fractals and fine-tuned on Fashion-MNIST, at 64 pixels",
}
FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"


def available(kind: str) -> list[str]:
    """Returns the backbones that the package has weights of a kind for.

    Args:
        kind: `BUNDLED` or `FASHION`.
    """
    return list(read_json(MANIFEST).get(kind, {}))


def find(kind: str, backbone: str) -> Path:
    """Returns the file of a backbone's weights, its checksum compared.

    Raises:
        InputError: the package has none for this backbone, or the file is damaged.
    """
    entries = read_json(MANIFEST).get(kind, {})
    if backbone not in entries:
        raise InputError(
            f"there are {kind} weights for {', '.join(entries) or 'no backbone'}. Received: "
            f"backbone={backbone!r}; take another, or --weights auto."
        )
    path = FOLDER / entries[backbone]["file"]
    actual = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if actual != entries[backbone]["sha256"]:
        raise InputError(
            f"{path} should have the checksum {entries[backbone]['sha256']}. Received: {actual}; "
            "install the package again."
        )
    return path
