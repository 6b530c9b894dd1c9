"""A wrong recipe gives one line: the field, what it got, what is expected, what to do."""

import pickle
from pathlib import Path

import pytest

from advdistill_core import errors
from advdistill_core.config import DistillConfig
from advdistill_core.config.loading import apply_overrides, build_config, read_recipe
from advdistill_core.errors import InputError


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.k=0", ["teacher.k", "got 0", "greater than or equal to 1"]),
        ("teacher.k=many", ["teacher.k", "many", "integer"]),
        ("teacher.temprature=1", ["teacher.temprature", "Did you mean temperature?"]),
        ("techer.k=1", ["techer", "Did you mean teacher?"]),
        ("student.reduction=mean", ["student.reduction", "mean", "token_mean"]),
        ("student.learning_rate=nan", ["student.learning_rate", "nan", "finite"]),
        ("prompts.families=[{nam: x}]", ["prompts.families.0.nam", "Did you mean name?"]),
        ("prompts.path=x.jsonl", ["prompts", "path would be ignored"]),
        ("prompts.source=file", ["prompts", "path is missing"]),
        ("teacher.k", ["--set", "section.field=value"]),
        ("=1", ["--set"]),
        ("prompts.families=[", ["--set"]),
        ("name=a b", ["name", "pattern"]),
        ("rewards.task=x", ["rewards.task", "Did you mean prompts.task?"]),
        ("task=x", ["task", "Did you mean prompts.task?"]),
        (
            "prompts.instruction={quest} hello",
            ["put it in quotes", """--set "prompts.instruction='{quest} hello'\""""],
        ),
    ],
)
def test_bad_overrides(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build_config(apply_overrides({}, [override]))
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("value", ["[`rm x`", "{$HOME} y", '{q} "x"', "[it's"])
def test_no_quotes_are_advised_in_which_a_shell_reads_on(value: str) -> None:
    with pytest.raises(InputError, match=r"put it in quotes\.$"):
        apply_overrides({}, [f"prompts.instruction={value}"])


def test_the_other_wrong_fields_are_named() -> None:
    wrong = ["teacher.k=0", "student.learning_rate=nan", "techer.k=1", "prompts.instruction=none"]
    with pytest.raises(InputError) as caught:
        build_config(apply_overrides({}, wrong))
    first, _, others = str(caught.value).partition(" Wrong too: ")
    named = {caught.value.what, *others.removesuffix(".").split(", ")}
    assert named == {"teacher.k", "student.learning_rate", "techer", "prompts.instruction"}
    assert first.count(": got ") == 1


def test_the_quotes_that_are_advised_help() -> None:
    document = apply_overrides({}, ["prompts.instruction='{question} hello'"])
    assert build_config(document).prompts.instruction == "{question} hello"


def test_overrides_convert_by_the_fields_type() -> None:
    config = build_config(
        apply_overrides(
            {"teacher": {"k": 2}},
            [
                "teacher.temperature=1e-1",
                "teacher.model=123",
                "weighting.merge_duplicates=false",
                "prompts.families=[{name: gcd, weight: 2}]",
                "prompts.id_column=null",
            ],
        )
    )
    assert (config.teacher.k, config.teacher.temperature, config.teacher.model) == (2, 0.1, "123")
    assert config.weighting.merge_duplicates is False
    assert config.prompts.families[0].name == "gcd"


def test_overrides_leave_the_recipe_alone() -> None:
    recipe = {"teacher": {"k": 2}}
    apply_overrides(recipe, ["teacher.k=5"])
    assert recipe == {"teacher": {"k": 2}}


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "\x00"])
def test_broken_recipe_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_missing_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.yaml"):
        read_recipe(tmp_path / "missing.yaml")


def test_every_field_is_described_and_ordered() -> None:
    schema = DistillConfig.model_json_schema()
    for name, model in {**schema["$defs"], "DistillConfig": schema}.items():
        positions = []
        for field, spec in model["properties"].items():
            assert spec.get("title"), f"{name}.{field}"
            assert spec.get("description"), f"{name}.{field}"
            assert "discriminator" not in spec, f"{name}.{field}"
            positions.append(spec["position"])
        assert positions == list(range(len(positions)))


@pytest.mark.parametrize("kind", [errors.StageError, errors.ArtifactError, errors.FingerprintError])
def test_errors_survive_pickling(kind: type[Exception]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("a b")))) == "a b"


def test_input_error_survives_pickling_and_is_one_line() -> None:
    error = InputError("f", "x\ny" * 500, "a rule", "Do this.")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 300
    assert isinstance(error, ValueError)
