"""What people call the parts of a data set: as a folder, within a file's name, as an array."""

import re

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_END = r"(?:[_\- ]?(?:set|data|images?|imgs?|labels?|split|folder))?[_\- ]?\d*"
_START = r"(?:(?:seg|data|dataset|images?|imgs?)[_\- ])?"
_PARTS = {
    TRAIN: re.compile(rf"{_START}(?:train|training){_END}"),
    VALIDATION: re.compile(rf"{_START}(?:validation|validate|valid|val|dev|development){_END}"),
    TEST: re.compile(rf"{_START}(?:test|testing|eval|evaluation|holdout|t10k){_END}"),
}
_PLAIN = {TRAIN: ("train",), VALIDATION: ("validation", "val", "valid"), TEST: ("test",)}
# A file's name falls into words at anything but letters, and where small letters end.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def find_part(name: str) -> str | None:
    """Returns the part that a folder, or a word, names; None where it names none.

    Upper and lower case are the same, "set", "data", "images" or a number may follow: `Train`,
    `test1`, `training_set`, `valid`, `dev`, `eval`.
    """
    lower = name.lower()
    return next((part for part, pattern in _PARTS.items() if pattern.fullmatch(lower)), None)


def is_plain(name: str) -> bool:
    """Returns whether a name is one of those that need no word of explanation."""
    return any(name.lower() in names for names in _PLAIN.values())


def find_part_in_file(name: str) -> str | None:
    """Returns the part that a word of a file's name says; None where none or several do.

    `fashion-mnist_test.csv` and `TestLabels.csv` are of a test, `latest.csv` and `contest.csv` not.
    """
    found = {part for word in _words(name) if (part := find_part(word))}
    return found.pop() if len(found) == 1 else None


def name_without_part(name: str) -> str:
    """Returns what the files of all parts of one data set have in common."""
    words = (None if find_part(word) else word.lower() for word in _words(name))
    return " ".join("*" if word is None else word for word in words)


def _words(name: str) -> list[str]:
    return _WORD.findall(name.rsplit(".", 1)[0])
