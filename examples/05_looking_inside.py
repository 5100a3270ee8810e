"""
Looking inside the graph
========================

Each class has three nodes: one for its positive prompts, one for its negative prompts, one for its
images. Seven relations join them. This example draws the graph, shows what adaptation moved, and
asks the two branches, text and images, separately.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier
from skhegraph.inspection import AdaptationDisplay, GraphDisplay

images, names = load_pieces(n_per_class=16)
features = CLIPFeatures("skhegraph-lite").fit_transform(images)
support, test = next(FewShotSplit(4, n_splits=1, random_state=0).split(features, names))
clf = HeGraphClassifier("skhegraph-lite")
clf.fit(features[support], names[support])

# %%
# The graph as data
# -----------------
# ``to_hetero_data`` gives the graph to torch_geometric: the edges along which messages went, times
# the strength with which their relation acted. ``graph_`` has its nodes as NumPy arrays.

graph = clf.to_hetero_data()
for source, _, target in graph.edge_types:
    weight = graph[source, "to", target].edge_weight
    low, high = float(weight.min()), float(weight.max())
    print(f"{source:>8} -> {target:<8} {len(weight):3d} edges, {low:+.2f} to {high:+.2f}")

# %%
# How far each branch is trusted
# ------------------------------
# Both weights are estimated on support images that were left out. Each multiplies logits of its own
# scale, so that they say little beside each other: the next example has the shares of an answer.

print(f"positive_to_visual {clf.positive_to_visual_:.2f}")
print(f"text_weight {clf.text_weight_:.2f}, visual_weight {clf.visual_weight_:.3f}")
branches = clf.branch_proba(features[test])
for branch, proba in branches.items():
    right = clf.classes_[proba.argmax(axis=1)] == names[test]
    print(f"{branch:>6}: {100 * np.mean(right):.1f} % right")

# %%
# The pictures
# ------------
# Left: the strongest edges of each relation, with its strongest in the legend. Classes with similar
# text are neighbours along each arc. A node hears from its own class first, and from those whose
# text is like its own; negative nodes hear what their class is not, with the sign turned.
#
# Right: where the text alone would put the images of each class, where the mean of its four images
# is, and where the visual node ends up. With few images a mean is uncertain, and the node is drawn
# towards what the text and the other classes say. Here the text says little: a message of strength
# ``positive_to_visual_`` = 0.1 or so puts all classes near the middle.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(14, 7), width_ratios=[1.15, 1], layout="constrained"
)
GraphDisplay.from_estimator(clf, n_edges=10, ax=left)
left.set_title("The ten strongest edges of each relation")
display = AdaptationDisplay.from_estimator(clf, ax=right)
for c in np.argsort(-display.moved)[:3]:
    print(
        f"{clf.classes_[c]:>14} moved by {100 * display.moved[c]:.0f} % of the spread, "
        f"cosine to its text {display.toward_text[c]:.2f}"
    )
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=110)
print(f"saved {out}")
