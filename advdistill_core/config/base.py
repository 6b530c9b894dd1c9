"""What every configuration section shares: strict models and self-describing fields."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue


def _make_a_form(schema: dict[str, Any]) -> None:
    """Give each property its declaration order: forms sort by `position`, else by name."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position
        for choice in (field, *field.get("anyOf", [])):
            _let_fractions_in(choice)


def _let_fractions_in(field: dict[str, Any]) -> None:
    """Say `minimum` in another way where fractions are allowed.

    A browser counts a number field's steps of 1 from its minimum, so that a form which
    passes the minimum on refuses 0.8. The server checks `not` all the same.
    """
    if field.get("type") == "number" and "minimum" in field:
        field["not"] = {"exclusiveMaximum": field.pop("minimum")}


class Section(BaseModel):
    """A frozen part of the configuration; unknown fields are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        json_schema_extra=_make_a_form,
        protected_namespaces=(),
    )

    def identity(self) -> dict[str, Any]:
        """The fields that decide a stage's result, in canonical JSON types.

        Leaves out what was declared with `affects_result=False` (batch sizes, worker
        counts, devices): two configurations with equal identities give the same tables.
        """
        kept = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("affects_result") is False:
                continue
            kept[name] = _canonical(getattr(self, name))
        return kept


def _canonical(value: Any) -> Any:
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value


def setting(default: Any, title: str, description: str, *, affects_result: bool = True, **bounds: Any) -> Any:
    """Declare a field as the configuration form shows it.

    Args:
        default: the default value, or `...`; a callable is taken as a default factory.
        title: the label in the form.
        description: the help text, with the unit.
        affects_result: whether the field changes what a stage produces, and so enters
            its fingerprint.
        **bounds: pydantic constraints such as `ge` and `le`.
    """
    extra: dict[str, JsonValue] | None = None if affects_result else {"affects_result": False}
    if callable(default):
        bounds["default_factory"] = default
    else:
        bounds["default"] = default
    return Field(title=title, description=description, json_schema_extra=extra, **bounds)


def device_setting() -> Any:
    """Where a model of this section is computed."""
    return setting(
        "auto",
        "Device",
        "auto, cpu, cuda or cuda:N.",
        affects_result=False,
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
