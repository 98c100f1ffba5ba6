"""Ways to damage bytes, nested values and words."""

from __future__ import annotations

import copy
import random
from typing import Any

OTHERS = (b'', b'text\n', b'\x80\x04N.', b'PK\x03\x04', b'\x89PNG\r\n\x1a\n', b'\x00' * 64)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 3, 1.5, 1e308, float('nan'), float('inf'), '', 'x', '../x', 'nan', [], {},
    [[]], [0], ['rgb'], {'type': 'os.mkdir', 'path': 'executed'}, 'os.mkdir', 10**30,
)  # fmt: skip


def damage(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Flip, cut, insert, zero, remove or double bytes, or take another file altogether."""
    changed, place = bytearray(data), draw.randrange(max(1, min(len(data), _reach(draw))))
    way = draw.choice(
        ('flip', 'flip', 'flip', 'cut', 'insert', 'zero', 'remove', 'double', 'other')
    )
    size = draw.choice((1, 4, 40, 4096))
    if way == 'flip':
        for _ in range(draw.choice((1, 1, 8))):
            changed[draw.randrange(len(data)) if _ else place] ^= 1 << draw.randrange(8)
    elif way == 'cut':
        del changed[place:]
    elif way == 'insert':
        changed[place:place] = draw.randbytes(size)
    elif way == 'zero':
        changed[place : place + size] = bytes(len(changed[place : place + size]))
    elif way == 'remove':
        del changed[place : place + size]
    elif way == 'double':
        changed[place:place] = changed[place : place + size]
    else:
        changed = bytearray(draw.choice((*OTHERS, draw.randbytes(99))))
    return bytes(changed), f'{way} at {place} of {len(data)}'


def _reach(draw: random.Random) -> int:
    """Headers are short and matter most."""
    return draw.choice((64, 10**9, 10**9))


def slip(word: str, draw: random.Random) -> str:
    """Misspell a word."""
    i = draw.randrange(len(word))
    return draw.choice((
        word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:], word[:i] + 'q' + word[i + 1 :],
        word[: i - 1] + word[i:i + 1] + word[i - 1 : i] + word[i + 1 :] if i else word + 's',
    ))  # fmt: skip


def mutate(value: Any, draw: random.Random) -> tuple[Any, str]:
    """Replace, remove, misspell or add something in nested lists and dicts."""
    value = copy.deepcopy(value)
    place, path = value, ''
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return draw.choice(ODD), f'{path} replaced'
        key = draw.choice(keys)
        path += f'.{key}'
        if isinstance(place[key], (dict, list)) and draw.random() < 0.7:
            place = place[key]
            continue
        way = draw.choice(('replace', 'replace', 'remove', 'rename', 'add', 'double'))
        if way == 'replace':
            place[key] = copy.deepcopy(draw.choice(ODD))
            return value, f'{path} = {place[key]!r}'
        if way == 'remove':
            del place[key]
        elif isinstance(place, list):
            place.append(copy.deepcopy(place[key]))
        elif way == 'rename' and isinstance(key, str) and key:
            place[slip(key, draw)] = place.pop(key)
        else:
            place[draw.choice(('../x', 'x', 'type', slip(key or 'x', draw)))] = draw.choice(ODD)
        return value, f'{path} {way}'
