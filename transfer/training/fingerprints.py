"""SHA-256 of what a run starts from and comes to: two runs are the same if these are."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from transfer import runs


def fingerprint_variables(variables: Iterable[keras.Variable]) -> str:
    """Returns the SHA-256 of the variables' values, in order."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    return digest.hexdigest()


def fingerprint_history(history: Iterable[Mapping]) -> str:
    """Returns the SHA-256 of the rows of history.csv without their seconds."""
    numbers = [{name: row[name] for name in runs.HISTORY_COLUMNS[:-1]} for row in history]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
