"""The tour serves one workload twice, draws it fast, and follows its controls."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from ssjf import tour
from ssjf.errors import InputError
from ssjf.workload.synthetic import PROCESSES

matplotlib.use("Agg")


def test_both_policies_serve_the_same_requests():
    played = tour.play(policy="sjf", requests=50)
    fcfs, sjf = played.runs["fcfs"], played.runs["sjf"]
    assert fcfs.requests is sjf.requests
    assert len(fcfs) == 50
    assert not np.isnan(sjf.finished_at).any()


def test_sjf_gains_where_a_queue_stands():
    played = tour.play(policy="sjf", rho=1.2, slots=1, requests=200)
    assert played.measured["sjf"]["jct_mean"] < played.measured["fcfs"]["jct_mean"]
    assert "gain" in tour.summary(played)


def test_fcfs_against_itself_gains_nothing():
    assert "gain 0.0 %" in tour.summary(tour.play(policy="fcfs"))


def test_a_request_is_followed_and_mean_and_p99_stand_side_by_side():
    fig = tour.draw(requests=30, follow=99)
    words = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert sum("request 29: " in text for text in words) == 2
    bars = fig.axes[-1]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["mean", "p99"]
    assert len(bars.patches) == 4


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_is_drawn(process):
    assert isinstance(tour.draw(process=process, requests=20), Figure)


def test_the_same_scene_is_the_same_table():
    assert tour.table(seed=3).equals(tour.table(seed=3))
    assert not tour.table(seed=3).equals(tour.table(seed=4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "none such"},
        {"process": "none such"},
        {"requests": 201},
        {"rho": -1.0},
        {"follow": -1},
    ],
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(InputError):
        tour.play(**wrong)


def test_the_controls_follow_the_scene_and_show_a_picture():
    box = tour.explore(rho=0.5, policy="hrrn", requests=20)
    controls, shown = box.children
    values = {control.description: control.value for control in controls.children}
    assert values["load ρ"] == 0.5
    assert values["policy"] == "hrrn"
    assert type(shown).__name__ == "Output"


def test_an_unknown_control_is_refused():
    with pytest.raises(TypeError):
        tour.explore(slot=2)
