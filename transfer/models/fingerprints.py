"""SHA-256 of a network's weights: two networks of one architecture are the same if these are."""

import hashlib
from collections.abc import Iterable

import keras


def fingerprint_variables(variables: Iterable[keras.Variable]) -> str:
    """Returns the SHA-256 of the variables' values, in order."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()
