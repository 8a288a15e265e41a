"""Runs as a static leaderboard."""

from mvv.leaderboard.build import build_leaderboard

__all__ = ["build_leaderboard"]
