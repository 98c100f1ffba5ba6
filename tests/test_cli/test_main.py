"""The console script: help, unknown commands, and the command that reads no OpenMMLab."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from mmcen import cli
from mmcen.cli.convert_data import CONVERTERS
from tests.training import ENV, ROOT


def test_help_fits_a_screen(capsys):
    for words in ([], ['--help'], ['-h']):
        assert cli.main(words) == 0
        shown = capsys.readouterr().out
        assert all(f'  {name}' in shown for name in cli.COMMANDS)
        lines = shown.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit, match='0'):
        cli.main([name, '--help'])
    assert f'usage: mmcen {name}' in capsys.readouterr().out


@pytest.mark.parametrize('name', CONVERTERS)
def test_every_converter_has_help(name, capsys):
    with pytest.raises(SystemExit, match='0'):
        cli.main(['convert-data', name, '--help'])
    assert f'usage: mmcen convert-data {name}' in capsys.readouterr().out


def test_unknown_names(capsys):
    assert cli.main(['trian']) == 2
    assert "there is no command 'trian': choose from demo, train, " in capsys.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        cli.main(['convert-data', 'kitti'])
    assert "invalid choice: 'kitti'" in capsys.readouterr().err


@pytest.mark.parametrize('buffering', [-1, 1])
@pytest.mark.parametrize('words', [['--help'], ['train', '--help'], ['doctor']])
def test_a_reader_that_ends_early_ends_the_output(words, buffering, monkeypatch, capfd):
    """As ``mmcen --help | head -1`` does: no traceback, now or when Python exits."""

    def long_report(argv):
        print('x' * 2**20)

    monkeypatch.setattr('mmcen.cli.doctor.main', long_report)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'w', buffering=buffering) as output, monkeypatch.context() as context:
        context.setattr(sys, 'stdout', output)
        with suppress(SystemExit):
            status = cli.main(words)
            assert status == (141 if words == ['doctor'] else 0)
    assert capfd.readouterr().err == ''


def test_as_a_module():
    command = [sys.executable, '-m', 'mmcen', '--help']
    run = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == cli.HELP
