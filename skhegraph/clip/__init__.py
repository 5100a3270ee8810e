"""Images and class names to CLIP features and text nodes; knows no classifier.

In reading order: ``features`` (the transformer), ``items`` (of one photograph or several),
``encoding`` (the way from images to rows),
``images``, ``image_files`` and ``unreadable`` (anything to an RGB image, or to the reason why not),
``views`` (crops and mirror images of one), ``model`` (the CLIP), ``checkpoints``, ``bundled`` and
``unfit_weights`` (its files), ``folding`` and ``torch_settings`` (how it is built and run),
``feature_cache``, ``known_model``, ``digests`` and ``fingerprint`` (features on disk, their keys,
and what they tell of a model), ``prompts`` and ``presets`` (class names to text nodes),
``threads``.
"""
