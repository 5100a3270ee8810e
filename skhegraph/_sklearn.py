"""What the package takes of scikit-learn that is private, and types of what has none.

No other module imports a private name of scikit-learn, so that a version which moves one is met
here. Type checkers see the classes below in place of scikit-learn's, which carry no types: with
an unknown base every attribute would pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as effective_n_threads
from sklearn.utils._optional_dependencies import check_matplotlib_support, check_pandas_support
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._show_versions import _get_sys_info as get_sys_info
from sklearn.utils.parallel import _get_threadpool_controller as get_threadpool_controller
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _num_samples as num_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    class BaseEstimator:
        """Parameters, and what scikit-learn asks of an estimator."""

        n_features_in_: int
        feature_names_in_: NDArray[Any]

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def get_metadata_routing(self) -> Any: ...
        def set_fit_request(self, **requests: bool | str | None) -> Self: ...
        def set_partial_fit_request(self, **requests: bool | str | None) -> Self: ...
        def set_score_request(self, **requests: bool | str | None) -> Self: ...
        def _validate_params(self) -> None: ...
        def __sklearn_tags__(self) -> Any: ...
        def __sklearn_clone__(self) -> Self: ...
        def __getstate__(self) -> dict[str, Any]: ...
        def __setstate__(self, state: dict[str, Any]) -> None: ...

    class ClassifierMixin:
        """Accuracy."""

        classes_: NDArray[Any]

        def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float: ...

    class TransformerMixin:
        """Output as frames."""

        def set_output(self, *, transform: str | None = None) -> Self: ...

    class Pipeline(BaseEstimator):
        """Steps one after another."""

        steps: list[tuple[str, Any]]
        memory: Any
        verbose: bool
        classes_: NDArray[Any]

        def __init__(
            self,
            steps: list[tuple[str, Any]],
            *,
            transform_input: list[str] | None = None,
            memory: Any = None,
            verbose: bool = False,
        ) -> None: ...
        def __len__(self) -> int: ...
        def __getitem__(self, ind: int | str | slice) -> Any: ...
        def __sklearn_is_fitted__(self) -> bool: ...
        @property
        def named_steps(self) -> Any: ...
        def set_output(self, *, transform: str | None = None) -> Self: ...
        def fit(self, X: Any, y: Any = None, **params: Any) -> Self: ...
        def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any: ...
        def fit_predict(self, X: Any, y: Any = None, **params: Any) -> Any: ...
        def transform(self, X: Any, **params: Any) -> Any: ...
        def inverse_transform(self, X: Any, **params: Any) -> Any: ...
        def predict(self, X: Any, **params: Any) -> NDArray[Any]: ...
        def predict_proba(self, X: Any, **params: Any) -> NDArray[Any]: ...
        def predict_log_proba(self, X: Any, **params: Any) -> NDArray[Any]: ...
        def decision_function(self, X: Any, **params: Any) -> NDArray[Any]: ...
        def score_samples(self, X: Any) -> NDArray[Any]: ...
        def score(
            self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any
        ) -> float: ...
        def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]: ...

    class BaseShuffleSplit:
        """Splitter of one draw after another."""

        def __init__(self, n_splits: int = 10, *, random_state: Any = None) -> None: ...
        def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[Any]: ...
        def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int: ...

else:
    from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
    from sklearn.model_selection import BaseShuffleSplit
    from sklearn.pipeline import Pipeline

__all__ = [
    "BaseEstimator",
    "BaseShuffleSplit",
    "ClassifierMixin",
    "Interval",
    "Pipeline",
    "StrOptions",
    "TransformerMixin",
    "check_matplotlib_support",
    "check_pandas_support",
    "check_sample_weight",
    "effective_n_threads",
    "get_sys_info",
    "get_threadpool_controller",
    "num_samples",
    "safe_indexing",
]
