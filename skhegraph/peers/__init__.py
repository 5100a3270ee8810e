"""Adapters of others, as small estimators."""

from skhegraph.peers.training_free import *  # noqa: F403
