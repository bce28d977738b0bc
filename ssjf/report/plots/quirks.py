"""The quirks of the published simulation in words."""

ALL_ON = ""
ALL_OFF = "+"  # any setting of several names

WORDS = {
    "whole_second_arrivals": (
        "arrivals at whole seconds",
        "arrivals are uniform within their second",
    ),
    "sorted_gaps": ("gaps sorted, shortest first", "gaps stay in the order drawn"),
    "milliseconds_as_seconds": (
        "Azure ms read as s",
        "trace times are milliseconds, a load 1,000 times higher",
    ),
    "fcfs_waits_to_fill": (
        "FCFS idles to fill a batch",
        "FCFS starts at once, as SJF and SSJF do",
    ),
    "drops_last_job": ("SJF, SSJF drop the last job", "every job is served"),
    "free_preemption": ("preemption costs nothing", "a job that runs keeps its slot"),
    "joins_on_completion_only": (
        "free slots wait for a completion",
        "an arrival takes a free slot at once",
    ),
    "starvation_guard": ("starvation guard", "the order is never turned into FCFS"),
    "guard_reads_truth": (
        "guard reads true lengths",
        "the guard reads the mean length of the predicted class",
    ),
    "drifting_clock": ("clock drifts by rounding", "time is exact"),
}
"""quirk: what it is, and how things are without it."""


def off(quirks_off: str) -> str:
    """A setting (names joined by +) as the label of a row."""
    if quirks_off == ALL_ON:
        return "as published"
    return "without any quirk" if is_all(quirks_off) else WORDS[quirks_off][0]


def mended(quirks_off: str) -> str:
    """What a setting mends, in words."""
    if quirks_off == ALL_ON:
        return "nothing"
    return "all of them" if is_all(quirks_off) else WORDS[quirks_off][1]


def is_all(quirks_off: str) -> bool:
    """Are all quirks off?"""
    return "+" in quirks_off
