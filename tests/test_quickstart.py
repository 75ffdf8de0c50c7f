"""The shipped studies: what the quickstart asks is a question its space can answer, and both studies load."""

import pytest
from toy_training import connects_halves

import archdsl
from archdsl.compiler import identity
from archdsl.language import load_space, shipped_spaces
from archdsl.language.space.counting import count
from archdsl.training import parse_source
from archdsl.training.optimizers import redraw_fan_in

KNOWN = {"micro_swin": True, "micro_swin_free": True, "micro_swin_free_br": True, "micro_swin_isolated": False}


@pytest.mark.parametrize("name", KNOWN)
def test_only_networks_that_join_windows_can_tell_left_from_right(name: str):
    """A network whose windows never meet answers the same when the halves are swapped: its ceiling is 50 %."""
    data = parse_source("synthetic").open((32, 32))
    module = archdsl.build(name)
    redraw_fan_in(module, seed=0)
    assert connects_halves(module, data) is KNOWN[name]


def test_the_quickstart_searches_window_shift_norm_act_and_depth():
    space = load_space("quickstart")
    paths = " ".join(choice.path for choice in space.choices)
    labels = " ".join(label for choice in space.choices for label in choice.labels)
    assert all(word in paths for word in ("window", "shift", "depth"))
    assert "norm: batch, act: relu" in labels
    assert {start.name for start in space.start} >= {"micro_swin", "micro_swin_free", "micro_swin_isolated"}


def test_the_quickstarts_settings_hold_fewer_networks_than_settings():
    size = count(load_space("quickstart"), identity)
    assert size.total == size.valid.value > size.distinct.value > 100


def test_every_shipped_study_loads_and_its_known_designs_are_in_it():
    for path in shipped_spaces():
        space = load_space(path)
        assert space.source and space.start, path
        for start in space.start:
            archdsl.cost(space.spec(start.assignment))
