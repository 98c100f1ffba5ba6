"""Checkpoints that survive a kill, and a stop on request."""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from ...files import remove_unfinished, whole_file
from ...modalities import nearest
from ..loops import ExactEpochLoop

STOPPED = 'stopped.pth'


@register_backend('WholeFileBackend')
class WholeFileBackend(LocalBackend):
    """Local files that are complete or absent, also after a kill or a power failure."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file under another name, and rename it when it is on the disk."""
        with whole_file(filepath, durable=True) as part:
            part.write_bytes(obj)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Save checkpoints so that a training can be killed at any moment and resumed exactly.

    A checkpoint is complete or absent. Older ones are deleted after the new one is complete.
    Resuming rejects a checkpoint of another model. If a checkpoint was saved before its validation,
    resuming runs that validation first.

    SIGTERM and Ctrl-C save ``stopped.pth`` after the current step and end the program with the
    command that resumes it; a second signal ends it at once.

    Args:
        kwargs: Arguments of mmengine's ``CheckpointHook``.

    Raises:
        OSError: If a checkpoint cannot be written; the last good one stays.
        ValueError: If the resumed checkpoint is of another model, or an argument is impossible.
    """

    def __init__(self, **kwargs: Any) -> None:
        _check_arguments(kwargs)
        if kwargs.get('backend_args') is None and kwargs.get('file_client_args') is None:
            kwargs['backend_args'] = dict(backend='WholeFileBackend')
        super().__init__(**kwargs)
        self._meta: dict[str, Any] = {}
        self._validated = False
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    # resuming

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the progress of a resumed checkpoint, and reject one of another model."""
        if not runner._resume:
            return
        self._meta = dict(checkpoint['meta'])
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            _load_checkpoint_to_model(model, checkpoint, strict=True)
        except RuntimeError as error:
            raise ValueError(another_model(error)) from error

    def before_train(self, runner: Runner) -> None:
        """Continue a resumed training at the progress of its checkpoint."""
        super().before_train(runner)
        if is_main_process() and os.path.isdir(self.out_dir):
            remove_unfinished(self.out_dir)
            if self._meta and runner._load_from and '://' not in runner._load_from:
                # mmengine writes this file in place, so a kill may have emptied it
                _name_last(runner, os.path.abspath(runner._load_from))
        self._listen()
        loop, done = runner.train_loop, self._meta.get('batches_done', 0)
        if isinstance(loop, ExactEpochLoop):
            loop.batches_done = done
        elif done and isinstance(loop, EpochBasedTrainLoop):
            raise ValueError(
                f'the checkpoint was saved after {done} batches of an epoch, which '
                f"{type(loop).__name__} cannot resume: set train_cfg.type='ExactEpochLoop'"
            )
        if self._meta and not done and self._validation_is_due(runner):
            runner.val_loop.run()

    def _validation_is_due(self, runner: Runner) -> bool:
        """Whether the resumed checkpoint was saved right before a validation."""
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        now, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        return (
            runner.val_loop is not None
            and not self._meta.get('validated', False)
            and now >= loop.val_begin
            and (now % loop.val_interval == 0 or now == last)
        )

    # saving

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        meta['validated'] = self._validated
        if not self.by_epoch:
            meta |= _batches_done(runner, meta['iter'])
        with self._deleting_last(), self._in_a_sentence(runner):
            super()._save_checkpoint_with_step(runner, step, meta)
        stopped = os.path.join(self.out_dir, STOPPED)
        if is_main_process() and os.path.isfile(stopped):  # the new checkpoint is later
            os.unlink(stopped)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        self._validated = True
        try:
            with self._deleting_last(), self._in_a_sentence(runner):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self._validated = False

    @contextmanager
    def _deleting_last(self) -> Iterator[None]:
        """Delete old checkpoints only after everything is written."""
        backend = self.file_backend
        old: list[str] = []
        if 'remove' in vars(backend):  # already kept by the caller
            yield
            return
        backend.remove = old.append
        try:
            yield
        finally:
            del backend.remove
        for path in old:
            if os.path.isfile(path):
                backend.remove(path)

    @contextmanager
    def _in_a_sentence(self, runner: Runner) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f'a checkpoint cannot be written to {self.out_dir} ({error.strerror}): make room, '
                f'and go on from the last good one with {resume_command()}',
            ) from error

    # stopping

    def _listen(self) -> None:
        """Catch the first signal; the second one has its usual effect."""
        if threading.current_thread() is not threading.main_thread():
            return

        def note(number: int, frame: Any) -> None:
            self._signal = number
            self._ignore()

        for number in (signal.SIGTERM, signal.SIGINT):
            # other processes end when the main one does, after it has saved
            handler = note if is_main_process() else signal.SIG_IGN
            self._handlers[number] = signal.signal(number, handler)

    def _ignore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save by iterations, and stop if a signal came."""
        super().after_train_iter(runner, *args, **kwargs)
        if self._signal is not None:
            iterations = runner.iter + 1
            done = _batches_done(runner, iterations)
            self._stop(runner, dict(epoch=runner.epoch, iter=iterations, **done))

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop a validation if a signal came; resuming runs it again."""
        if self._signal is not None and runner.iter:
            self._stop(runner, dict(epoch=runner.epoch, iter=runner.iter))

    def after_train(self, runner: Runner) -> None:
        """Restore the handlers of signals."""
        self._ignore()
        super().after_train(runner)

    def _stop(self, runner: Runner, meta: dict) -> None:
        iterations = meta['iter']
        with self._in_a_sentence(runner):
            runner.save_checkpoint(
                self.out_dir, STOPPED, meta=meta, by_epoch=False, backend_args=self.backend_args
            )
            _name_last(runner, os.path.join(self.out_dir, STOPPED))
        number = int(self._signal or 0)
        sys.stderr.write(
            f'\nstopped by {signal.Signals(number).name} after {iterations} iterations, which are '
            f'saved: go on with {resume_command()}\n'
        )
        raise SystemExit(128 + number)


def _name_last(runner: Runner, path: str) -> None:
    with whole_file(os.path.join(runner.work_dir, 'last_checkpoint')) as part:
        part.write_text(path)


def _batches_done(runner: Runner, iterations: int) -> dict[str, int]:
    """Return the number of finished batches of the current epoch, for training by epochs."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return {}
    return {'batches_done': iterations - loop.epoch * len(loop.dataloader)}


def another_model(error: Exception) -> str:
    """Return a sentence about weights that do not fit, from mmengine's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        f'the checkpoint is of another model ({" ".join(lines[1:])[:200]}): give the config that '
        'it was trained with'
    )


def resume_command(option: bool = True) -> str:
    """Return the current command, with ``--resume`` if it has this ``option``."""
    args = [*sys.argv, '--resume'] if option and '--resume' not in sys.argv else sys.argv
    return shlex.join(['python', *args] if args[0].endswith('.py') else args)


def _check_arguments(given: dict[str, Any]) -> None:
    """Refuse what would end the training at its first checkpoint."""
    both = (CheckpointHook.__init__, Runner.save_checkpoint)
    known = [name for one in both for name in inspect.signature(one).parameters if name != 'self']
    for name in given:
        if name not in known:
            raise ValueError(
                f'SafeCheckpointHook has no argument {name!r}{nearest(name, known)}: the arguments '
                f'are {known}'
            )
    for name in ('interval', 'max_keep_ckpts', 'save_begin'):
        value = given.get(name, 1)
        if not isinstance(value, int):
            raise ValueError(f'{name} of SafeCheckpointHook is {value!r}: give a whole number')
