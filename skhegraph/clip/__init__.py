"""Images and class names to CLIP features and text nodes; knows no classifier.

In reading order: ``features`` (the transformer), ``images`` and ``unreadable`` (anything to an RGB
image, or to the reason why not), ``model`` (the CLIP), ``checkpoints`` and ``unfit_weights`` (its
files), ``feature_cache``, ``digests`` and ``fingerprint`` (features on disk and their keys),
``prompts`` and ``presets`` (class names to text nodes), ``threads``.
"""
