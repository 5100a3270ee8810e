"""The Heterogeneous Graph Adapter.

How it works
============

`C` classes, `k` shots of each, features of width `D`, all of unit length. The support set gives
features `X` (n x D) with labels, the CLIP's text tower one positive and one negative feature per
class, and `tau`, CLIP's scale of the cosine (about 100).

Nodes (:mod:`~skhegraph.hegraph.graph`)
    `P_c`, the mean text feature of the positive prompts of class c ("a photo of a dog."); `N_c`,
    that of its negative prompts ("a photo of no dog."); `V_c`, the mean support feature.

Edges
    Between the nodes of one class, and between classes that are alike. The described method takes
    cosines of the initial nodes along six relations, p->n, v->n, p->p, v->p, n->p and v->v, dense,
    and changes the sign of same class edges that touch a negative node.

HeGraphClassifier (ours)
------------------------

All six relations and p->v, on one graph (:meth:`~skhegraph.HeGraphClassifier.to_hetero_data` shows
the edges in use, times the strength with which they acted).

1.  *Messages adapt the visual nodes* (:mod:`~skhegraph.hegraph.messages` has their strengths,
    :mod:`~skhegraph.hegraph.visual` what they do). With the centred text
    `T = P - mean(P)` and its similarities `K`, in proportion to `T T'`,

        V = 1 m0' + rho T + E,    E ~ MN(0, (g K + v I) x Omega),    x_i = V_c(i) + noise:

    the text of a class says where its images are (`rho`, p->v), classes whose texts are alike move
    together (`g`, v->v), and each has a freedom `v` of its own. `Omega` holds the directions in
    which images of one class differ and, as far as the text explains the class means, those in
    which the texts do: names that tell nothing are left out. The strengths maximise the marginal
    likelihood of the class means, and the posterior means take the place of `V`. (A linear message
    through a trained matrix with a Gaussian prior is exactly this.)

2.  *Two branches, one prediction* (:mod:`~skhegraph.hegraph.fusion`). The logits are

        a tau cos(z, P)  -  b (z - V_c)' S^-1 (z - V_c) / 2

    (and the log-probability of the class, from `class_weight`), with the shrunk covariance `S` of
    images about their class. `a`, `b` and the shrinkage minimise the log-loss of leave-one-out
    logits of the support rows, which have a closed form, under log-normal priors: text may be
    nearly all (95 % zero-shot) or nearly nothing, and no validation set is needed.

3.  *Messages and residuals adapt the text nodes* (:mod:`~skhegraph.hegraph.class_graph`,
    :mod:`~skhegraph.hegraph.text_nodes`). The positive node of each class receives

        N' = N - (P + V) / 2                                          p->n, v->n        Eq. 1-2
        M  = w_pp (I + A) P + w_vp (I + A) V - w_np (I + A) N'        p->p, v->p, n->p  Eq. 3-4

    from its own nodes and, by the edges `A`, from the five classes whose texts are most alike.
    As in the described network one matrix `W` serves all classes and relations; it is linear, with
    a ridge for tanh, and each class has a residual of its own:

        D = M W' + R,    sum_i w_i CE(logits_i + D z_i) + penalty (|W|^2 + |R|^2) / 2.

    The problem is convex. A row hears its own class without itself. The matrix acts from two
    shots on (`w sqrt(1 - 1/k)`), `R` always, in the directions in which classes are known to
    differ.

All three are linear in `z`, and so is their sum: a fitted classifier is one matrix.

Text that classifies the support rows by chance tells nothing of them: it is left out, with a
warning (:mod:`~skhegraph.hegraph.useless_text`), and class means take the place of `P`.

Of very many labelled rows some are kept as rows, and the others enter `V`, `S` and `k` as sums
(:mod:`skhegraph.many_rows`).

A class that has a name and no image gets the visual node that its text and the nodes of similar
classes predict (1) and its text logits (2); training (3) adds to classes with images alone. Where
only one class has images, they say nothing of the others, and the text decides. Images without a
label join all classes, each as much as the labelled ones tell of it
(:mod:`~skhegraph.hegraph.unlabelled`). How familiar an
image is (:mod:`~skhegraph.hegraph.familiarity`) is its density about the visual nodes, and how far
one class stands above the others. What an answer rests on (:mod:`~skhegraph.hegraph.evidence`) are
the parts of its logits.

HeGraphAdapterClassifier (as described)
---------------------------------------

Zhao et al., "HeGraphAdapter: Tuning Multi-Modal Vision-Language Models with Heterogeneous Graph
Adapter", arXiv 2410.07854; no author code is public. One pass of messages
(:mod:`~skhegraph.hegraph.network`), with one learned matrix per target type,

    m_i = tanh(W (x_i / (d_i + 1) + sum_j r_ij / sqrt((d_i + 1) (e_j + 1)) y_j)),

adapts negatives, then positives, then shifts the rows of a cache of the support set:

    N'   = N + b_pn m(p->n) + b_vn m(v->n)                       Eq. 1-2
    P'   = P + a_pp m(p->p) + a_vp m(v->p) + a_np m(n'->p)       Eq. 3-4
    B    = tanh(W_v sum_j r_ij / sqrt(..) V_j)                   Eq. 5
    X'_k = X_k + g B_c(k)                                        Eq. 6
    text logits   = tau cos(z, P')                               Eq. 7
    visual logits = tau sum_k exp(-beta (1 - cos(z, X'_k))) L_k  Eq. 8
    loss          = CE(text) + lambda CE(visual)                 Eq. 9

Equations 1 to 9 are known second-hand, from an unofficial re-implementation, which averages the
probabilities of both and feeds CLIP's raw features, about 10 long; nodes have that length here. By
default the two are added as logits instead, with weights and a sharpness told by leave-one-out
logits (:mod:`~skhegraph.hegraph.cache`), and the network, sparse and from zero-shot on, learns what
the cache leaves over.
"""
