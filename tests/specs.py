"""Lists of modalities and tasks, as configs state them, from mappings by name."""


def modality_list(specs):
    """From name to the other keys."""
    return [dict(name=name, **spec) for name, spec in specs.items()]


def task_list(tasks, heads=None):
    """From name to inputs, and from the names of some to heads."""
    heads = heads or {}
    return [
        dict(name=name, inputs=inputs, **({'head': heads[name]} if name in heads else {}))
        for name, inputs in tasks.items()
    ]
