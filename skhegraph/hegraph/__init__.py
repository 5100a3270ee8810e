"""The Heterogeneous Graph Adapter, in reading order."""
