"""Configuration of a command: TOML file or run.json, ``--set``, and where each value came from.

Precedence: command line, environment, file, default. A file holds the options of one command at its top
level, or one table per command (``[sample]``). Tables and keys that are no options are nested settings, for
commands that take ``--set``; anything else is an error that names the nearest key.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from polydit.core.errors import InputError

_META = "polydit.settings"  # nested settings of the file, until --set adds to them
_SOURCES = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "config file",
    ParameterSource.PROMPT: "command line",
}
T = TypeVar("T")


class Option(NamedTuple):
    """The value of an option, plain enough for JSON, and where it came from."""

    value: Any
    source: str  # "command line", "environment", "config file" or "default"


def effective_options(ctx: click.Context) -> dict[str, Option]:
    """Every option and argument of the running command, with its source, in the order of the help.

    Options about the call itself (``--json``, ``--overwrite``, ...) are left out. A nested setting ``a.b`` is
    listed as ``settings.a.b``. ``--config run.json`` reads this back.
    """
    from polydit.core.cli.options import ABOUT_THE_CALL

    options: dict[str, Option] = {}
    for param in ctx.command.get_params(ctx):
        name = param.name
        if name is None or name in ABOUT_THE_CALL or not (param.expose_value or name in ctx.params):
            continue
        if name == "settings":
            options |= {f"settings.{key}": option for key, option in ctx.meta.get(_META, {}).items()}
        else:
            source = ctx.get_parameter_source(name)
            options[name] = Option(_plain(ctx.params.get(name)), _SOURCES.get(source, "default"))  # type: ignore[arg-type]
    return options


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; a value of an own type as the text that was typed."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


# ---------------------------------------------------------------------------------------------------------
# Reading a file, and the settings of the command line on top of it


def read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Callback of ``--config``: fill the defaults of the command from a TOML file or a run.json."""
    if path is None or ctx.resilient_parsing:
        return
    values = _run_json_values(ctx, path) if path.suffix == ".json" else _toml_values(ctx, path)
    names = _option_names(ctx)
    takes_settings = "settings" in names
    defaults: dict[str, Any] = {}
    settings: dict[str, Option] = {}
    for key, value in values.items():
        name = names.get(key.replace("-", "_"))
        if name is not None and name != "settings":
            defaults[name] = value
        elif takes_settings:
            settings |= {dotted: Option(leaf, "config file") for dotted, leaf in _flatten(key, value)}
        else:
            raise unknown_key(key, sorted(names), where=str(path))
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    ctx.meta[_META] = settings


def add_settings(ctx: click.Context, param: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """Callback of ``--set``: the file's nested settings, changed by those of the command line."""
    settings: dict[str, Option] = dict(ctx.meta.get(_META, {}))
    source = _SOURCES.get(ctx.get_parameter_source("settings"), "default")  # type: ignore[arg-type]
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE, such as denoiser.width=256.", ctx, param)
        settings[key.strip().replace("-", "_")] = Option(_toml_value(text.strip()), source)
    ctx.meta[_META] = settings
    return {key: option.value for key, option in settings.items()}


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a word without quotes


def _toml_values(ctx: click.Context, path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not a TOML file: {error}", where=str(path)) from error
    commands = _sibling_commands(ctx)
    tables = {key for key, value in values.items() if isinstance(value, dict)}
    if ctx.info_name not in tables and not (tables and tables == set(values) <= set(commands)):
        return values
    for key in values:
        if key not in commands:
            raise unknown_key(key, commands, where=str(path), kind="command")
    return dict(values.get(ctx.info_name or "", {}))


def _sibling_commands(ctx: click.Context) -> list[str]:
    group = ctx.parent.command if ctx.parent else None
    return group.list_commands(ctx.parent) if isinstance(group, click.Group) and ctx.parent else []


def _run_json_values(ctx: click.Context, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        command, options = record["command"], record["options"]
        values = {key: option["value"] for key, option in options.items() if option["value"] is not None}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "not the run.json of a run", where=str(path), expected="command and options"
        ) from error
    if not str(command).endswith(ctx.info_name or ""):
        raise InputError(
            f"was written by {command!r}", where=str(path), hint=f"Repeat it with: {command} --config {path}"
        )
    return {key.removeprefix("settings."): value for key, value in values.items()}


def _option_names(ctx: click.Context) -> dict[str, str]:
    """Key in a file -> parameter: its name, and its long option where that differs."""
    from polydit.core.cli.options import ABOUT_THE_CALL

    names: dict[str, str] = {}
    for param in ctx.command.get_params(ctx):
        if param.name is None or param.name in ABOUT_THE_CALL:
            continue
        names[param.name] = param.name
        for option in param.opts if isinstance(param, click.Option) else ():
            if option.startswith("--") and param.name != "settings":
                names[option.removeprefix("--").replace("-", "_")] = param.name
    return names


def _flatten(key: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _flatten(f"{key}.{inner}", item)
    else:
        yield key.replace("-", "_"), value


# ---------------------------------------------------------------------------------------------------------
# Nested settings onto a config dataclass


def dotted(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as pairs with the keys of `--set`: the inverse of `apply_settings` on `asdict(config)`."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        pairs += dotted(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return pairs


def apply_settings(config: T, settings: Mapping[str, Any], *, where: str = "setting") -> T:
    """A copy of a (nested) dataclass with dotted keys changed: ``{"denoiser.width": 256}``.

    Args:
        config: A dataclass instance; it holds the defaults.
        settings: Dotted key -> value.
        where: Named in the message of an error.

    Raises:
        InputError: A key that the dataclass lacks (the nearest one is named), or a value of the wrong type.
    """
    changed: T = _replace(
        config, {tuple(key.split(".")): value for key, value in settings.items()}, "", where
    )
    return changed


def _replace(config: Any, settings: Mapping[tuple[str, ...], Any], prefix: str, where: str) -> Any:
    """All changes of one dataclass at once: it checks its values together, whatever the order of the keys."""
    parts: dict[str, dict[tuple[str, ...], Any]] = {}
    for path, value in settings.items():
        parts.setdefault(path[0], {})[path[1:]] = value
    changed = {name: _changed(config, name, inner, prefix, where) for name, inner in parts.items()}
    try:
        return dataclasses.replace(config, **changed)
    except (ValueError, TypeError) as error:  # the dataclass checks its own ranges
        keys = " ".join(".".join((prefix + path[0], *path[1:])) for path in settings)
        raise InputError(str(error), where=f"{where} {keys}") from error


def _changed(config: Any, name: str, settings: Mapping[tuple[str, ...], Any], prefix: str, where: str) -> Any:
    """The new value of one field: `settings` has the path () for the field itself, longer ones for its parts."""
    hints = get_type_hints(type(config))
    fields = {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}
    rest = next(iter(settings))
    key = ".".join((prefix + name, *rest))
    if name not in fields:
        raise unknown_key(key, [prefix + field for field in fields], where=where)
    current = getattr(config, name)
    if not dataclasses.is_dataclass(current):
        if inner := next((path for path in settings if path), None):
            problem = f"{prefix}{name} is one value and has no part {'.'.join(inner)!r}"
            raise InputError(problem, where=where)
        return _typed(settings[()], fields[name], key, where)
    if () in settings:
        parts = ", ".join(f"{prefix}{name}.{field.name}" for field in dataclasses.fields(current))
        raise InputError(f"{prefix}{name} is a table", where=where, expected=f"one of {parts}")
    return _replace(current, settings, f"{prefix}{name}.", where)


def _typed(value: Any, hint: Any, key: str, where: str) -> Any:
    """The value if it is of the annotated type; a whole number counts as a float, a list as a tuple."""
    for accepted in get_args(hint) if _is_union(hint) else (hint,):
        origin = get_origin(accepted) or accepted
        if accepted is float and type(value) in (int, float):
            return float(value)
        if origin is tuple and isinstance(value, list):
            return tuple(value)
        if origin is Path and isinstance(value, str):
            return Path(value)
        if not isinstance(origin, type):  # Literal
            if value in get_args(accepted):
                return value
        elif type(value) is origin or accepted is Any:
            return value
    name = getattr(hint, "__name__", None) if not get_args(hint) else None
    raise InputError(f"{value!r} is of the wrong type", where=f"{where} {key}", expected=name or str(hint))


def _is_union(hint: Any) -> bool:
    import types
    import typing

    return get_origin(hint) in (typing.Union, types.UnionType)


def unknown_key(key: str, known: Sequence[str], *, where: str, kind: str = "key") -> InputError:
    """The error for a key that nobody reads, with the nearest one that somebody does."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"
    return InputError(f"unknown {kind} {key!r}", where=where, hint=hint)
