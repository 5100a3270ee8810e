"""Constants of the priors of HeGraphClassifier, and how each was chosen.

They are one set for all data. Where no derivation stands beside them they were chosen on draws
from the training pools (seeds 100 and up) of DTD, Pets, SUN397 and FGVC with a real CLIP and of six
image folders with two bundled ones; examples/benchmarks/ablation.md and regimes.md show what they
do, and constants.md what would be chosen without one of the sets.
"""

from __future__ import annotations

import numpy as np

# --- text that tells nothing (useless_text.py) ----------------------------------------------------

#: Probability that zero-shot is right by chance alone from which on text is left out. It counts
#: where rows are few: on pool draws, 0.75 lost up to 1.0 points at two classes of a set, 0.95 and
#: 0.85 differed from 0.9 by at most 0.13 points and 0.006 nats in the mean of a kind of problem. On
#: other seeds no set, over its own, wrong and random text, lost more than 0.02 points (regimes.md).
USELESS = 0.9

# --- messages into the visual nodes (messages.py) -------------------------------------------------

#: Prior of the noise: `s = NOISE_RATIO v` with the weight of `NOISE_ROWS` rows. It counts where
#: classes have one row each, and scatter and freedom cannot be told apart. The sets looked at have
#: ratios of 2 to 9.
NOISE_RATIO, NOISE_ROWS = 5.0, 2.0
#: Candidates for `g / (v + s/k)`, and the strength of a log-normal prior about 1 (nats).
MESSAGE_RATIOS = np.exp(np.arange(-6.0, 4.1, 0.25))
MESSAGE_PRIOR = 0.05
#: Least share of the variance of the class means about their prediction that is freedom: the
#: scatter within classes may by chance explain all of it.
LEAST_FREEDOM = 0.05

# --- weights of the branches (fusion.py) ----------------------------------------------------------

#: Candidates for the shrinkage, pseudo-rows per feature, and `p` in the penalty `p log(nu)^2` on
#: the held-out loss: nats against a factor of e from the sphere of one pseudo-row per feature.
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SHRINKAGE_PRIOR = 0.25
#: Standard deviation of log a below 0 and above, for the text alone: CLIP's own scale may be far
#: too sure of a data set whose names it does not understand, but hardly ever too modest.
TEXT_ALONE_WIDTH = (3.0, 0.15)
#: Prior median of `a` in the fusion, in units of the `a` of the text alone: part of what the text
#: tells, the images tell too.
TEXT_MEDIAN = 0.65
#: `q` and `f` in the prior median of `b`, `f sqrt(log C) k^q` over the wrong-class logit spread:
#: the spread that parts C classes grows as sqrt(log C), and more shots make surer logits. At one
#: shot without text nothing holds a wrong `b` in check, and a smaller one costs less.
SHOTS_POWER, VISUAL_MEDIAN, VISUAL_MEDIAN_ALONE = 0.25, 0.6, 0.5
#: How much of a log-likelihood ratio of the discriminant between two classes holds for new images,
#: before the factors above. Without text, on pool draws of other seeds than it was chosen on (2, 3,
#: 5, 10 classes, 1 to 8 shots), mean log-loss is 0.030 lower on real CLIP features of two sets,
#: 0.029 on aircraft, 0.016 and 0.003 on image folders with the bundled CLIPs (with 0.05: 0.022,
#: 0.027, 0.022, -0.001), accuracy within 0.13 points.
LIKELIHOOD_SHARE = 0.08
#: Standard deviation of log a and log b in the fusion.
FUSION_WIDTH = 0.5

# --- trained text nodes (class_graph.py, text_nodes.py) -------------------------------------------

#: Default path weights into the text nodes, in units of what a node's own residual may do. Visual
#: nodes tell what the closed form has not used yet; those made from text repeat it. Chosen on draws
#: from the training pools of ten sets, on which other choices within a factor of two changed no
#: mean accuracy by more than 0.25 points and no mean log-loss by more than 0.006.
POSITIVE_TO_POSITIVE, VISUAL_TO_POSITIVE, NEGATIVE_TO_POSITIVE = 0.25, 1.5, 0.1
#: Power of the shots, from two on, with which the ridge on the trained nodes grows: the more rows a
#: class has, the more of its visual node each training row has seen, and the less its loss says of
#: new ones. Against a ridge that does not grow, 0.010 nats less at 16 shots and 0.002 at 8 in the
#: mean over the pools of ten sets.
RIDGE_POWER = 0.5

# --- familiarity (familiarity.py) -----------------------------------------------------------------

#: Rows for which the expected variance of a measure counts.
PRIOR_ROWS = 5.0
#: How far the mean density of queries lies from that of left-out rows at one image a class, as a
#: share of it: it was 0.5 to 1.8 times as large, 0.8 to 1.1 from four on. With both, images of the
#: classes score below -2 in 0 to 5 % of cases in the mean over seven sets and 2 to 100 classes from
#: two shots on, and in 0 to 11 % at one (nearly all of the drawings of PACS with misleading text).
UNKNOWN_DENSITY = 0.4

# --- rows without a label (unlabelled.py) ---------------------------------------------------------

#: Candidates for how much rows without a label count: what they add is told by too few labels to be
#: estimated finely, and where classes have many rows of their own it is mostly the less.
UNLABELLED_SHARES = (1.0, 0.1)
