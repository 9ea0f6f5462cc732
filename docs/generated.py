"""Pages that are made of the code when the site is built (a hook of mkdocs): file formats, commands, Python names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mkdocs.structure.files import File, Files

Schema = Mapping[str, Any]
CLASSES = {
    "pruners": "Pruners",
    "regularizers": "Regularizers",
    "lr_schedulers": "LR schedulers",
    "extensions": "Extensions",
    "quantizers": "Quantizers",
}


def on_files(files: Files, config: Any) -> Files:
    for page, made in PAGES.items():
        files.append(File.generated(config, page, content=made()))
    return files


def sweep_file() -> str:
    """Every section of a sweep file, from its schema."""
    from raydistill.sweep.file.schema import run_schema, sweep_schema

    schema = sweep_schema()
    lines = [
        "# Sweep files",
        "",
        "What `raydistill sweep FILE` reads: one YAML file. `raydistill init` writes one for your network and data, "
        "`raydistill sweep FILE --dry-run` checks it. Paths are relative to the file. This page is made of the code; "
        "so is the JSON schema that editors complete and check by:",
        "",
        "```bash",
        "raydistill schema sweep -o sweep.schema.json",
        "```",
        "",
        "Put `# yaml-language-server: $schema=sweep.schema.json` in the file's first line.",
        "",
        "## The whole file",
        "",
        *_table(schema, schema),
        "",
    ]
    for key, field in schema["properties"].items():
        section = _section(field, schema)
        if section is not None:
            lines += [f"## {key}", "", *_paragraphs(section.get("description", "")), *_table(section, schema), ""]
            lines += [*_uses(section), ""]
    lines += ["## training.optimizer", "", *_paragraphs(schema["$defs"]["Optimizer"]["description"])]
    lines += [*_table(schema["$defs"]["Optimizer"], schema), "", "## search", "", *_search(schema), ""]
    lines += [
        "## Run files",
        "",
        "`raydistill compress FILE` reads a run from these sections of a sweep file: "
        + ", ".join(f"`{key}`" for key in run_schema()["properties"])
        + ". There, `schedule` may be left out: the network is trained densely.",
    ]
    return "\n".join(lines) + "\n"


def schedule_file() -> str:
    """Every class of every menu with its arguments, and the policies, from their signatures."""
    from raydistill.compression.build import MENUS
    from raydistill.compression.schema import about, class_arguments, definitions, type_schema

    lines = [
        "# Schedule files",
        "",
        "What is compressed and when, in Distiller's format (version 1): named instances of classes, and policies that "
        "say in which epochs each acts. A file is checked whole before anything runs: `raydistill check FILE --arch "
        "ARCH`. This page is made of the code; so is the JSON schema (`raydistill schema schedule`).",
        "",
        "```yaml",
        '--8<-- "schedules/simplenet_agp.yaml"',
        "```",
        "",
        "A class of your own is named `pkg.mod:Class`. Weights are named as the model names its parameters, with or "
        "without DataParallel's `module.`, by globs, regular expressions, types of layers and exclusions: [Name "
        "weights and layers](../how-to/targets.md). Numbers may be written as `1e-4`.",
        "",
        "## Policies",
        "",
        "Each entry of `policies` names one instance and the epochs in which it acts: `starting_epoch`, `ending_epoch` "
        "(exclusive) and `frequency`, or `epochs: [...]`. Policies of one epoch run in the file's order.",
        "",
        "Of `pruner`, `args` may say:",
        "",
        *_controls(definitions()["policy"]["properties"]["pruner"]["properties"]["args"]["then"]),
        "",
        "Of `regularizer`:",
        "",
        *_controls(definitions()["policy"]["properties"]["regularizer"]["properties"]["args"]["then"]),
        "",
    ]
    for section, title in CLASSES.items():
        lines += [f"## {title}", ""]
        if section == "quantizers":
            lines += ["See [Quantize, and prune too](../how-to/quantize.md).", ""]
        for name in MENUS[section][1]:
            lines += [f"### {name}", "", *_paragraphs(about(section, name))]
            rows = []
            for argument, one in class_arguments(section, name).items():
                if one.kind is one.VAR_KEYWORD:
                    continue
                default = "required" if one.default is one.empty else f"`{one.default!r}`"
                rows.append(f"| `{argument}` | {_kind(type_schema(one.annotation), {})} | {default} |")
            lines += ["| argument | kind | default |", "| --- | --- | --- |", *rows, ""] if rows else [""]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options, from the command line itself."""
    import typer

    from raydistill.cli.main import app

    group: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "`raydistill COMMAND --help` says the same. What is wrong is one line, and exit code 2.",
        "",
    ]
    lines += ["`raydistill --install-completion` lets bash, zsh and fish complete commands, options and files.", ""]
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        lines += [f"## raydistill {name}", "", *_paragraphs(inspect.cleandoc(command.help or "").replace("\f", ""))]
        lines += ["| option | what |", "| --- | --- |"]
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is not None:
                lines.append(f"| `{record[0].replace('|', ' or ')}` | {_cell(record[1])} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def python() -> str:
    """The public names, which mkdocstrings describes."""
    import raydistill

    lines = [
        "# Python",
        "",
        "`import raydistill` has these names; it imports neither Ray nor MLflow, and torch only where it is used.",
        "",
        "## raydistill",
        "",
    ]
    lines += [_described(f"{getattr(raydistill, name).__module__}.{name}") for name in raydistill.__all__]
    for title, names in OTHERS.items():
        lines += ["", f"## {title}", "", *(_described(name) for name in names)]
    return "\n\n".join(lines) + "\n"


def _described(name: str) -> str:
    """A block of mkdocstrings. Of the parts of a run the signature is left out: it holds all that is said of each
    field, which is in the reference of sweep files."""
    parts = ("DatasetConfig", "RunConfig", "Optimizer")
    return f"::: {name}" + ("\n    options: {show_signature: false}" if name.endswith(parts) else "")


OTHERS = {
    "Tasks and loops of your own": [
        "raydistill.tasks.base.Task",
        "raydistill.tasks.base.TaskConfig",
        "raydistill.tasks.base.Loading",
        "raydistill.tasks.loop_task.LoopTask",
        "raydistill.tasks.feeds.TensorFeed",
        "raydistill.metrics.Metric",
        "raydistill.metrics.NetworkFigure",
    ],
    "Runs": [
        "raydistill.training.config.Distillation",
        "raydistill.parts.optimizer.Optimizer",
    ],
    "Thinning": ["raydistill.compression.thinning.thin.thin"],
    "Schemas": [
        "raydistill.compression.schema.schedule_schema",
        "raydistill.sweep.file.schema.sweep_schema",
        "raydistill.sweep.file.schema.run_schema",
    ],
    "Errors": ["raydistill.errors.RaydistillError", "raydistill.errors.Fault"],
}

PAGES: dict[str, Callable[[], str]] = {
    "reference/sweep-file.md": sweep_file,
    "reference/schedule-file.md": schedule_file,
    "reference/commands.md": commands,
    "reference/python.md": python,
}


def _section(field: Schema, schema: Schema) -> Schema | None:
    """The section that a key holds, if it is one with keys of its own."""
    of_each = field.get("additionalProperties")
    for option in (field, *field.get("anyOf", ()), *([of_each] if isinstance(of_each, Mapping) else [])):
        name = option.get("$ref", "").rpartition("/")[2]
        if name.endswith("Section"):
            found: Schema = schema["$defs"][name]
            return found
    return None


def _table(section: Schema, schema: Schema) -> list[str]:
    required = section.get("required", ())
    lines = ["| key | kind | default | what |", "| --- | --- | --- | --- |"]
    for key, field in section["properties"].items():
        default = "required" if key in required else f"`{_yaml(field['default'])}`" if _has_default(field) else ""
        lines.append(f"| `{key}` | {_kind(field, schema, key)} | {default} | {_cell(field.get('description', ''))} |")
    return lines


def _has_default(field: Schema) -> bool:
    return field.get("default") not in (None, {}, [])


def _controls(schema: Schema) -> list[str]:
    rows = [f"| `{key}` | {_kind(field, {})} |" for key, field in schema["properties"].items()]
    return ["| key | kind |", "| --- | --- |", *rows]


def _uses(section: Schema) -> list[str]:
    """Of a menu: what each method's own options are."""
    cases = [
        (case["if"]["properties"]["name"]["const"], case["then"]["propertyNames"]["enum"][1:])
        for case in section.get("allOf", ())
        if "const" in case["if"].get("properties", {}).get("name", {})
    ]
    if not cases:
        return []
    rows = [f"| `{name}` | {', '.join(f'`{key}`' for key in keys) or 'none'} |" for name, keys in cases]
    return ["", "| name | its options |", "| --- | --- |", *rows]


def _search(schema: Schema) -> list[str]:
    drawn = schema["$defs"]["distribution"]["properties"]
    forms = [f"`{{{name}: {one.get('description', '[options]')}}}`" for name, one in drawn.items()]
    return [
        "Key path to distribution: `training.lr`, `training.optimizer.args.eps`, `policies.agp.frequency`, "
        "`policies[0].ending_epoch`, `pruners.agp.final_sparsity`, `train.args.NAME` of a loop of one's own. "
        "`per_layer` is a list of entries, each with `weights`, `types` or `except` ([Name weights and "
        "layers](../how-to/targets.md)) and arguments of the pruner that those weights have, one value drawn for each "
        "weight.",
        "",
        f"Distributions: {', '.join(forms)}. `low` is included, `high` is not.",
    ]


def _kind(field: Schema, schema: Schema, key: str = "") -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        if name == "Optimizer":
            return "[section](#trainingoptimizer)"
        if name.endswith("Section"):
            return f"[section](#{key})"
        return {"search": "[mapping](#search)", "schedule": "[schedule](schedule-file.md)"}.get(name, "list")
    if "then" in field:
        others = [_kind({"type": other}, schema, key) for other in field["type"][1:] if other != "null"]
        return " or ".join([*others, _kind({"type": field["type"][0], **field["then"]}, schema, key)])
    if "anyOf" in field:
        kinds = [_kind(option, schema, key) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        words = field["enum"]
        shown = ", ".join(f"`{word}`" for word in words[:8])
        return shown + (f", ... ({len(words)} in all)" if len(words) > 8 else "")
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("pattern", "").startswith("^[^:]+:"):
        return "`pkg.mod:name`"
    kind = {
        "integer": "whole number",
        "string": "text",
        "boolean": "true or false",
        "object": "mapping",
        "array": "list",
    }
    found = kind.get(str(field.get("type")), str(field.get("type", "anything")))
    if _section(field, schema) is not None:
        return f"[name to section](#{key})"
    if field.get("type") == "array" and isinstance(field.get("items"), Mapping) and field["items"]:
        found += f" of {_kind(field['items'], schema, key)}"
    return found + _bounds(field)


def _bounds(field: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{word} {field[key]:g}" for key, word in words.items() if key in field]
    return f", {' '.join(said)}" if said else ""


def _yaml(value: object) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _paragraphs(text: str) -> list[str]:
    return [*inspect.cleandoc(text).replace("``", "`").splitlines(), ""] if text else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "or").replace("``", "`").replace("<", "&lt;")
