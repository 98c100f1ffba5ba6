"""Specs of modalities: what is filled in, what is rejected, and by which words."""

import json
import subprocess
import sys

import pytest

from mmcen.modalities import ModalitySpec, read_specs


@pytest.mark.parametrize(
    ('spec', 'kind', 'interpolation'),
    [
        (dict(), 'colour', 'bilinear'),
        (dict(interpolation='bicubic'), 'colour', 'bicubic'),
        (dict(unit='mm'), 'depth', 'nearest'),
        (dict(unit=0.5, interpolation='area'), 'depth', 'area'),
        (dict(kind='raw'), 'raw', 'bilinear'),
        (dict(domain='normal'), 'domain', 'bilinear'),
        (dict(domain='depth_euclidean'), 'domain', 'nearest'),
        (dict(domain='segment_semantic'), 'domain', 'nearest'),
    ],
)
def test_what_is_not_stated_follows(spec, kind, interpolation):
    made = ModalitySpec('it', **spec)
    assert (made.kind, made.interpolation) == (kind, interpolation)
    assert (made.dir, made.suffix) == ('it', ('.png',))


@pytest.mark.parametrize(
    ('unit', 'metres'),
    [
        ('mm', (0.001, 0.001)),
        ('cm', (0.01, 0.01)),
        ('m', (1.0, 1.0)),
        (0.25, (0.25, 0.25)),
        (dict(uint16='mm', float32='m'), (0.001, 1.0)),
        (dict(uint16=1 / 256), (1 / 256, None)),
    ],
)
def test_units(unit, metres):
    spec = ModalitySpec('depth', unit=unit)
    assert (spec.metres('uint16'), spec.metres('float32')) == metres


def test_padding_is_the_mean_unless_it_is_stated():
    assert ModalitySpec('a').padding is None
    assert ModalitySpec('a', mean=[1.0], std=[2.0]).padding == (1.0,)
    assert ModalitySpec('a', mean=[1.0], std=[2.0], pad=0).padding == 0


@pytest.mark.parametrize(
    ('spec', 'text'),
    [
        (dict(kind='color'), r"'it' has kind 'color': choose one of \['colour', 'depth'"),
        (dict(kind='depth'), "'it' has kind 'depth' and unit None: depth needs a unit, e.g"),
        (dict(kind='raw', unit='mm'), "'it' has kind 'raw' and unit 'mm'"),
        (dict(kind='domain'), "'it' has kind 'domain' and domain ''"),
        (dict(domain='normal', unit='mm'), "'it' has kind 'depth' and domain 'normal'"),
        (dict(unit='inch'), r"'it' has unit 'inch': choose one of \['m', 'cm', 'mm'\], or met"),
        (dict(unit=0), "'it' has unit 0: .* above 0"),
        (dict(unit=float('inf')), "'it' has unit inf"),
        (dict(unit=True), "'it' has unit True"),
        (dict(unit={}), "'it' has unit {}"),
        (dict(unit=dict(uint8=-1.0)), "'it' has unit {'uint8': -1.0}"),
        (dict(suffix=()), "'it' has no suffix: state one"),
        (dict(interpolation='cubic'), r"'it' has interpolation 'cubic': choose one of \['nea"),
        (dict(mean=[1.0]), r"'it' has mean \(1.0,\) and std None: state lists of equal length"),
        (dict(unit=float('nan')), "'it' has unit nan"),
        (dict(mean=[1.0], std=[float('nan')]), r"'it' has mean \(1.0,\) and std \(nan,\)"),
        (dict(mean=[1.0], std=[-1.0]), r"'it' has std \(-1.0,\): it must be above 0"),
        (dict(pad='black'), "'it' has pad black: state one number, or one per channel"),
        (dict(mean=[1.0], std=[1.0], pad=[1, 2]), r"'it' has pad \(1, 2\)"),
        (dict(suffx='.png'), r"'it' has an unknown key 'suffx' \(did you mean 'suffix'\?\): the"),
        (dict(metres_per_unit=1), "'it' has an unknown key 'metres_per_unit': the keys are"),
    ],
)
def test_impossible_specs(spec, text):
    with pytest.raises(ValueError, match=text):
        read_specs([dict(name='it', **spec)])


def test_entries_of_a_config_override_what_a_class_declares():
    declared = dict(rgb=dict(suffix='.jpg'), depth=dict(unit='mm'), normal=dict(domain='normal'))
    rgb, heat, depth = read_specs(
        [
            dict(name='rgb', mean=[1.0], std=[1.0]),
            dict(name='heat', dir='h', kind='raw'),
            'depth',
        ],
        declared,
    )
    assert (rgb.suffix, rgb.mean) == (('.jpg',), (1.0,))
    assert (heat.dir, depth.kind) == ('h', 'depth')
    assert [spec.name for spec in read_specs(None, declared)] == list(declared)


@pytest.mark.parametrize(
    ('given', 'error', 'text'),
    [
        (dict(rgb=dict(dir='a')), TypeError, 'modalities is a dict, .*: give a list, whose order'),
        ('rgb', TypeError, "modalities is a str, 'rgb': give a list"),
        (None, ValueError, 'there is no modality: give modalities='),
        ([3], TypeError, 'a modality is 3: give a dict with a name'),
        ([dict(dir='a')], ValueError, "modality {'dir': 'a'} has no name"),
        (['rgb'], ValueError, "modality 'rgb' is unknown: give a dict .*dict\\(name='rgb', dir="),
        ([dict(name='a', dir='a')] * 2, ValueError, "modality 'a' is listed twice in"),
        ([dict(name='a/b', dir='a')], ValueError, "'a/b' cannot be used as a name: use letters,"),
        ([dict(name='values', dir='a')], ValueError, "'values' cannot be used as a name"),
    ],
)
def test_what_is_no_list_of_modalities(given, error, text):
    with pytest.raises(error, match=text):
        read_specs(given, {})


def test_specs_need_no_openmmlab():
    """The module runs by itself, and survives JSON."""
    code = (
        'import json, runpy, sys\n'
        "read = runpy.run_path('mmcen/modalities.py', run_name='modalities')['read_specs']\n"
        'print(json.dumps([spec.kind for spec in read(json.loads(sys.argv[1]))]))\n'
        "assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules)"
    )
    specs = json.dumps([dict(name='rgb'), dict(name='depth', unit='mm')])
    command = [sys.executable, '-c', code, specs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout) == ['colour', 'depth'], done.stderr
