"""Text that tells nothing of the images, since the CLIP does not know the names, say.

Every support row is a held-out row for the text, so its hits are known even at one shot.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaln, expit

from skhegraph.hegraph.adaptation import Strengths
from skhegraph.hegraph.fusion import calibration_rows
from skhegraph.hegraph.priors import USELESS
from skhegraph.support import Floats, Support, effective_weights
from skhegraph.text_source import TextSource

#: Size of the cosines of unrelated features at most, in units of `1 / sqrt(n_features)`: features
#: of a CLIP share a few directions, so it may be above 1. Within one CLIP of 512 features, 5 to 6.
UNRELATED = 3.0


class Hits(NamedTuple):
    """Rows that zero-shot classifies right, and all rows: effective numbers, classes alike."""

    right: float
    rows: float
    n_classes: int

    @property
    def by_chance(self) -> float:
        """Probability that zero-shot is right in `1/C` of the cases, and not more often.

        Beforehand that is a half, and else the share `p` is anything from `1/C` to 1: the Bayes
        factor of `h` hits in `n` rows is
        `B = int_{1/C}^1 p^h (1 - p)^(n-h) dp / (1 - 1/C) / ((1/C)^h (1 - 1/C)^(n-h))`,
        and the probability `1 / (1 + B)`.
        """
        chance, hits, misses = 1 / self.n_classes, self.right, max(self.rows - self.right, 0)
        beta = hits + 1, misses + 1
        above = float(betaincc(*beta, chance))
        if above > 0:
            often = betaln(*beta) + np.log(above)
            log_b = often - hits * np.log(chance) - misses * np.log1p(-chance)
        else:  # far below chance the integrand falls as exp(-slope (p - 1/C))
            log_b = -np.log(misses / (1 - chance) - hits / chance)
        return float(expit(np.log1p(-chance) - log_b))


def hits_of_text(support: Support, cosines: Floats, y: NDArray[Any], weight: Floats) -> Hits:
    """Hits of the text as it is, or, if there are more, with no class favoured over all rows."""
    weight = effective_weights(weight / support.kept_shots[y])
    favour = np.stack([cosines[y == c].mean(axis=0) for c in np.unique(y)]).mean(axis=0)
    right = [float((C.argmax(axis=1) == y) @ weight) for C in (cosines, cosines - favour)]
    return Hits(max(right), float(weight.sum()), support.n_classes)


def leave_out_useless(
    support: Support, classes: NDArray[Any], source: TextSource, strengths: Strengths
) -> tuple[Support, bool]:
    """Return the support set to fit on, and whether it has text.

    Text is left out, with a warning, where zero-shot is right by chance alone with a probability
    of `USELESS`. It stays, with the warning, where a class has a name alone or the strength of
    text is given.
    """
    if not source.name or support.n_classes < 2:  # of one class every text is right
        return support, bool(source.name)
    rows = calibration_rows(support)
    y, cosines = support.y[rows], support.X[rows] @ support.positive.T
    hits = hits_of_text(support, cosines, y, support.sample_weight[rows])
    if hits.by_chance < USELESS:
        return support, True
    given = strengths.text_weight, strengths.positive_to_visual, strengths.visual_to_visual
    stays = support.named is not None or any(strength is not None for strength in given)
    how = "hardly" if hits.right > hits.rows / hits.n_classes else "no"
    if support.named is not None:
        classes = classes[~support.named.mask]
    warnings.warn(
        f"{source.name} classifies {hits.right:.0f} of {hits.rows:.0f} support rows right, {how} "
        f"better than chance ({hits.rows / hits.n_classes:.0f}): it tells nothing of these "
        f"images{_why(support, cosines, classes, source.bundled)} other names or descriptions "
        "(class_names, templates), or set text_features='prototypes'"
        + ("." if stays else ", as this fit does."),
        UserWarning,
        stacklevel=4,
    )
    return (support, True) if stays else (support.without_text(), False)


def _why(support: Support, cosines: Floats, classes: NDArray[Any], bundled: bool) -> str:
    """What may be wrong, up to the word "give" in a sentence.

    Where cosines are as small as those of unrelated features, `1 / sqrt(n_features)`, give or take,
    the text may be of another CLIP; not where it is of a `bundled` one, whose cosines are as small
    with images of its own.
    """
    size = float(np.sqrt(np.square(cosines).mean()))
    if size <= UNRELATED / np.sqrt(support.X.shape[1]) and not bundled:
        return (
            f". Its cosine with X is {size:.2f} (root mean square), as of unrelated features: if X "
            "is of another CLIP, take both from one, as make_hegraph_pipeline does. If not, give"
        )
    if support.n_classes == 2:  # to name two would tell nothing
        return ". Give"
    some = support.positive[:1000]  # enough to name two
    alike = some @ some.T - 2 * np.eye(len(some))
    one, other = np.unravel_index(int(alike.argmax()), alike.shape)
    return (
        f", and holds {str(classes[one])!r} and {str(classes[other])!r} for alike (cosine "
        f"{alike[one, other]:.2f}). Give"
    )
