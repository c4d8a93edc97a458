"""Settings: each one's bounds and words, and the way to JSON and back."""

import json
import math
import os

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from transfer.config import LARGEST_WHOLE_NUMBER, Config, groups, settings
from transfer.errors import InputError

NUMBERS = {name: setting for name, setting in settings().items() if setting.kind in (int, float)}
NAMES = pytest.mark.parametrize("name", settings())
NUMBER_NAMES = pytest.mark.parametrize("name", NUMBERS)


def refusal(name, value):
    """The one line that tells why a setting is refused."""
    with pytest.raises(InputError) as raised:
        Config(**{name: value})
    message = str(raised.value)
    assert message == f"{name} should be {settings()[name].describe()}. Received: {name}={value!r}."
    return message


def takes(name, value):
    assert getattr(Config(**{name: value}), name) == value


def beyond(setting, bound, direction):
    """The next number past a bound; of a whole number, the next whole one."""
    return (
        int(bound + direction) if setting.kind is int else math.nextafter(bound, bound + direction)
    )


def whole(bound):
    return int(bound) if math.isfinite(bound) else None


def accepted(setting):
    """A hypothesis strategy of everything that a setting takes."""
    if setting.choices:
        return st.sampled_from(setting.choices)
    if setting.kind is bool:
        return st.booleans()
    if setting.kind is str:
        return st.text()
    if setting.kind is int:
        most = min(setting.maximum, LARGEST_WHOLE_NUMBER)
        values = st.integers(*(whole(bound) for bound in (setting.minimum, most)))
    else:
        values = st.floats(
            setting.minimum,
            setting.maximum,
            exclude_min=setting.open_minimum,
            exclude_max=setting.open_maximum,
        )
    values |= st.sampled_from(setting.words) if setting.words else st.nothing()
    return values | st.none() if setting.optional else values


CONFIGS = st.fixed_dictionaries(
    {},
    optional={n: accepted(s) for n, s in settings().items()}
    | {"backbone": st.text().map(str.lower)},
)


@NAMES
def test_every_setting_has_help_and_accepts_its_default(name):
    setting = settings()[name]
    setting.check(name, getattr(Config(), name))
    assert setting.help.endswith(".") and "\n" not in setting.help
    assert setting.kind in (int, float, bool, str)


@NUMBER_NAMES
def test_numbers_are_accepted_up_to_their_bounds_and_no_further(name):
    setting = NUMBERS[name]
    assert -math.inf < setting.minimum < setting.maximum
    for bound, outward, is_open in (
        (setting.minimum, -1, setting.open_minimum),
        (setting.maximum, 1, setting.open_maximum),
    ):
        if not math.isfinite(bound):
            takes(name, 10**12)
            continue
        bound = setting.kind(bound)
        refusal(name, beyond(setting, bound, outward))
        if is_open:
            refusal(name, bound)
            takes(name, beyond(setting, bound, -outward))
        else:
            takes(name, bound)


@pytest.mark.parametrize(
    "name, value",
    [
        ("image_size", 15),
        ("head_learning_rate", 0.0),
        ("finetune_learning_rate", 0.0),
        ("batch_size", 0),
        ("dropout", 1.0),
        ("label_smoothing", 1.0),
        ("unfreeze", 0.0),
        ("unfreeze", 1.5),
        ("zoom_fraction", 1.0),
        ("rotation_degrees", 181),
        ("translation_fraction", 1.01),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("plateau_patience", 0),
        ("plateau_factor", 1.0),
        ("limit", 0),
        ("seed", -1),
    ],
)
def test_values_that_make_no_sense_are_refused(name, value):
    refusal(name, value)


@NUMBER_NAMES
@pytest.mark.parametrize("value", [True, False])
def test_a_switch_is_not_a_number(name, value):
    refusal(name, value)


@NUMBER_NAMES
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(name, value):
    refusal(name, value)


@pytest.mark.parametrize("name", ["dropout", "batch_size"])
def test_a_whole_number_too_large_for_a_float_is_refused(name):
    with pytest.raises(InputError, match=f"{name} should be"):
        Config(**{name: 10**400})


@NUMBER_NAMES
@pytest.mark.parametrize("value", ["1", "", "autumn", b"auto", [1], {}])
def test_numbers_are_neither_texts_nor_lists(name, value):
    refusal(name, value)


@NAMES
def test_none_is_accepted_only_where_it_means_something(name):
    if settings()[name].optional:
        takes(name, None)
    else:
        refusal(name, None)


@pytest.mark.parametrize("name", [n for n, s in NUMBERS.items() if s.kind is int])
def test_whole_numbers_are_whole(name):
    refusal(name, NUMBERS[name].minimum + 1.0)
    refusal(name, NUMBERS[name].minimum + 1.5)


@pytest.mark.parametrize("name", [n for n, s in NUMBERS.items() if s.kind is float])
def test_a_whole_number_passes_where_a_number_is_asked(name):
    setting = NUMBERS[name]
    takes(name, int(setting.minimum) if not setting.open_minimum else setting.maximum / 2)


@pytest.mark.parametrize("name", [n for n, s in settings().items() if s.choices or s.words])
def test_words_are_accepted_in_any_case_and_kept_as_they_are_told(name):
    setting = settings()[name]
    for word in setting.choices or setting.words:
        takes(name, word)
        for written in (word.upper(), word.title()):
            assert getattr(Config(**{name: written}), name) == word
        assert word in refusal(name, f" {word}")
    refusal(name, "none")
    refusal(name, [*(setting.choices or setting.words)])


@pytest.mark.parametrize("name", [n for n, s in settings().items() if s.kind is bool])
def test_switches_are_true_or_false_and_nothing_else(name):
    takes(name, True)
    takes(name, False)
    for value in (0, 1, "true", ""):
        refusal(name, value)


@pytest.mark.parametrize(
    "name", [n for n, s in settings().items() if s.kind is str and not s.choices]
)
def test_texts_are_texts(name):
    takes(name, "anything")
    for value in (1, True, ["x"]):
        refusal(name, value)


def test_a_backbone_is_named_in_any_case():
    assert Config(backbone="MobileNetV2") == Config(backbone="mobilenetv2")


def test_settings_are_given_by_name_alone():
    with pytest.raises(TypeError):
        Config("sample")


def test_every_setting_stands_in_one_group_in_their_order():
    assert [name for names in groups().values() for name in names] == list(settings())
    assert len(settings()) == len(set(settings()))


def test_a_whole_number_that_json_would_not_keep_is_refused_with_the_largest():
    assert Config(limit=LARGEST_WHOLE_NUMBER).limit == LARGEST_WHOLE_NUMBER
    with pytest.raises(InputError, match="limit should be .*, at most 9007199254740992"):
        Config(limit=LARGEST_WHOLE_NUMBER + 1)


def test_a_run_has_at_least_one_epoch():
    Config(head_epochs=0)
    Config(finetune_epochs=0)
    with pytest.raises(InputError, match="head_epochs and finetune_epochs are both 0"):
        Config(head_epochs=0, finetune_epochs=0)


def test_an_unknown_name_is_named():
    with pytest.raises(InputError, match="unknown setting 'learning_rat'.*head_learning_rate"):
        Config.from_dict({"learning_rat": 0.1, "seed": 1})


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CONFIGS)
def test_json_and_back(tmp_path, values):
    assume(values.get("finetune_epochs", 1) or not values.get("small_epochs", 0))
    assume(values.get("head_epochs", 1) or values.get("finetune_epochs", 1))
    config = Config.from_dict(values)
    assert list(config.to_dict()) == list(settings())
    # A path that begins with "~" is one in the user's folder from then on.
    paths = {
        name: os.path.expanduser(values[name]) for name in ("data", "weights") if name in values
    }
    assert {name: config.to_dict()[name] for name in values} == values | paths
    bare, run = tmp_path / "bare.json", tmp_path / "config.json"
    bare.write_text(json.dumps(config.to_dict()))
    run.write_text(json.dumps({"settings": config.to_dict(), "versions": {}, "seed": "x"}))
    assert Config.from_json(bare) == Config.from_json(run) == config


def test_json_of_some_settings_leaves_the_others_at_their_defaults(tmp_path):
    path = tmp_path / "some.json"
    path.write_text('{"batch_size": 7, "flip": false, "limit": null}')
    assert Config.from_json(path) == Config(batch_size=7, flip=False)
    path.write_text("{}")
    assert Config.from_json(path) == Config()


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "cannot be read as JSON"),
        (b'{"seed": 1', "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "cannot be read as JSON"),
        (b"[1]", "should hold a JSON object"),
        (b'"auto"', "should hold a JSON object"),
        (b'{"seed": -1}', "seed should be"),
        (b'{"dropout": NaN}', "dropout should be"),
        (b'{"dropout": 1e999}', "dropout should be"),
        (b'{"seed": true}', "seed should be"),
        (b'{"sead": 1}', "unknown setting 'sead'"),
        (b'{"settings": {"sead": 1}}', "unknown setting 'sead'"),
        (b'{"a\\nb": 1}', "unknown setting"),
        (b'{"head_epochs": 0, "finetune_epochs": 0}', "both 0"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_a_damaged_file_is_told_in_one_line_with_its_name(tmp_path, content, told):
    path = tmp_path / "given.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as raised:
        Config.from_json(path)
    assert "given.json" in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(InputError, match=f"{path.name}.*cannot be read"):
            Config.from_json(path)


def test_a_tilde_is_the_home_in_every_setting_that_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config(data="~/photos", weights="~/w.h5")
    assert (config.data, config.weights) == (f"{tmp_path}/photos", f"{tmp_path}/w.h5")
    (tmp_path / "settings.json").write_text('{"weights": "~"}')
    assert Config.from_json(tmp_path / "settings.json").weights == str(tmp_path)
    assert Config(data="a~b", weights="imagenet") == Config(data="a~b", weights="imagenet")
    assert Config(data="a~b").data == "a~b"


def test_a_value_of_any_size_is_told_in_one_short_line():
    for value in (10**4000, "x" * 10**6, [[["x"] * 999] * 999], {"a": "\x1b[2J"}):
        with pytest.raises(InputError) as raised:
            Config(batch_size=value)
        assert str(raised.value).isprintable() and len(str(raised.value)) < 500
    with pytest.raises(InputError, match="limit"):
        Config(limit=2**53 + 1)
