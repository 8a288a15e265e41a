"""The evaluation suite: metric cards, protocols, inputs, extractors, statistics, guards and the leaderboard's tables.

Stands on `manifests` alone; models are loaded only by the extractors that need them.
"""
