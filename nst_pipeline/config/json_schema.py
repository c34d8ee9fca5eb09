"""The JSON schema of pipeline.yaml, by which editors complete and check it."""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from nst_pipeline.config.pipeline import Config
from nst_pipeline.config.recipe import ADDED, NOT_PIXELS

SCHEMA_PATH = Path(__file__).with_name("pipeline.schema.json")
"""The schema as it is shipped; ``scripts/generate`` writes it."""


class _Plain(GenerateJsonSchema):
    """Leaves out titles that only say a key in other words."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema_text() -> str:
    """Return the schema of what `config.pipeline.parse` accepts, as JSON.

    It is stricter in one thing: a number in quotes, or yes in place of true, it refuses. What needs
    a look at the disk, and how folders lie to each other, it leaves to the program.
    """
    settings = _standard(Config.model_json_schema(schema_generator=_Plain))
    title = {"title": "pipeline.yaml of nst-pipeline"}
    schema = {"$schema": _Plain.schema_dialect} | settings | title
    return json.dumps(schema, indent=2) + "\n"


def _standard(schema: Any) -> Any:
    """Return a schema without what only we, or only pydantic, know the meaning of."""
    if isinstance(schema, list):
        return [_standard(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    foreign = (*NOT_PIXELS.items(), *ADDED.items(), ("format", "path"))
    return {key: _standard(value) for key, value in schema.items() if (key, value) not in foreign}
