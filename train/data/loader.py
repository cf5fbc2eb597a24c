"""Micro-batches for the loop, decoded in the background.

Workers are started from a fork server: a plain fork would copy a process whose OpenMP, CUDA and progress-bar threads
may hold locks, and a spawn per worker would import torch anew each time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait

import numpy as np
import torch
from torch.utils.data import DataLoader

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.train.batch import Pixels
from sora_spec.train.data.clips import ClipDataset, Sample
from sora_spec.train.data.order import BatchOrder


def collate(samples: list[Sample]) -> Pixels:
    """Stack samples in the order they were asked for."""
    frames = torch.from_numpy(np.stack([sample.frames for sample in samples]))
    labels = torch.tensor([sample.label for sample in samples])
    captions = tuple(sample.caption for sample in samples if sample.caption is not None)
    return Pixels(frames, labels, tuple(text for sample in samples for text in sample.damaged), captions)


@dataclass(frozen=True)
class _Carrying:
    """A data set whose errors are values: torch would rebuild one of a worker from a text with its traceback."""

    dataset: ClipDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Sample | Exception:
        try:
            return self.dataset[number]
        except (UserError, OSError) as error:
            return error


def _collate(samples: list[Sample | Exception]) -> Pixels | Exception:
    failed = next((sample for sample in samples if isinstance(sample, Exception)), None)
    return failed or collate([sample for sample in samples if isinstance(sample, Sample)])


def _start_worker(_: int) -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the main one; end when that one is gone.

    torch's workers watch the process that forked them. That is the fork server here, and it lives as long as they do:
    a main process ended by SIGKILL would leave both behind for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    assert main is not None
    threading.Thread(target=_end_with, args=(main.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def load_batches(dataset: ClipDataset, order: BatchOrder, workers: int) -> Iterator[Pixels]:
    """Micro-batches in `order`. Workers start with this call; with 0 of them the calling process decodes."""
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sora_spec.train.data.fork_server"])
    loader = DataLoader(
        _Carrying(dataset),  # pyright: ignore[reportArgumentType]  map-style by protocol
        batch_sampler=order,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # DataLoader draws a seed for its workers; the global stream stays untouched
    )
    return _reporting(iter(loader))


def _next(batches: Iterator[Pixels | Exception]) -> Pixels | Exception | None:
    try:
        return next(batches, None)
    except (ConnectionError, EOFError) as error:  # as torch says it of a worker that ends between two messages
        raise RuntimeError("DataLoader worker (pid 0) exited unexpectedly in the middle of a message") from error


def _reporting(batches: Iterator[Pixels | Exception]) -> Iterator[Pixels]:
    while (batch := _next(batches)) is not None:
        if isinstance(batch, Exception):
            raise batch
        for text in batch.damaged:
            output.warn(f"damaged, another file is taken in its place: {text}")
        given = [batch]
        del batch  # nothing here holds it while the step runs, nor after
        yield given.pop()
