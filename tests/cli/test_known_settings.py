"""The settings that `--help` shows are those of the classes."""

import dataclasses
import functools
import sys

import pytest
from absl import flags
from ml_collections import config_flags

import amc_tf
from amc_tf.cli import known_settings
from amc_tf.errors import AmcError


def of_class(settings, prefix=""):
    """The fields of an object of settings and of those within it, by their names."""
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= of_class(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = value
    return found


def test_every_setting_with_its_default_and_meaning():
    known = known_settings.known_settings()
    wanted = of_class(amc_tf.Settings())
    budget = {f"budget.{field.name}": None for field in dataclasses.fields(amc_tf.Budget)}
    assert set(known) == {*wanted, *budget}
    assert [setting.name for setting in known.values() if not setting.about] == []
    for name, value in {**budget, **wanted}.items():
        default = known[name].default
        if "*" not in default:  # names a table of policies
            assert eval(default, {"AUTO": None}) == value, name


def test_every_setting_can_be_given_on_the_command_line(monkeypatch):
    """Those whose default is None, too: such a value has no type of its own."""
    config = amc_tf.default_config()
    values = {bool: "false", int: "3", float: "0.5", str: "x", tuple: "(1, 2)"}
    given = []
    for name in known_settings.known_settings():
        *sections, field = name.split(".")
        kind = functools.reduce(getattr, sections, config).get_type(field)
        given.append(f"--config.{name}={values[kind]}")
    monkeypatch.setattr(sys, "argv", ["command", *given])  # ml_collections reads it
    parsed = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=parsed)
    parsed(sys.argv)
    assert config.search.rounding == 3 and config.search.min_preserve == 0.5
    assert config.latency.taskset == "x" and config.search.ddpg.learning_starts == 3


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--config.search.episode=3", "search.episodes"),
        ("--config.search.ddpg.sigm=3", "search.ddpg.sigma"),
        ("-config.budget.mac", "budget.macs"),
        ("--config.search.constraints.freez=()", "search.constraints.freeze"),
    ],
)
def test_misspelt(flag, nearest):
    with pytest.raises(AmcError, match=f"there is no setting '.*'; did you mean '{nearest}'"):
        known_settings.check_spelling([flag])


def test_others_are_the_experiments_own():
    known_settings.check_spelling(
        "--config.epochs=3 --config=a.py --config.search.episodes=3 search.episode --x".split()
    )
