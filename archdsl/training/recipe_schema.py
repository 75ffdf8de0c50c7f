"""JSON Schema of a training recipe, for editors."""

from __future__ import annotations

from archdsl.spec.schema import DRAFT, Json, properties_of
from archdsl.training.recipe import Recipe


def recipe_schema() -> Json:
    """Draft 7. A recipe that extends another may leave out what that one says."""
    definitions: Json = {}
    properties = properties_of(Recipe, definitions)
    required = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    extends = {
        "type": "string",
        "description": "the recipe to build on: a shipped name, or a path relative to this file",
    }
    return {
        "$schema": DRAFT,
        "title": "archdsl recipe",
        "description": "How a network is trained: optimiser, schedule, augmentation and length.",
        "type": "object",
        "properties": {"extends": extends, **properties},
        "additionalProperties": False,
        "anyOf": [{"required": ["extends"]}, {"required": required}],
        "definitions": definitions,
    }
