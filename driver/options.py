"""`launch.py`'s options: preset, then YAML file, then command line; or the settings of a run to resume."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import tyro
import yaml

from common.config import ActorsConfig, Config
from common.errors import UserError
from common.presets import PRESETS
from common.validation import ALL_STAGES, STAGES, expand_stages, validate
from driver.fetching import fetched_run
from driver.run_directory import RunDirectory, newest_run
from driver.store import is_uri
from learner.checkpoint_names import has_checkpoint_name

RUNS = Path("runs")

_END: Final = "...\n"  # of a YAML document

# What may differ between a run and its continuation: its end, its surroundings, how it is watched.
_CHANGEABLE = (
    *(
        "eval.enabled",
        "eval.interval_s",
        "eval.video",
        "checkpoint.",
        "ray.",
        "total_env_steps",
        "max_",
        "print_",
        "actors.count",
        "env.core",
    ),
    *("actors.precision", "learner.device", "learner.precision", "learner.threads", "learner.prefetch"),
)

_DESCRIPTION = f"""Trains Mario: Ray actors play, a sharded replay stores, one learner learns.

  --preset NAME     settings to start from: {", ".join(PRESETS)} (default: default)
  --config FILE     YAML file of settings, on top of the preset
  --run-dir DIR     folder of this run (default: runs/TIME_STAGES); refused when it holds a run already
  --resume [DIR]    go on with the run in DIR, else in --run-dir, else with the newest under runs/
  --resume URI      go on with the run that was mirrored there (--checkpoint.uri), in a new folder of this machine
  --resume-from DIR go on from this checkpoint of a run instead of its newest one

The options below come on top. A run without any limit ends after 30 minutes."""


@dataclass(frozen=True)
class LaunchOptions:
    """What `launch.py` was asked to do."""

    config: Config
    preset: str
    run: RunDirectory
    resume: bool
    checkpoint: Path | None = None  # to resume from; None: the newest
    arguments: tuple[str, ...] = ()  # of the command line
    fetched: str | None = None  # the URI that the run's folder was made from
    remarks: tuple[str, ...] = ()  # for the user

    def abandon(self) -> None:
        """Removes a folder that was fetched for a session which did not begin."""
        if self.fetched is not None and not self.run.was_worked_on:
            shutil.rmtree(self.run.path, ignore_errors=True)


def parse_options(argv: Sequence[str]) -> LaunchOptions:
    """Reads the command line; prints help and exits where asked to.

    Raises:
        UserError: anything that cannot be done, with what to do about it.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", nargs="?", const="", default=None)
    parser.add_argument("--resume-from", type=Path)
    try:
        own, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise UserError(f"{error} (see --help)") from None
    if own.preset is not None and own.preset not in PRESETS:
        raise UserError(f"--preset {own.preset}: unknown; there are {', '.join(PRESETS)}")
    if (own.resume is not None or own.resume_from is not None) and not _asks_for_help(rest):
        return _resume(own, rest)
    preset = own.preset or "default"
    config = _with_arguments(_with_file(PRESETS[preset], own.config), rest)
    validate(config)
    run = RunDirectory(own.run_dir or _fresh_path(config))
    run.check_free()
    return LaunchOptions(config, preset, run, resume=False, arguments=tuple(argv))


def load_config(path: Path, base: Config | None = None) -> Config:
    """The settings of a YAML file on top of `base`; UserError with file and setting where it is wrong."""
    return _to_config(path, _parse_yaml(path, _read_text(path)), base or Config())


class RunSettings(NamedTuple):
    """The settings that a run wrote down."""

    config: Config
    missing: tuple[str, ...]  # those that it did not know, by dotted name; they are what `_BEFORE` has


def load_run_settings(path: Path) -> RunSettings:
    """Reads a run's `config.yaml`.

    Raises:
        UserError: the file is wrong or cut short, so that settings would silently be the defaults.
    """
    text = _read_text(path)
    half_line = text.rpartition("\n")[2]
    content = {} if half_line else _parse_yaml(path, text)
    known = list(_KNOWN)
    # Earlier versions wrote no mark at the end, but the settings in the same order.
    if not text.endswith(_END) and not _holds(content, known[-1]):
        raise UserError(
            f"{path} is cut short: it does not end as a run's settings do; restore it, as from the copy in a "
            "checkpoint, or start a new run"
        )
    missing = tuple(name for name in known if not _holds(content, name))
    return RunSettings(_to_config(path, content, _BEFORE), missing)


def dump_config(config: Config) -> str:
    """YAML that `load_config` and `load_run_settings` read back to the same settings, with a mark at its end."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, explicit_end=True)


def flatten(config: Config) -> dict[str, Any]:
    """Settings by dotted name, such as `env.stages`."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def show(value: Any) -> str:
    """A setting's value as it is given on the command line."""
    return " ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)


# What a run has of settings that came after it: the defaults, but for those that would change how it goes on.
_BEFORE: Final = Config(actors=ActorsConfig(practice_opening=0))
_KNOWN = flatten(Config())
_SECTIONS = list(dict.fromkeys(name.partition(".")[0] for name in _KNOWN if "." in name))


def _resume(own: argparse.Namespace, arguments: Sequence[str]) -> LaunchOptions:
    if own.resume and is_uri(own.resume):
        return _resume_uri(own, arguments)
    if own.resume and own.run_dir is not None and Path(own.resume) != own.run_dir:
        raise UserError(f"--resume {own.resume} and --run-dir {own.run_dir} name two runs; give one")
    checkpoint: Path | None = None
    if own.resume_from is not None:
        path = _run_of(own.resume_from)
        checkpoint = own.resume_from.resolve()  # as the run's folder is, in which it is looked for
        if own.resume and Path(own.resume).resolve() != path.resolve():
            raise UserError(f"--resume-from {own.resume_from} is no checkpoint of --resume {own.resume}")
    else:
        path = Path(own.resume) if own.resume else own.run_dir or newest_run(RUNS)
    run = RunDirectory(path)
    config, preset, remarks = _continuation(own, arguments, run, str(path))
    return LaunchOptions(config, preset, run, resume=True, checkpoint=checkpoint, remarks=remarks)


def _resume_uri(own: argparse.Namespace, arguments: Sequence[str]) -> LaunchOptions:
    """Makes the run's folder on this machine from its newest whole copy."""
    uri: str = own.resume
    if own.resume_from is not None:
        raise UserError(f"--resume-from {own.resume_from} is no checkpoint of --resume {uri}, whose newest is taken")
    if own.run_dir is not None:
        RunDirectory(own.run_dir).check_free()
    parent = RUNS if own.run_dir is None else own.run_dir.parent
    with fetched_run(uri, parent) as fetched:
        run = RunDirectory(fetched.path)
        config, preset, remarks = _continuation(own, arguments, run, uri, uri=uri)
        final = RunDirectory(own.run_dir or _fresh_path(config))
        fetched.path.rename(final.path)
    remarks = (*fetched.remarks, *remarks, f"{uri}/{fetched.copy} was fetched into {final.path}")
    return LaunchOptions(config, preset, final, resume=True, fetched=uri, remarks=remarks)


def _continuation(
    own: argparse.Namespace, arguments: Sequence[str], run: RunDirectory, shown: str, **checkpoint: Any
) -> tuple[Config, str, tuple[str, ...]]:
    """Settings and preset of a run that is resumed, and remarks for the user.

    Args:
        own: `launch.py`'s own options.
        arguments: the settings on the command line.
        run: its folder.
        shown: what the user calls it.
        checkpoint: settings of its checkpoints that take the place of the run's.
    """
    run.check_resumable()
    preset = run.read_metadata()["preset"]
    if own.preset not in (None, preset):
        raise UserError(f"--preset {own.preset} contradicts {shown}, which was started with {preset}")
    before, missing = load_run_settings(run.config_path)
    before = dataclasses.replace(before, checkpoint=dataclasses.replace(before.checkpoint, **checkpoint))
    config = _with_arguments(_with_file(before, own.config), arguments)
    settings = flatten(before)
    _refuse_contradictions(settings, flatten(config), shown)
    validate(config)
    listed = ", ".join(f"{name} {show(settings[name])}" for name in missing)
    remarks = (f"config.yaml is of an earlier version, and lacks what this one has: taken as {listed}",)
    return config, str(preset), remarks if missing else ()


def _run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint lies in."""
    path = checkpoint.resolve()
    run = path.parent.parent
    if not path.is_dir() or RunDirectory(run).checkpoints != path.parent or not has_checkpoint_name(path):
        raise UserError(
            f"--resume-from {checkpoint}: no checkpoint of a run; name a folder such as runs/…/checkpoints/step-…"
        )
    return run


def _refuse_contradictions(before: dict[str, Any], after: dict[str, Any], run: str) -> None:
    changed = [key for key in after if after[key] != before[key] and not key.startswith(_CHANGEABLE)]
    if changed:
        listed = ", ".join(f"{_option(key)} (the run has {show(before[key])})" for key in changed)
        raise UserError(f"these settings contradict the run in {run}: {listed}; leave them out or start a new run")


def _fresh_path(config: Config) -> Path:
    stages = ALL_STAGES if config.env.stages == STAGES else "+".join(config.env.stages)
    what = stages if config.env.name == "mario" else config.env.name
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{what}"
    path, number = RUNS / stem, 1
    while path.exists():
        number += 1
        path = RUNS / f"{stem}_{number}"
    return path


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None


def _parse_yaml(path: Path, text: str) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of too many digits
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be settings") from None
    if not isinstance(content, dict | None):
        raise UserError(f"{path}: expected settings such as 'env: {{stages: [1-1]}}', got {type(content).__name__}")
    return content or {}


def _holds(content: dict[Any, Any], name: str) -> bool:
    """Whether a file's settings have one of this dotted name, whatever its value."""
    section, dot, leaf = name.rpartition(".")
    inner = content.get(section) if dot else content
    return isinstance(inner, dict) and leaf in inner


def _to_config(path: Path, content: dict[Any, Any], base: Config) -> Config:
    try:
        return _parse(list(_to_arguments(content, "")), base)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _with_file(config: Config, path: Path | None) -> Config:
    return config if path is None else load_config(path, config)


def _with_arguments(config: Config, arguments: Sequence[str]) -> Config:
    return _parse(arguments, config)


def _parse(arguments: Sequence[str], default: Config) -> Config:
    """tyro's parser, its box of advice condensed to one line."""
    if _asks_for_help(arguments):
        return tyro.cli(Config, default=default, args=list(arguments), prog="launch.py", description=_DESCRIPTION)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            return _expanded(tyro.cli(Config, default=default, args=list(arguments), prog="launch.py"))
    except SystemExit:
        raise UserError(f"{_condense(errors.getvalue())} (see --help)") from None


def _expanded(config: Config) -> Config:
    """With the stages that "all" means."""
    env = dataclasses.replace(config.env, stages=expand_stages(config.env.stages))
    evaluation = dataclasses.replace(config.eval, stages=expand_stages(config.eval.stages))
    return dataclasses.replace(config, env=env, eval=evaluation)


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _condense(box: str) -> str:
    """The message of one of tyro's error boxes, without its frame, its title and its help text."""
    lines = [line.strip(" │") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("-─╭╮╰╯ ")] or [-1]
    body = lines[rules[0] + 1 :]
    message = " ".join(itertools.takewhile(lambda line: line and line.strip("-─"), body))
    suggestions = [match[1] for line in body if (match := re.match(r"(--[a-z][\w.-]*)", line))]
    if message.startswith("Unrecognized") and suggestions:
        message += f"; did you mean {' or '.join(suggestions)}?"
    return message.rstrip(".") or "the options could not be read"


def _to_arguments(settings: dict[Any, Any], prefix: str) -> Iterator[str]:
    """A file's settings as command-line options, so that one parser checks both.

    Raises:
        UserError: a setting that does not exist, or a value of the wrong kind.
    """
    for key, value in settings.items():
        name = f"{prefix}{key}"
        known = _KNOWN.get(name)
        if name in _SECTIONS:
            if not isinstance(value, dict | None):
                raise UserError(f"{name} is a section of settings, not {value!r}")
            yield from _to_arguments(value or {}, f"{name}.")
        elif name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN)
            raise UserError(f"there is no setting {name}{f'; did you mean {close[0]}?' if close else ''}")
        elif any(_looks_like_an_option(item) for item in (value if isinstance(value, list) else [value])):
            raise UserError(f"{name}: {value!r} is not a value for it")
        elif isinstance(value, dict) or isinstance(value, list) != isinstance(known, tuple):
            raise UserError(f"{name}: {value!r} is not {'a list' if isinstance(known, tuple) else 'a single value'}")
        elif isinstance(value, bool) != isinstance(known, bool):
            raise UserError(
                f"{name}: {value!r} is not {'true or false' if isinstance(known, bool) else 'a value for it'}"
            )
        elif isinstance(value, bool):
            parent, _, leaf = name.rpartition(".")
            yield _option(name if value else f"{parent}.no-{leaf}" if parent else f"no-{leaf}")
        else:
            yield from (_option(name), *(str(item) for item in (value if isinstance(value, list) else [value])))


def _looks_like_an_option(value: Any) -> bool:
    """Whether the parser would take a file's value for another option, or for a wish for help."""
    if not isinstance(value, str) or not value.startswith("-"):
        return False
    with contextlib.suppress(ValueError):
        float(value)
        return False
    return True


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
