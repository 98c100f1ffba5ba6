"""Configs and their overrides from a command line, with a sentence for what is wrong."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import METRICS
from mmengine.runner import Runner

from ..modalities import nearest

# Entries that Runner, our command line and mmsegmentation read, whether a config has them or not.
READ = [name for name in inspect.signature(Runner.__init__).parameters if name != 'self']
KNOWN = {
    *READ,
    *('runner_type', 'tta_pipeline', 'find_unused_parameters', 'sync_bn', 'custom_imports'),
}


# Entries that hold one word, number or switch.
PLAIN = ('resume', 'load_from', 'launcher', 'log_level', 'work_dir', 'experiment_name')


class Options(DictAction):
    """``KEY=VALUE ...`` on a command line, as mmengine's, which ends in a traceback otherwise."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Read all of them."""
        for value in values if isinstance(values, list) else [values]:
            key, equals, _ = value.partition('=')
            if not (equals and all(key.split('.'))):
                raise argparse.ArgumentError(self, f"'{value}' is not KEY=VALUE, such as a.b=1")
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, RecursionError) as error:
            raise argparse.ArgumentError(
                self, f'{values} cannot be read ({str(error)[:80]}): give numbers, words or "[a,b]"'
            ) from error


def read_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file and apply overrides to it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or an override names an entry that does not exist.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist: see configs/cen/ for what there is')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is Python, which may raise anything
        lines = str(error).strip().splitlines() or ['']
        kind = '' if isinstance(error, (ValueError, OSError)) else f'{type(error).__name__}: '
        raise ValueError(f'{path} cannot be read: {kind}{lines[0]}') from error
    check_names(cfg, path)
    for key in options or {}:
        check_key(cfg, key)
    try:
        cfg.merge_from_dict(dict(options or {}))
    except (KeyError, TypeError, AssertionError, AttributeError) as error:
        raise ValueError(
            f'--cfg-options {" ".join(options or {})} do not fit the config '
            f'({str(error).splitlines()[0][:200]}): look at what it has there'
        ) from error
    return cfg


def check_names(cfg: Config, path: str) -> None:
    """Refuse an entry of a config that looks like a slip in the name of one that a training reads.

    Raises:
        ValueError: It is close to a name that the config has not.
    """
    unused = [name for name in READ if name not in cfg]
    for name in cfg:
        near = [] if name in KNOWN else get_close_matches(name, unused, n=1, cutoff=0.85)
        if near:
            raise ValueError(f'{path} has {name!r}, which is not read: did you mean {near[0]!r}?')


def check_metrics(cfg: Config) -> None:
    """Refuse arguments of a metric that its class does not have: mmsegmentation's ignore them.

    Args:
        cfg: Config with a ``default_scope``.

    Raises:
        ValueError: If ``val_evaluator`` or ``test_evaluator`` has an unknown argument; the text
            names the nearest.
    """
    for key in ('val_evaluator', 'test_evaluator'):
        given = cfg.get(key) or []
        for metric in given if isinstance(given, list) else [given]:
            kind = metric.get('type') if isinstance(metric, Mapping) else None
            if isinstance(kind, str):
                scope = metric.get('_scope_', cfg.default_scope)  # mmengine's, of `mmseg::` bases
                with METRICS.switch_scope_and_registry(scope) as registry:
                    kind = registry.get(kind)
            if not inspect.isclass(kind) or not kind.__module__.startswith(('mmseg.', 'mmcen.')):
                continue
            known = _arguments(kind)
            for name in metric:
                if name not in ('type', '_scope_', *known):
                    raise ValueError(
                        f'{key}: {kind.__name__} has no argument {name!r}{nearest(name, known)}: '
                        f'the arguments are {known}'
                    )


def _arguments(kind: type) -> list[str]:
    """Return the arguments of a class, with those that it passes on to its parents."""
    known: list[str] = []
    for parent in kind.__mro__:
        if '__init__' in vars(parent):
            parameters = inspect.signature(vars(parent)['__init__']).parameters.values()
            known += [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return list(dict.fromkeys(known))


def check_key(cfg: Any, key: str) -> None:
    """Refuse an override of an entry that the config has not, and that looks like a slip.

    All but the last part must be there. The last one may be new, unless it is much like another.

    Raises:
        ValueError: The entry is not there; the text names the nearest.
    """
    parts, place = key.split('.'), getattr(cfg, '_cfg_dict', cfg)
    for depth, part in enumerate(parts):
        if isinstance(place, Sequence) and not isinstance(place, str):
            if not part.isdecimal() or int(part) >= len(place):
                raise ValueError(_unknown(key, depth, map(str, range(len(place)))))
            place = place[int(part)]
            continue
        if not isinstance(place, Mapping):
            if place is None and parts[depth - 1] not in PLAIN:
                return
            raise ValueError(
                f'--cfg-options {key}: {".".join(parts[:depth])} is {place!r}, which has no entries'
            )
        names = {*place, *(KNOWN if depth == 0 else ())}
        last = depth == len(parts) - 1
        slip = get_close_matches(part, names, cutoff=0.8)
        if part not in names and (slip or not last or depth == 0):
            raise ValueError(_unknown(key, depth, names))
        place = place.get(part)


def _unknown(key: str, depth: int, names: Any) -> str:
    parts = key.split('.')
    near = get_close_matches(parts[depth], list(names), n=1, cutoff=0.5)
    place = '.'.join(parts[:depth]) or 'the config'
    hint = f', did you mean {near[0]!r}?' if near else ': look at the config'
    return f'--cfg-options {key}: {place} has no {parts[depth]!r}{hint}'
