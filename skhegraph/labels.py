"""Labels of classes, and what is given by label: names, weights, text features.

Some meta-estimators fit clones on the integers 0 to n_classes - 1 in place of the labels. What is
given in the order of the sorted labels keeps its order there; a mapping from label to value says
nothing of these integers, and is refused where one could pass for a label. What cannot be told:
labels that are integers, but not those from 0 on, where a fold also lacks a class.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from enum import Enum
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What scikit-learn's semi-supervised estimators take in place of a label.
UNLABELLED = -1

ENCODED = (
    " Meta-estimators that encode y (cross_val_predict, StackingClassifier, VotingClassifier, "
    "BaggingClassifier, CalibratedClassifierCV, ...) hand on the integers 0 to n_classes - 1 in "
    "place of your labels."
)


def are_encoded(labels: NDArray[Any]) -> bool:
    """Tell whether the labels are the integers 0 to n_classes - 1."""
    return labels.dtype.kind in "iu" and bool((labels == np.arange(len(labels))).all())


def encoded_hint(labels: NDArray[Any], remedy: str) -> str:
    """What meta-estimators do to labels, and a remedy, where these may be such; else nothing."""
    return f"{ENCODED[:-1]}: {remedy}." if are_encoded(labels) else ""


def texts_of_members(y: Any) -> dict[str, str]:
    """Texts of `str` enumerations' members in a list of labels, by the label NumPy makes of each.

    That is 'Animal.CAT', cut to the length of the longest text; an array of objects keeps members.
    """
    if not isinstance(y, (list, tuple)) or not any(map(_is_member, y)):
        return {}
    y = [label for label in y if isinstance(label, str)]  # and no -1
    made = np.asarray(y).astype(str).tolist()
    texts = {label: str.__str__(member) for label, member in zip(made, y, strict=True)}
    if len(texts) < len(set(y)):
        raise ValueError(
            f"y holds {len(set(y))} members of an enumeration, of which NumPy makes {len(texts)} "
            f"labels, {brief(sorted(texts))}: give their texts, [label.value for label in y]."
        )
    return texts


def _is_member(label: Any) -> bool:
    return isinstance(label, str) and isinstance(label, Enum)


def keep_unlabelled(y: Any) -> Any:
    """A list of names and -1 as an array of objects: NumPy would make a name of -1."""
    if not isinstance(y, (list, tuple)):
        return y
    if not any(isinstance(label, str) for label in y) or not any(map(is_unlabelled, y)):
        return y
    told = np.array([not is_unlabelled(label) for label in y])
    labels = np.full(len(y), UNLABELLED, dtype=object)
    labels[told] = np.asarray([label for label in y if not is_unlabelled(label)])
    return labels


def signed(labels: Any) -> Any:
    """Unsigned labels of 64 bits as signed ones, if they fit: NumPy joins the two as floats."""
    if getattr(labels, "dtype", None) == np.uint64 and len(labels) and labels.max() < 2**63:
        return labels.astype(np.int64)
    return labels


def is_unlabelled(label: Any) -> bool:
    """Tell the number -1."""
    return isinstance(label, Real) and label == UNLABELLED


def without_label(
    y: NDArray[Any], classes: Any = None, seen: NDArray[Any] | None = None
) -> NDArray[np.bool_]:
    """Which rows have no label: those of -1, as in scikit-learn's semi-supervised estimators.

    Among names -1 is never a class. Among numbers it is one if it is in `classes` or among the
    labels `seen` before, or, where `classes` is None, if there are two labels in all.

    Raises
    ------
    ValueError
        If no row has a label and `classes` names none; if the labels are names, and one of them is
        the text "-1"; or if -1 was one of two labels in all before, and others come now.
    """
    for labels in (y, classes):
        _refuse_text(labels)
    none: NDArray[np.bool_] = np.zeros(len(y), dtype=bool)
    if y.dtype.kind not in "ifO":
        return none
    numbers = y.dtype.kind != "O"
    unlabelled = y == UNLABELLED if numbers else np.array([is_unlabelled(v) for v in y], dtype=bool)
    told = set(y[~unlabelled].tolist())
    named = [part for part in (classes, seen) if part is not None]
    if any(is_unlabelled(label) for part in named for label in np.asarray(part).ravel()):
        if classes is None and seen is not None and len(seen) == 2 and told - set(seen.tolist()):
            raise ValueError(
                f"y holds {brief(sorted(told - set(seen.tolist())))}, and before there were "
                f"{seen[0]} and {seen[1]} alone, so that -1 was taken for a class: give all labels "
                "in `classes`, from the first call on, with -1 only if it is a class."
            )
        return none
    if classes is not None or not unlabelled.any():
        return unlabelled
    others = told | set([] if seen is None else seen.tolist())
    if not others:
        raise ValueError(
            "y holds -1 alone, for rows without a label: name the classes, classes=[...]."
        )
    if any(isinstance(label, str) for label in others):
        return unlabelled
    if len(others) < 2:
        if others != {1}:
            _warn_of_class(
                f"y holds -1 and {min(others)} alone, which are taken for two classes. If -1 is no "
                "label, name the classes, classes=[...]."
            )
        return none
    if others == {0, 1} or min(others) < 0:
        few = sorted(others)
        listed = f"{few[0]} and {few[1]}" if len(few) == 2 else brief(few)
        both = sorted([UNLABELLED, *few])
        _warn_of_class(
            f"y holds -1 beside {listed}: {int(unlabelled.sum())} rows are taken as unlabelled. "
            f"If -1 is a class, give classes={brief(both)}; if not, classes={brief(few)}."
        )
    return unlabelled


def _warn_of_class(message: str) -> None:
    """Warn where `fit` was called."""
    warnings.warn(message, UserWarning, stacklevel=7)


def _refuse_text(labels: Any) -> None:
    """Raise ValueError where the text "-1" is among names; among numbers as text it is a class."""
    given = np.asarray(labels).ravel()
    if given.dtype.kind not in "UO":
        return
    names = {str.__str__(label) for label in given.tolist() if isinstance(label, str)}
    if str(UNLABELLED) in names and not all(map(_is_number, names)):
        raise ValueError(
            "The labels hold the text '-1' among names: NumPy makes it of the number -1. For rows "
            "without a label give y as a list, or as an array with dtype=object, that holds the "
            "number; a class cannot be called '-1'."
        )


def labels_in(labels: Any) -> set[Any]:
    """The labels of a list; none where it is no list, as `all_labels` will say."""
    given = np.asarray([] if labels is None else labels)
    return set(given.tolist()) if given.ndim == 1 else set()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def values_of_labels(
    given: Mapping[Any, Any], labels: NDArray[Any], parameter: str, ordered: str
) -> list[Any]:
    """Values of a mapping in the order of the labels; it may hold more than these.

    Parameters
    ----------
    given : mapping of label to value
        Keys may be strings of the labels, as in JSON, where no key is a label.
    labels : ndarray of shape (n_classes,)
        Sorted labels.
    parameter : str
        Its name, for an error.
    ordered : str
        What may take its place in a meta-estimator, for an error.

    Returns
    -------
    list
        One value per label.

    Raises
    ------
    ValueError
        If a label has no value, or if a meta-estimator may have put other labels in its place.
    """
    remedy = f"give {parameter} as {ordered} in the order of the sorted labels"
    keys = keys_of_labels(given, labels)
    missing = [label for label in labels if keys[label] is None]
    if len(missing) == len(labels) and all(str(label) in given for label in labels):
        raise ValueError(
            f"The keys of {parameter} are strings, {brief(given)}, and y holds the integers 0 to "
            f"{len(labels) - 1}. If y holds them as you gave them, make the keys integers, "
            "{int(key): value for key, value in mapping.items()}. If your labels are strings, a "
            "meta-estimator has put integers in place of them, in the order of strings, where '10' "
            f"is before '2': {remedy}."
        )
    if missing:
        raise ValueError(
            f"{parameter} has nothing for {brief(missing)}: the mapping, whose keys are "
            f"{brief(given)}, must hold every label in y, of the type that it "
            f"has there ({type(labels[0]).__name__})." + encoded_hint(labels, remedy)
        )
    if may_be_others(given, labels):
        raise ValueError(
            f"{parameter} holds {len(given)} labels, and y the integers 0 to {len(labels) - 1}, "
            "which a meta-estimator that encodes y may have put in place of yours. Leave labels "
            "that are not in y out of the mapping, name all of them in `classes` where fit has "
            f"it, or {remedy}."
        )
    return [given[keys[label]] for label in labels]


def by_index(given: Any, labels: NDArray[Any], parameter: str) -> Any:
    """Mapping of a frame or Series whose index holds labels; as given where it numbers its rows.

    Numbers are integers that rise and none of which is a label. If an encoder has replaced labels
    that were such integers, their order is that of the rows all the same.
    """
    if not hasattr(given, "iloc") or _only_numbers_rows(given.index):
        return given
    index = given.index.tolist()
    integers = given.index.dtype.kind in "iu" and given.index.is_monotonic_increasing
    if integers and not set(index) & set(labels.tolist()):
        return given
    if len(set(index)) < len(index):
        raise ValueError(f"{parameter}: its index names a label twice.")
    return dict(zip(index, given.to_numpy(), strict=True))


def _only_numbers_rows(index: Any) -> bool:
    """Tell the default index of a frame: one of a part of it, or backwards, may hold labels."""
    return type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1)


def keys_of_labels(given: Mapping[Any, Any], labels: NDArray[Any]) -> dict[Any, Any]:
    """Key of each label, None where it has none; strings for numbers, as in JSON, if all are."""
    as_text = [str(label) for label in labels]
    # Sorted as strings, "10" comes before "2": an encoder would have given them other numbers.
    json = not are_encoded(labels) or as_text == sorted(as_text)
    if json and not any(label in given for label in labels) and all(t in given for t in as_text):
        return dict(zip(labels, as_text, strict=True))
    return {label: label if label in given else None for label in labels}


def may_be_others(given: Mapping[Any, Any], labels: NDArray[Any]) -> bool:
    """Whether keys that name these labels may be about others, which an encoder replaced."""
    return are_encoded(labels) and len(given) > len(labels)


def and_another(labels: NDArray[Any], label: Any) -> NDArray[Any]:
    """Labels and one more of their type at the end, in one array; integers stay integers.

    Raises
    ------
    OverflowError
        If no type of integers holds them all.
    """
    if labels.dtype.kind not in "iu":
        return np.append(labels, label)
    values = [*labels.tolist(), int(label)]
    return np.array(values, dtype=np.int64 if max(values) < 2**63 else np.uint64)


def brief(labels: Any) -> str:
    """Show labels, the first five at most."""
    shown = [label.item() if isinstance(label, np.generic) else label for label in labels]
    return f"[{', '.join(map(repr, shown[:5]))}{', ...' if len(shown) > 5 else ''}]"
