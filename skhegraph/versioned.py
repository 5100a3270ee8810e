"""A stamp of the package's version in what is pickled, checked where it is loaded."""

from __future__ import annotations

import warnings
from typing import Any

from skhegraph._sklearn import BaseEstimator
from skhegraph._version import __version__

__all__ = ["InconsistentVersionWarning", "VersionedEstimator"]

_STAMP = "_skhegraph_version"


class InconsistentVersionWarning(UserWarning):
    """An estimator was saved by another version of skhegraph than the one that loads it."""


class VersionedEstimator(BaseEstimator):
    """An estimator that remembers in its pickle which version of skhegraph made it.

    scikit-learn does the same for its own estimators alone. The stamp is no attribute of the
    estimator once it is loaded.

    Examples
    --------
    >>> import pickle
    >>> from skhegraph.versioned import VersionedEstimator
    >>> type(pickle.loads(pickle.dumps(VersionedEstimator()))).__name__
    'VersionedEstimator'
    """

    def __getstate__(self) -> dict[str, Any]:
        """State with the version added."""
        return {**super().__getstate__(), _STAMP: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state; warn if another version made it."""
        state = dict(state)
        version = state.pop(_STAMP, "unknown")
        if version != __version__:
            warnings.warn(
                f"{type(self).__name__} was saved by skhegraph {version} and is loaded by "
                f"{__version__}: it may fail or answer differently. Fit it again, or load it with "
                f"skhegraph {version}.",
                InconsistentVersionWarning,
                stacklevel=2,
            )
        super().__setstate__(state)
