"""Scores of whole sequences: rewards are maximised, costs and errors are minimised."""

from pgest.rewards.edit import Closest, closest_reference, edit_distance, error_rate

__all__ = ["Closest", "closest_reference", "edit_distance", "error_rate"]
