"""The API's page, made of its own description: FastAPI's pages load scripts from elsewhere."""

from typing import Any

from dinogrl_jax.retrieval.report.page import POLICY as PAGE_POLICY
from dinogrl_jax.retrieval.report.page import Html, element, join, page, section, table

POLICY = f"{PAGE_POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
ENDS = {"minimum": "from", "maximum": "to", "exclusiveMaximum": "below"}
HEADS = ["name", "where", "type", "meaning"]


def api_page(description: dict[str, Any]) -> str:
    """A page with each address, what it takes, and what it answers.

    description: in OpenAPI 3.1.
    """
    operations = [
        _operation(description, path, verb, operation)
        for path, verbs in description["paths"].items()
        for verb, operation in verbs.items()
    ]
    link = element("a", "openapi.json", href="openapi.json")
    return page(
        description["info"]["title"],
        element("p", description["info"]["description"]),
        element("p", "The same for programs: ", link),
        *operations,
    )


def _operation(description: dict, path: str, verb: str, operation: dict) -> Html:
    taken = [
        [x["name"], x["in"], _type_words(description, x["schema"]), x.get("description", "")]
        for x in operation.get("parameters", [])
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(description, content["schema"])
        taken += _rows(description, schema, kind)
    given = []
    for status, answer in operation["responses"].items():
        kinds = list(answer.get("content", {})) or [""]
        given.append([status, " or ".join(kinds), answer.get("description", "")])
    return section(
        f"{verb.upper()} {path}",
        element("p", operation.get("description") or operation.get("summary", "")),
        *([table(HEADS, taken, class_="words")] if taken else []),
        element("h3", "Answers"),
        table(["status", "kind", "meaning"], given, class_="words"),
        _fields(description, operation),
    )


def _fields(description: dict, operation: dict) -> Html:
    """What the JSON of an answer holds."""
    content = operation["responses"].get("200", {}).get("content", {})
    schema = _resolved(description, content.get("application/json", {}).get("schema", {}))
    tables = []
    while schema:
        schema = _resolved(description, schema.get("items", schema))
        if rows := _rows(description, schema, "JSON"):
            tables.append(table(HEADS, rows, class_="words"))
        lists = [x["items"] for x in schema.get("properties", {}).values() if "$ref" in str(x)]
        schema = _resolved(description, lists[0]) if lists else {}
    return join(*tables)


def _rows(description: dict, schema: dict, where: str) -> list[list[str]]:
    needed = schema.get("required", [])
    return [
        [
            name + ("" if name in needed else " (optional)"),
            where,
            _type_words(description, value),
            value.get("description", ""),
        ]
        for name, value in schema.get("properties", {}).items()
    ]


def _resolved(description: dict, schema: dict) -> dict:
    name = schema.get("$ref", "").rpartition("/")[2]
    return description["components"]["schemas"][name] if name else schema


def _type_words(description: dict, schema: dict) -> str:
    schema = _resolved(description, schema)
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_type_words(description, x) for x in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type_words(description, schema['items'])}"
    if schema.get("contentMediaType") or schema.get("format") == "binary":
        return "file"
    ends = [f"{word} {schema[key]}" for key, word in ENDS.items() if key in schema]
    return " ".join([schema.get("title" if "properties" in schema else "type", "value"), *ends])
