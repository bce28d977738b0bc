"""A policy of a user's file: shortest first, but of those that run the longest is kept."""

from ssjf.scheduler import Moving, Policy


def left(arrived, predicted, generated, now):
    return predicted - generated


def made(arrived, predicted, generated, now):
    return generated - predicted


longest_kept = Policy("longest-kept", Moving(left), victims=Moving(made))
