import pytest

from common.parse import parse_json, parse_yaml

DEEP = 100_000


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_what_is_whole_is_read(parse):
    assert parse('{"a": [1, 2.5, null, "ä"]}') == {"a": [1, 2.5, None, "ä"]}


@pytest.mark.parametrize(
    ("parse", "damaged"),
    [
        (parse_json, '{"a": '),
        (parse_json, "[" * DEEP),
        (parse_json, b"\xff\xfe\xff"),
        (parse_yaml, "a: [1"),
        (parse_yaml, "[" * DEEP),
        (parse_yaml, "a: !!bool x"),
        (parse_yaml, "a: !!timestamp x"),
        (parse_yaml, "!!python/object/apply:os.getcwd []"),
    ],
)
def test_every_damage_is_a_value_error_of_one_line(parse, damaged):
    with pytest.raises(ValueError, match=r".+") as error:
        parse(damaged)
    assert "\n" not in str(error.value)
