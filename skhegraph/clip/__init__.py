"""Images and class names to CLIP features and text nodes; knows no classifier."""
