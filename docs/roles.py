"""Griffe extension: Sphinx roles in docstrings become code, for mkdocstrings."""

import re

import griffe

ROLE = re.compile(r':(?:class|func|meth|mod|attr):`~?([^`]+)`')


class Roles(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Replace the role of a name by the last part of the name, in code font."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(
                lambda m: f'`{m[1].split(".")[-1]}`', obj.docstring.value
            )
