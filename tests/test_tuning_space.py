"""What is searched: the space file, the default space, and KerasTuner's side of it."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.config import Config, settings
from transfer.errors import InputError
from transfer.tuning import space as spaces
from transfer.tuning.space import Choices, Range

SEARCHED = [name for name, setting in settings().items() if setting.is_searched]
RANGE = {"min": 1e-4, "max": 1e-2, "log": True}


def default(config=None, *, from_scratch=False):
    return spaces.default_space(config or Config(), [1e-4], from_scratch=from_scratch)


def make(config=None, said=None, given=(), objective="val_accuracy"):
    return spaces.make_space(config or Config(), default(), said or {}, given, objective=objective)


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("optimizer", "adamw", "adamw"),
        ("batch_size", [64, 128, 64], Choices((64, 128))),
        ("batch_size", [64], 64),
        ("dropout", [0, 0.5], Choices((0.0, 0.5))),
        ("unfreeze", [0.3, "all"], Choices((0.3, "all"))),
        ("flip", [True, False], Choices((True, False))),
        ("finetune_learning_rate", RANGE, Range(1e-4, 1e-2, log=True)),
        ("hidden_units", {"min": 0, "max": 512}, Range(0, 512)),
        ("dropout", {"min": 0.1, "max": 0.1}, 0.1),
    ],
)
def test_the_three_forms_of_a_dimension(name, said, expected):
    assert spaces.parse_dimension(name, said) == expected


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("learning_rate", 1, "unknown setting 'learning_rate'"),
        ("seed", 1, "give it as --seed"),
        ("image_size", [32, 64], "give it as --image-size"),
        ("optimizer", "lion", "optimizer should be one of adam"),
        ("optimizer", {"min": 1, "max": 2}, "optimizer is no number"),
        ("backbone", ["vgg16", "vgg17"], "backbone should be one of"),
        ("backbone", [["vgg16"]], "backbone should be"),
        ("batch_size", [], "at least one value"),
        ("batch_size", [64, 0], "batch_size should be a whole number from 1"),
        ("batch_size", {"min": 1.5, "max": 64}, "a whole number"),
        ("dropout", {"min": 0.5, "max": 0.1}, "min should be at most max"),
        ("dropout", {"min": 0, "max": 0.5, "log": True}, "min should be above 0"),
        ("dropout", {"min": 0, "max": 1}, "below 1"),
        ("dropout", {"min": 0}, 'dropout should be a value, a list, or {"min": a'),
        ("dropout", {"min": 0, "max": 0.5, "step": 0.1}, "dropout should be a value, a list"),
        ("finetune_learning_rate", {"min": "auto", "max": 1}, "should be a value, a list"),
        ("flip", None, "true or false"),
        ("flip", [1], "true or false"),
    ],
)
def test_what_is_not_accepted_is_told_in_one_line(tmp_path, name, said, told):
    path = tmp_path / "space.json"
    path.write_text(json.dumps({name: said}))
    with pytest.raises(InputError) as error:
        spaces.read_space(path)
    assert told in str(error.value)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", '{"dropout": ', '{"dropout": NaN}', "3"])
def test_a_file_that_is_no_object_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "space.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        spaces.read_space(path)
    assert str(error.value).count(str(path)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["min", "max", "log", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)
WORDS = st.sampled_from(["all", "auto", "adam", "sgd", "vgg16", "plateau"])
NUMBERS = st.integers(-2, 300) | st.floats(-1, 2)
RANGES = st.fixed_dictionaries({"min": NUMBERS, "max": NUMBERS}, optional={"log": st.booleans()})


@given(st.sampled_from([*settings(), "x"]), JSON | RANGES | st.lists(NUMBERS | WORDS) | WORDS)
def test_whatever_a_file_says_is_taken_within_bounds_or_refused(name, said):
    try:
        dimension = spaces.parse_dimension(name, said)
    except InputError as error:
        assert str(error).isprintable()
        return
    assert name in SEARCHED
    if isinstance(dimension, (Choices, Range)):
        assert len(dimension.grid()) > 1
        values = dimension.grid()
        space = {name: dimension}
        hyperparameters = spaces.make_hyperparameters(space, Config()).space
        values += tuple(
            spaces.decode(space, {name: hyperparameters[0].random_sample(s)})[name]
            for s in range(3)
        )
        assert all(dimension.accepts(value) for value in values)
    else:
        values = (dimension,)
    for value in values:
        settings()[name].check(name, value)


def test_every_default_dimension_is_a_setting_and_reaches_the_users_own():
    users = dataclasses.replace(Config(), finetune_learning_rate=1e-4, hidden_units=128)
    for name, dimension in default().items():
        for value in dimension.grid():
            settings()[name].check(name, value)
        assert dimension.accepts(getattr(users, name)), name


def test_what_has_no_effect_is_not_searched():
    scratch = default(from_scratch=True)
    assert not {"head_learning_rate", "unfreeze"} & set(scratch)
    heads = default(Config(finetune_epochs=0))
    assert "head_learning_rate" in heads
    assert not {"finetune_learning_rate", "unfreeze", "rotation_degrees"} & set(heads)
    assert "head_learning_rate" not in default(Config(head_epochs=0))


def test_what_the_user_gave_is_kept_unless_the_file_says_otherwise():
    space = make(given={"optimizer", "dropout"}, said={"dropout": Choices((0.1, 0.4))})
    assert "optimizer" not in space and space["dropout"] == Choices((0.1, 0.4))
    config = spaces.fix(Config(), {"l2": 0.1, "dropout": Choices((0.1, 0.4))})
    assert (config.l2, config.dropout) == (0.1, Config().dropout)


@pytest.mark.parametrize(("said", "given"), [({"schedule": "cosine"}, ()), ({}, {"schedule"})])
def test_a_cosine_that_is_fixed_has_no_plateau_to_search(said, given):
    space = make(Config(schedule="cosine"), said, given)
    assert "plateau_factor" not in space and "schedule" not in space
    assert "plateau_factor" in make(Config(schedule="cosine"))


def test_a_loss_that_differs_in_kind_is_never_compared():
    space = make(objective="val_loss")
    assert not {"label_smoothing", "l2"} & set(space)
    with pytest.raises(InputError, match="l2 is part of the validation loss"):
        make(objective="val_loss", said={"l2": Choices((0.0, 0.1))})


def test_nothing_left_to_search_is_told():
    with pytest.raises(InputError, match="nothing is left to search"):
        make(given=set(settings()))


def test_a_grid_takes_each_combination_once():
    space = {
        "optimizer": Choices(("adam", "sgd")),
        "finetune_learning_rate": Range(1e-4, 1e-2, log=True),
        "hidden_units": Range(0, 10),
    }
    combinations = [spaces.grid_values(space, i) for i in range(spaces.grid_size(space))]
    assert len(combinations) == 18 == len({tuple(values.items()) for values in combinations})
    assert combinations[0] == {
        "optimizer": "adam",
        "finetune_learning_rate": 1e-4,
        "hidden_units": 0,
    }
    assert {values["finetune_learning_rate"] for values in combinations} == {1e-4, 1e-3, 1e-2}
    assert [spaces.grid_number(space, values) for values in combinations] == list(range(18))
    assert spaces.grid_number(space, combinations[0] | {"hidden_units": 3}) is None


def test_values_come_back_from_keras_tuner_as_they_went():
    space = default()
    values = {name: dimension.grid()[-1] for name, dimension in space.items()}
    assert spaces.decode(space, spaces.encode(space, values)) == values
    noisy = {"finetune_learning_rate": 0.000123456789}
    only = {"finetune_learning_rate": space["finetune_learning_rate"]}
    assert spaces.decode(only, noisy) == {"finetune_learning_rate": 0.0001235}
